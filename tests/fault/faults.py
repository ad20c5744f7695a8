"""What fails, and how it is made to fail: servers that are killed, disks that are full or broken, clocks that jump."""
import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess

from spindle import Spindle, free_port, run_cli, wait_until
from toolbox import check_answered, check_kept, check_only_late

SETTINGS = {'drilling.estimator': 'gradient', 'pipeline.grace_s': 1, 'mqtt.listener.time_window': 120, 'journal.segment_size': '1MiB'}
ABORTED = -signal.SIGABRT
KILLED = -signal.SIGKILL


class Server(Spindle):
    """A server that keeps its ports from the first start on, and its standard error outside of the disk that fails."""

    def __init__(self, folder, stderr_path, settings=None, **options):
        super().__init__(folder, settings={**SETTINGS, **(settings or {})}, **options)
        self.port, self.http_port = free_port(), free_port()
        self.stderr_path = stderr_path
        self.patience_s = None

    def start_and_kill(self, after_s):
        """Starts it, and kills it so long afterwards, ready or not."""
        self.patience_s = after_s
        try:
            self.start()
        except AssertionError:
            return  # it was not ready in time, and start() has killed it
        finally:
            self.patience_s = None
        self.kill()

    def _read_line(self, deadline_s):
        return super()._read_line(self.patience_s or deadline_s)

    def expect_end(self, status, *said):
        """Waits until it ends by itself; what it said last has all of these texts."""
        assert self.wait() == status, self.stderr()[-4000:]
        last = self.stderr().splitlines()[-1]
        for text in said:
            assert text in last, last
        return last

    def refuses_to_start(self, *said):
        """It does not start, exits with status 1, and the last line says why."""
        done = run_cli('run', '--port', 0, '--http-port', 0, '--data-dir', self.data_dir, check=False,
                       *[argument for key, value in self.settings.items() for argument in ('--set', '%s=%s' % (key, value))])
        assert done.returncode == 1 and 'ready' not in done.stdout, done
        for text in said:
            assert text in done.stderr, done.stderr
        return done.stderr

    def value(self, name, **labels):
        return self.metrics().get_sum(name, **labels)

    def check_audit_agrees(self):
        """The audit of the files gives what the metrics say, in a moment between two outcomes."""
        def agreed():
            before = self.metrics().streams()
            audit = self.audit()
            if self.metrics().streams() != before:
                return False
            for stream, terms in before.items():
                assert audit[stream]['holds'] and {term: audit[stream][term] for term in terms} == terms, (stream, audit[stream], terms)
            return True
        wait_until(agreed, 'a moment in which nothing gets an outcome')


def check_went_on(dead, alive):
    """`dead`: the audit of a killed server's files; `alive`: the metrics after the next start, while nobody sends."""
    for stream, terms in alive.items():
        assert dead[stream]['holds'], dead[stream]
        assert terms['accepted'] >= dead[stream]['accepted'], (stream, dead[stream], terms)
        for term in ('completed', 'duplicates', 'dead_lettered'):
            assert terms[term] >= dead[stream][term], (stream, dead[stream], terms)
    assert alive['ingest']['accepted'] == dead['ingest']['accepted'] and alive['bus'] == {
        term: dead['bus'][term] for term in alive['bus']}, (dead, alive)


class Disk:
    """A small file system."""

    def __init__(self, folder, kind, size_mib):
        self.kind, self.size_mib = kind, size_mib
        self.folder = pathlib.Path(folder) / 'disk'
        self.image = pathlib.Path(folder) / 'disk.img'
        self.folder.mkdir()

    def mount(self):
        """Returns why it could not be mounted; empty: it is."""
        if self.kind == 'tmpfs':
            return self._do('mount', '-t', 'tmpfs', '-o', 'size=%dm' % self.size_mib, 'tmpfs', self.folder)
        if not self.image.exists():
            if not shutil.which('mkfs.ext4'):
                return 'mkfs.ext4 is missing'
            with open(self.image, 'wb') as image:
                image.truncate(self.size_mib << 20)
            why = self._do('mkfs.ext4', '-q', '-F', '-m', '0', self.image)
            if why:
                return why
        return self._do('mount', '-o', 'loop', self.image, self.folder)

    def fail(self):
        """What the kernel does when a disk returns errors: nothing can be written any more, by anybody."""
        assert not self._do('mount', '-o', 'remount,abort', self.folder)

    def mend(self):
        self._do('umount', self.folder)
        subprocess.run(['e2fsck', '-p', self.image], stdout=subprocess.DEVNULL)
        assert not self.mount()

    def destroy(self):
        if os.path.ismount(self.folder):
            self._do('umount', '-l', self.folder)

    @staticmethod
    def _do(*command):
        done = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return done.stderr.strip() or 'status %d' % done.returncode if done.returncode else ''

    def fill(self, leave=0):
        """Takes all space but `leave` bytes with a file `ballast`."""
        with contextlib.suppress(OSError), open(self.folder / 'ballast', 'ab') as ballast:
            free = os.statvfs(self.folder)
            for _ in range((free.f_bavail * free.f_frsize - leave) // 65536):
                ballast.write(bytes(65536))
            ballast.flush()

    def empty(self):
        (self.folder / 'ballast').unlink(missing_ok=True)


class Clock:
    """The wall clock of one server: a file with nanoseconds to add, which the shim reads."""

    def __init__(self, path, shim):
        self.path = path
        self.env = {'LD_PRELOAD': str(shim), 'FAULT_CLOCK': str(path)}
        self.jump(0)

    def jump(self, seconds):
        with open(self.path, 'r+b' if self.path.exists() else 'w+b') as file:
            file.write(struct.pack('<q', int(seconds * 1e9)))


def run_journal(*arguments):
    """A command of the program that may fail, but must not crash; returns what subprocess.run does."""
    done = run_cli(*arguments, check=False, text=False)
    assert done.returncode >= 0, '%s: ended by signal %d\n%s' % (arguments, -done.returncode, done.stderr.decode())
    return done


def check_whole(server, senders):
    """Everything is sent, has its outcome, and is there after an orderly end. The last sender drills nothing."""
    for sender in senders:
        sender.finish()
    server.wait_settled()
    server.check_audit_agrees()
    server.stop()
    check_kept(server, senders)
    check_answered(server, senders[:-1])
    check_only_late(server)
