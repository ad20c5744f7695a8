"""A real Mosquitto as the broker that a user has already: started, stopped and killed on the same port and folder."""
import pathlib
import re
import shutil
import signal
import socket
import subprocess

from spindle import DEADLINE_S, die_with_parent, free_port, wait_until

PROGRAM = shutil.which('mosquitto', path='/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin')


class Mosquitto:

    def __init__(self, folder, users=None, lines=()):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.port = free_port()
        self.process = None
        self.log_path = self.folder / 'mosquitto.log'
        self.conf_path = self.folder / 'mosquitto.conf'
        conf = ['user root', 'listener %d 127.0.0.1' % self.port, 'persistence true', 'persistence_location %s/' % self.folder,
                'max_queued_messages 0', 'max_inflight_messages 2000', 'log_type all']
        if users:
            path = self.folder / 'users'
            path.touch(mode=0o600)
            for name, password in users.items():
                subprocess.run(['mosquitto_passwd', '-b', str(path), name, password], check=True, stderr=subprocess.DEVNULL)
            conf += ['allow_anonymous false', 'password_file %s' % path]
        else:
            conf += ['allow_anonymous true']
        self.conf_path.write_text('\n'.join([*conf, *lines, '']))

    def start(self):
        assert self.process is None
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen([PROGRAM, '-c', str(self.conf_path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent)

        def answers():
            assert self.process.poll() is None, self.log()[-2000:]
            with socket.socket() as probe:
                return probe.connect_ex(('127.0.0.1', self.port)) == 0
        wait_until(answers, 'Mosquitto listens')
        return self

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self):
        """In order: it saves what it has."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(DEADLINE_S)
            self.process = None

    def saved(self, pattern):
        """What of the bytes of the state that it would find at a start matches; it was killed or stopped. Payloads stand there as they are."""
        assert self.process is None
        path = self.folder / 'mosquitto.db'
        return set(re.findall(pattern, path.read_bytes())) if path.exists() else set()

    def log(self):
        return self.log_path.read_text(errors='replace') if self.log_path.exists() else ''
