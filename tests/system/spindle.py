"""The real program under test: starts it, asks it, stops it, and leaves no process behind."""
import ctypes
import json
import os
import pathlib
import random
import re
import selectors
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = pathlib.Path(os.environ.get('SPINDLE_BINARY', ROOT / 'build' / 'spindle'))
SANITIZED = BINARY.parent.name in ('asan', 'tsan')
DEADLINE_S = 60 if SANITIZED else 20  # for anything that should happen at once
PORTS = range(15000, 32000)
READY = re.compile(r'^ready mqtt=(\d+) http=(\d+)$')
SAMPLE = re.compile(r'^([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
COMPLAINTS = re.compile(r'AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|Assertion .* failed|MHD panic')
TERMS = {'accepted': 'spindle_accepted_total', 'completed': 'spindle_completed_total', 'duplicates': 'spindle_duplicates_total',
         'dead_lettered': 'spindle_dead_lettered_total', 'pending': 'spindle_pending'}


def wait_until(condition, what, deadline_s=DEADLINE_S):
    """Returns the first true value of condition(), or fails with `what` was awaited."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, 'waited %.0f s in vain: %s' % (deadline_s, what() if callable(what) else what)
        time.sleep(0.01)


def free_port():
    """A port for a server that is restarted under load. It lies below those that the system gives to connections: while the server is down,
    a client that tries to connect could otherwise be given that very port."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue


def die_with_parent():
    """In the child: a test run that is killed takes its servers along."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Metrics(dict):
    """One scrape: {(name, ((label, value), ...)): number}."""

    @classmethod
    def parse(cls, text):
        metrics = cls()
        for line in text.splitlines():
            if line.startswith('#'):
                continue
            found = SAMPLE.match(line)
            assert found, 'not a sample: %r' % line
            labels = tuple(sorted(LABEL.findall(found.group(2) or '')))
            assert (found.group(1), labels) not in metrics, 'stated twice: %r' % line
            number = found.group(3)
            metrics[found.group(1), labels] = int(number) if number.isdigit() else float(number)
        return metrics

    def get_sum(self, name, **labels):
        """The sum of all samples of `name` that have these labels; 0 when there is none."""
        wanted = set(labels.items())
        return sum(value for (other, have), value in self.items() if other == name and wanted <= set(have))

    def streams(self):
        """{stream: {'accepted': n, ...}} for every stream that is accounted for."""
        names = {dict(labels).get('stream') for (name, labels) in self if name == TERMS['accepted']}
        return {stream: {term: self.get_sum(name, stream=stream) for term, name in TERMS.items()} for stream in sorted(names)}

    def check_equation(self):
        for stream, terms in self.streams().items():
            total = terms['completed'] + terms['duplicates'] + terms['dead_lettered'] + terms['pending']
            assert terms['accepted'] == total, 'the equation does not hold for %s: %s' % (stream, terms)
        return self


def switches(server):
    """How often threads of the server have gone to sleep: {thread: count}."""
    found = {}
    for task in pathlib.Path('/proc/%d/task' % server.process.pid).iterdir():
        text = (task / 'status').read_text()
        found[task.name] = int(re.search(r'^voluntary_ctxt_switches:\s+(\d+)', text, re.M).group(1))
    return found


def run_cli(*arguments, check=True, timeout_s=3 * DEADLINE_S, env=None, text=True):
    """Runs a command of the program to its end; the result has returncode, stdout and stderr."""
    done = subprocess.run([BINARY] + [str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout_s, env=dict(os.environ, **(env or {})), text=text)
    if check:
        assert done.returncode == 0, '%s: status %d\n%s' % (' '.join(map(str, arguments)), done.returncode, done.stderr)
    return done


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


class Spindle:
    """One data folder and the server that runs on it, through any number of starts."""

    def __init__(self, folder, *arguments, env=None, settings=None):
        self.folder = pathlib.Path(folder)
        self.data_dir = self.folder / 'data'
        self.arguments = [str(a) for a in arguments]
        self.settings = {'journal.segment_size': '4MiB', 'bus.host': '127.0.0.1', 'http.host': '127.0.0.1', **(settings or {})}
        self.env = env or {}
        self.prefix = []  # a command that runs the program, with its arguments
        self.port = self.http_port = 0
        self.process = None
        self.stderr_path = self.folder / 'stderr.txt'

    # ---- life ----

    def start(self):
        """Starts the server (again: on the same ports) and waits until it says that it serves."""
        assert self.process is None
        command = self.prefix + [BINARY, 'run', '--port', str(self.port), '--http-port', str(self.http_port), '--data-dir', str(self.data_dir)]
        for key, value in self.settings.items():
            command += ['--set', '%s=%s' % (key, value)]
        with open(self.stderr_path, 'ab') as stderr:
            self.process = subprocess.Popen(command + self.arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                                            env=dict(os.environ, **self.env), cwd=self.folder, preexec_fn=die_with_parent)
        line = self._read_line(DEADLINE_S)
        found = READY.match(line or '')
        if not found:
            self.kill()
            raise AssertionError('no ready line but %r; standard error:\n%s' % (line, self.stderr()))
        ports = int(found.group(1)), int(found.group(2))
        assert self.port in (0, ports[0]) and self.http_port in (0, ports[1])
        self.port, self.http_port = ports
        return self

    def _read_line(self, deadline_s):
        """The first line of standard output, or None when none comes in time."""
        end = time.monotonic() + deadline_s
        text = b''
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not text.endswith(b'\n'):
                if not selector.select(max(0, end - time.monotonic())):
                    return None
                more = os.read(self.process.stdout.fileno(), 1)
                if not more:
                    break
                text += more
        return text.decode().rstrip('\n')

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, deadline_s=3 * DEADLINE_S):
        """Waits for the end of the process; returns its exit status (negative: the signal)."""
        try:
            status = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError('did not end within %d s; standard error:\n%s' % (deadline_s, self.stderr())) from None
        self.process.stdout.close()
        self.process = None
        return status

    def stop(self):
        """Asks it to stop, and checks that it does so in order."""
        self.signal(signal.SIGTERM)
        status = self.wait()
        assert status == 0, 'exit status %d; standard error:\n%s' % (status, self.stderr())

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stderr(self):
        return self.stderr_path.read_text(errors='replace') if self.stderr_path.exists() else ''

    def check_quiet(self):
        """Nothing that a sanitizer or an assertion would write has been written."""
        complaint = COMPLAINTS.search(self.stderr())
        assert not complaint, self.stderr()[-20000:]

    # ---- HTTP ----

    def http(self, path, method='GET'):
        """Returns (status, headers, body as text)."""
        request = urllib.request.Request('http://127.0.0.1:%d%s' % (self.http_port, path), method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.headers, refusal.read().decode()

    def readiness(self):
        """(status, text of the probe `server`) of /readyz."""
        status, _, text = self.http('/readyz')
        return status, {probe['name']: probe['text'] for probe in json.loads(text)['probes']}['server']

    def metrics(self):
        """One scrape, in which the equation was checked."""
        status, _, text = self.http('/metrics')
        assert status == 200
        return Metrics.parse(text).check_equation()

    def wait_settled(self, accepted=None, stream='ingest', deadline_s=3 * DEADLINE_S):
        """Waits until `stream` has accepted so many messages and none is pending; returns that scrape."""
        seen = {}

        def settled():
            metrics = self.metrics()
            terms = metrics.streams().get(stream)
            seen.update(terms or {})
            good = terms and terms['pending'] == 0 and (accepted is None or terms['accepted'] >= accepted)
            return metrics if good else None
        return wait_until(settled, lambda: '%s settled with %s accepted; now %s' % (stream, accepted, seen), deadline_s)

    # ---- the program's commands on its data folder ----

    def journal(self, stream):
        """The records of a stream, in order: dicts with offset, time_ns, topic and payload (bytes)."""
        import base64
        records = json_lines(run_cli('journal', 'cat', '--data-dir', self.data_dir, '--stream', stream, '--json').stdout)
        for record in records:
            text = record.pop('payload', None)
            record['payload'] = base64.b64decode(record.pop('payload_base64')) if text is None else text.encode()
        return records

    def audit(self):
        """{stream: {'accepted': n, ..., 'holds': True}} as recounted from disk."""
        lines = json_lines(run_cli('journal', 'audit', '--data-dir', self.data_dir, '--json').stdout)
        return {line['stream']: line for line in lines}

    def dead_letters(self):
        return json_lines(run_cli('dead', 'ls', '--data-dir', self.data_dir, '--json').stdout)
