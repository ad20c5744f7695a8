"""What an operator sees: starting, stopping, reloading, health, status, diagnostics."""
import dataclasses
import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from client import RawClient
from holes import ANSWERS, RESULT, TRACE, Hole, negative_curve
from spindle import BINARY, DEADLINE_S, SANITIZED, die_with_parent, run_cli, wait_until

PATIENT = {'drilling.estimator': 'gradient', 'pipeline.grace_s': 30, 'mqtt.listener.time_window': 60}


# ---- HTTP ----

def test_health_and_readiness(spindle):
    server = spindle().start()
    assert server.http('/healthz')[0] == 200
    status, headers, text = server.http('/readyz')
    parsed = json.loads(text)
    assert status == 200 and headers['Content-Type'] == 'application/json'
    assert parsed['ready'] is True and parsed['probes'] and all(p['ready'] for p in parsed['probes'])


def test_it_is_not_ready_while_it_recovers(spindle, connect):
    """A pipe in the place of a segment holds the recovery until somebody writes to it."""
    server = spindle(settings={'journal.segment_size': '1MiB'}).start()
    connect(server).publish_all([('several/segments', bytes(500000)) for _ in range(6)])
    server.stop()
    first = sorted((server.data_dir / 'bus').glob('*.seg'))[0]
    aside = server.folder / 'aside'
    first.rename(aside)
    os.mkfifo(first)
    seen = []

    def ask_and_go_on():
        try:
            wait_until(lambda: server.stderr().count('http: listening on') == 2, 'it listens')
            seen.extend([*server.readiness(), server.http('/healthz')[0]])
        finally:
            pipe = os.open(first, os.O_RDWR)
            aside.rename(first)
            ready.wait(DEADLINE_S)
            os.close(pipe)
    ready = threading.Event()
    asking = threading.Thread(target=ask_and_go_on, daemon=True)
    asking.start()
    server.start()
    ready.set()
    asking.join()
    assert seen == [503, 'it is starting: the streams of the journal are recovered', 200]
    assert server.readiness() == (200, 'it serves')


def test_status_tells_version_durability_and_streams(spindle, connect):
    server = spindle(settings=PATIENT).start()
    connect(server).publish_all(Hole().messages())
    server.wait_settled(3)
    status, _, text = server.http('/api/v1/status')
    parsed = json.loads(text)
    assert status == 200 and re.match(r'\d+\.\d+\.\d+', parsed['version'])
    assert parsed['durability'] == 'disk' and parsed['uptime_s'] >= 0
    terms = parsed['streams']['ingest']
    assert {k: terms[k] for k in ('accepted', 'completed', 'duplicates', 'dead_lettered', 'pending')} == {
        'accepted': 3, 'completed': 3, 'duplicates': 0, 'dead_lettered': 0, 'pending': 0}


def test_weaker_durability_is_said(spindle, connect):
    for durability in ('os', 'memory'):
        server = spindle(settings={'data.durability': durability}).start()
        assert json.loads(server.http('/api/v1/status')[2])['durability'] == durability
        connect(server).publish('a', b'acknowledged all the same')


def test_metrics_are_valid_and_have_the_names_that_were_asked_for(spindle, connect):
    server = spindle(settings={**PATIENT, 'pipeline.grace_s': 0.1}).start()
    connect(server).publish_all(Hole().messages() + Hole().messages()[:2] + [(Hole().topic('x'), b'')])
    server.wait_settled(6)
    status, headers, text = server.http('/metrics')
    assert status == 200 and headers['Content-Type'].startswith('text/plain; version=0.0.4')
    for name in ('drilling_messages_received_total', 'drilling_messages_processed_total', 'drilling_processing_duration_seconds',
                 'drilling_queue_depth', 'drilling_queue_capacity', 'spindle_accepted_total', 'spindle_completed_total',
                 'spindle_duplicates_total', 'spindle_dead_lettered_total', 'spindle_pending', 'process_resident_memory_bytes'):
        assert '\n# TYPE %s ' % name in '\n' + text, name
    metrics = server.metrics()
    buckets = [dict(labels)['le'] for (name, labels) in metrics if name == 'drilling_processing_duration_seconds_bucket']
    assert buckets == ['0.001', '0.01', '0.1', '0.5', '1', '5', '+Inf']
    assert metrics.get_sum('drilling_processing_duration_seconds_count') == 2


def test_unknown_pages_and_methods_are_answered_in_json(spindle):
    server = spindle().start()
    status, headers, text = server.http('/nonsense')
    assert status == 404 and json.loads(text)['status'] == 404 and headers['Content-Type'] == 'application/json'
    status, headers, text = server.http('/metrics', method='DELETE')
    assert status == 405 and json.loads(text)['status'] == 405 and headers['Allow'] == 'GET, HEAD'
    status, _, text = server.http('/')
    assert status == 200 and '/metrics' in text


def test_half_sent_requests_hold_nobody(spindle):
    server = spindle().start()
    half = [socket.create_connection(('127.0.0.1', server.http_port)) for _ in range(300)]
    try:
        for connection in half:
            connection.sendall(b'GET /metrics HTTP/1.1\r\nHost: x\r\n')
        began = time.monotonic()
        assert server.http('/healthz')[0] == 200 and server.http('/readyz')[0] == 200 and server.metrics()
        assert time.monotonic() - began < 5
    finally:
        for connection in half:
            connection.close()


def test_http_can_be_switched_off(spindle, connect, tmp_path):
    server = spindle(settings={'http.enabled': 'false'})
    server.start()
    assert server.http_port == 0
    connect(server).publish('a', b'')
    server.stop()


# ---- stopping ----

@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_and_exits_0(spindle, connect, number):
    """What was accepted and can be finished is finished; what waits for others stays pending."""
    server = spindle(settings={**PATIENT, 'pipeline.grace_s': 0.5}).start()
    holes = [Hole() for _ in range(30)]
    client = connect(server)
    client.publish_all([message for hole in holes for message in hole.messages()] + [Hole().messages()[0]])
    server.signal(number)
    assert server.wait() == 0
    client.wait_disconnected()
    audit = server.audit()['ingest']
    assert audit['accepted'] == 91 and audit['holds']
    server.start()
    terms = wait_until(lambda: (lambda t: t if t['completed'] == 90 else None)(server.metrics().streams()['ingest']), 'the rest is finished')
    assert terms['pending'] == 1
    assert len(server.journal('results')) == 60


def test_an_idle_server_stops_at_once_and_can_be_stopped_twice(spindle):
    server = spindle().start()
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_subscriber_that_does_not_read_does_not_hold_the_stop(spindle, connect):
    """More waits for it than the kernel takes: without an end to its patience the server would wait until it hangs up."""
    server = spindle().start()
    with RawClient(server.port) as deaf:
        deaf.connect(b'deaf')
        deaf.send(b'\x82\x06\x00\x01\x00\x01#\x00')
        publisher = connect(server)
        sent_mib = 0
        while server.metrics().get_sum('spindle_bus_memory_bytes', use='queues') < 4 << 20:
            publisher.publish('a', bytes(1 << 20))
            sent_mib += 1
            assert sent_mib < 60, 'the kernel takes it all'
        server.stop()


# ---- signals before it serves ----

class HeldConfiguration:
    """A configuration that is a pipe: the server waits for its content."""

    def __init__(self, folder):
        self.path = folder / 'spindle.yaml'
        os.mkfifo(self.path)

    def wait_opened(self):
        self.file = os.open(self.path, os.O_WRONLY)

    def give(self, text):
        """From now on an ordinary file is there, for those who read it again."""
        self.path.unlink()
        self.path.write_text(text)
        os.write(self.file, text.encode())
        os.close(self.file)


@pytest.mark.parametrize('number, name', [(signal.SIGTERM, 'SIGTERM'), (signal.SIGINT, 'SIGINT')])
def test_a_stop_while_the_configuration_is_read(tmp_path, number, name):
    """Nothing was begun, so nothing is drained, and nothing is left."""
    held = HeldConfiguration(tmp_path)
    with subprocess.Popen([BINARY, 'run', '--config', held.path, '--data-dir', tmp_path / 'd'], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent) as process:
        held.wait_opened()
        process.send_signal(number)
        said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert said == ('', 'spindle run: %s before the start; stopped\n' % name)
    assert not (tmp_path / 'd').exists()


def test_a_reload_while_the_configuration_is_read_comes_when_it_is_ready(spindle, tmp_path):
    held = HeldConfiguration(tmp_path)
    server = spindle('--config', held.path)

    def reload_early():
        held.wait_opened()
        wait_until(lambda: server.process, 'it is started').send_signal(signal.SIGHUP)
        held.give('pipeline: {grace_s: 60}\n')
    early = threading.Thread(target=reload_early, daemon=True)
    early.start()
    server.start()
    early.join()
    wait_until(lambda: 'the configuration was read again' in server.stderr(), 'it is read again')
    assert server.stderr().index('ready') < server.stderr().index('the configuration was read again')
    server.stop()


# ---- reloading ----

def test_reload_takes_over_what_can_be(spindle, connect, tmp_path):
    path = tmp_path / 'spindle.yaml'
    path.write_text('drilling: {estimator: gradient}\npipeline: {grace_s: 60}\n')
    server = spindle('--config', path).start()
    client, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)
    client.publish_all(Hole().messages()[:2])
    wait_until(lambda: server.metrics().streams()['ingest']['accepted'] == 2, 'accepted')
    assert subscriber.take_rest() == []
    path.write_text('drilling: {estimator: gradient}\npipeline: {grace_s: 0.1}\n')
    server.signal(signal.SIGHUP)
    wait_until(lambda: 'pipeline.grace_s' in server.stderr(), 'the change is reported')
    client.publish_all(Hole().messages()[:2])
    assert len(subscriber.take(2)) == 2


BEFORE = """
drilling: {estimator: gradient, algo_version: "1", compatibility: none, correlation: exact}
pipeline: {grace_s: 0.05}
mqtt:
  listener: {duplicate_handling: ignore, time_window: 60}
  depth_validation: {negative_depth_behavior: publish, track_sequential_negatives: false}
"""
AFTER = """
drilling: {estimator: segments, algo_version: "2", compatibility: silent, correlation: time_window}
pipeline: {grace_s: 0.06}
mqtt:
  listener: {duplicate_handling: error, time_window: 61}
  depth_validation: {negative_depth_behavior: warning, sequential_threshold: 2, sequential_window_minutes: 60}
"""


def test_reload_takes_over_every_setting_of_the_holes(spindle, connect, tmp_path):
    path = tmp_path / 'spindle.yaml'
    path.write_text(BEFORE)
    server = spindle('--config', path).start()
    client, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)

    def answers_to(*messages):
        """The parsed answers that these messages bring."""
        accepted = server.metrics().streams()['ingest']['accepted'] + len(messages)
        client.publish_all(messages)
        server.wait_settled(accepted)
        return [json.loads(m.payload) for m in subscriber.take_rest()]

    air, repeated = [Hole(curve=negative_curve()) for _ in range(4)], Hole()
    near = Hole(stamp='2026-05-05T05:05:05Z', tool='near')
    late_result, late_trace = near.message(RESULT), dataclasses.replace(near, stamp='2026-05-05T05:05:25Z').message(TRACE)
    answer = answers_to(*air[0].messages())[0]
    assert answer['AlgoVersion'] == '1' and len(answer['Value']) == 3 and 'Warning' not in answer
    answers_to(*repeated.messages())
    assert answers_to(repeated.message(RESULT)) == []
    assert server.dead_letters() == []
    assert server.metrics().get_sum('drilling_negative_depth_sequences_total') == 0

    path.write_text(AFTER)
    server.signal(signal.SIGHUP)
    wait_until(lambda: 'mqtt.listener.time_window changed' in server.stderr(), 'the changes are reported')
    assert 'next start' not in server.stderr()
    assert len([line for line in server.stderr().splitlines() if 'the new value holds from now on' in line]) == 11
    assert answers_to(*air[1].messages()) == []  # `segments` finds nothing, and that is silent
    path.write_text(AFTER.replace('segments', 'gradient'))
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.stderr().count('drilling.estimator changed') == 2, 'the change is reported')
    answer = answers_to(*air[2].messages())[0]
    assert answer['AlgoVersion'] == '2' and answer['Warning']
    answers_to(*air[3].messages())
    assert server.metrics().get_sum('drilling_negative_depth_sequences_total') == 1
    assert answers_to(repeated.message(RESULT)) == []
    assert [letter['reason'] for letter in server.dead_letters()] == ['duplicate']
    assert len(answers_to(late_result, late_trace)) == 2


def test_a_reload_with_a_mistake_changes_nothing(spindle, connect, tmp_path):
    path = tmp_path / 'spindle.yaml'
    path.write_text('drilling: {estimator: gradient}\npipeline: {grace_s: 0.1}\n')
    server = spindle('--config', path).start()
    path.write_text('pipeline: {grace: 60}\n')
    server.signal(signal.SIGHUP)
    wait_until(lambda: 'spindle.yaml:1:' in server.stderr(), 'the mistake is reported')
    subscriber = connect(server)
    subscriber.subscribe(*ANSWERS)
    connect(server).publish_all(Hole().messages()[:2])
    assert len(subscriber.take(2)) == 2


# ---- what cannot start says why ----

def start_and_fail(tmp_path, *arguments):
    done = run_cli('run', '--port', 0, '--http-port', 0, *arguments, check=False)
    assert done.returncode > 0, 'it was started, or crashed: %d' % done.returncode
    assert 'ready' not in done.stdout
    return done.stderr


def test_ports_in_use(spindle, tmp_path):
    with socket.create_server(('0.0.0.0', 0)) as taken:
        port = taken.getsockname()[1]
        said = start_and_fail(tmp_path, '--data-dir', tmp_path / 'a', '--set', 'bus.host=0.0.0.0', '--port', port)
        assert str(port) in said and 'in use' in said
        said = start_and_fail(tmp_path, '--data-dir', tmp_path / 'b', '--http-port', port)
        assert str(port) in said and 'in use' in said


@pytest.mark.parametrize('arguments, words', [
    (['--set', 'bus.host=nonsense.invalid'], ['nonsense.invalid', 'bus.host']),
    (['--set', 'http.host=nonsense.invalid'], ['nonsense.invalid', 'HTTP']),
    (['--set', 'bus.host=192.0.2.1'], ['bus.host', 'this machine']),
    (['--set', 'bus.host=127.0.0.1,127.0.0.1'], ['bus.host', 'occurs twice', '127.0.0.1']),
    (['--set', 'bus.host=0.0.0.0,127.0.0.1'], ['127.0.0.1', 'another of the addresses in bus.host']),
    (['--set', 'http.host=192.0.2.1'], ['192.0.2.1', 'HTTP']),
    (['--port', '65536'], ['bus.port', '65535', '65536']), (['--http-port', '-1'], ['http.port', '65535', '-1'])])
def test_hosts_and_ports_that_cannot_be_had(tmp_path, arguments, words):
    said = start_and_fail(tmp_path, '--data-dir', tmp_path / 'd', *arguments)
    assert all(word in said for word in words), said


def test_a_data_folder_in_use(spindle, tmp_path):
    server = spindle().start()
    said = start_and_fail(tmp_path, '--data-dir', server.data_dir)
    assert str(server.data_dir) in said and ('in use' in said or 'another' in said)
    assert server.http('/healthz')[0] == 200


def test_a_data_folder_that_cannot_be_used(tmp_path):
    file = tmp_path / 'file'
    file.write_text('')
    assert str(file) in start_and_fail(tmp_path, '--data-dir', file)
    assert str(file / 'below') in start_and_fail(tmp_path, '--data-dir', file / 'below')
    if os.geteuid() != 0:
        locked = tmp_path / 'locked'
        locked.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        assert str(locked) in start_and_fail(tmp_path, '--data-dir', locked / 'data')


def test_commands_on_a_folder_that_is_not_there(tmp_path):
    for command in (['journal', 'cat', '--stream', 'bus'], ['journal', 'audit'], ['dead', 'ls']):
        done = run_cli(*command, '--data-dir', tmp_path / 'nowhere', '--json', check=False)
        assert done.returncode > 0 and 'nowhere' in done.stderr
    assert not (tmp_path / 'nowhere').exists()


def test_a_stream_that_is_not_there(spindle):
    server = spindle().start()
    done = run_cli('journal', 'cat', '--data-dir', server.data_dir, '--stream', 'nonsense', '--json', check=False)
    assert done.returncode > 0 and 'nonsense' in done.stderr


# ---- diagnostics ----

def test_diagnostics_as_text(spindle, connect):
    server = spindle().start()
    server.stop()
    lines = server.stderr().splitlines()
    assert lines and all(re.match(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) +[a-z]+: .', line) for line in lines)


def test_a_start_says_what_it_found(spindle, connect, tmp_path):
    path = tmp_path / 'spindle.yaml'
    path.write_text('drilling: {estimator: gradient}\n')
    server = spindle('--config', path, env={'SPINDLE_PIPELINE_GRACE_S': '0.1'}).start()
    said = server.stderr()
    assert re.search(r'info +run: spindle \d+\.\d+\.\d+, process %d\n' % server.process.pid, said)
    assert 'run: configuration: the file %s; 1 settings from the environment, 6 from the command line\n' % path in said
    assert 'journal: the data folder is %s\n' % server.data_dir.resolve() in said
    assert 'bus: listening on 127.0.0.1 port %d\n' % server.port in said
    assert 'http: listening on 127.0.0.1 port %d\n' % server.http_port in said
    assert 'journal: stream ingest: no messages\n' in said and 'queue: 0 of 0 drilling messages are pending' in said
    connect(server).publish_all(Hole().messages()[:2] + Hole().messages()[:1])
    wait_until(lambda: server.metrics().streams()['ingest']['completed'] == 2, 'the hole is answered')
    server.kill()
    server.start()
    said = server.stderr()[len(said):]
    assert re.search(r'journal: stream ingest: offsets 0 to 2 in \d segments, \d+\.\d MB; recovered in \d+\.\d{3} s\n', said)
    assert re.search(r'queue: 1 of 3 drilling messages are pending and go on; found in \d+\.\d{3} s\n', said)
    assert re.search(r'run: ready \d+\.\d{3} s after the start\n', said)


def test_closed_standard_files_are_not_taken_by_others(tmp_path):
    """Started with standard input, output and error closed, nothing that it prints lands in a file that it opened."""
    with socket.create_server(('127.0.0.1', 0)) as probe:
        port = probe.getsockname()[1]
    data = tmp_path / 'data'
    command = ['sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh', str(BINARY), 'run', '--port', '0', '--http-port', str(port), '--data-dir',
               str(data), '--set', 'http.host=127.0.0.1', '--set', 'journal.segment_size=1MiB', '--set', 'diagnostics.level=debug']
    process = subprocess.Popen(command, preexec_fn=die_with_parent)

    def is_ready():
        assert process.poll() is None, 'it ended with status %d' % process.returncode
        try:
            with socket.create_connection(('127.0.0.1', port), DEADLINE_S) as connection:
                connection.sendall(b'GET /readyz HTTP/1.0\r\n\r\n')
                return connection.recv(4096).split()[1] == b'200'
        except (ConnectionError, IndexError):
            return False
    try:
        wait_until(is_ready, 'it is ready')
        files = {number: os.readlink('/proc/%d/fd/%d' % (process.pid, number)) for number in range(3)}
        assert set(files.values()) == {'/dev/null'}
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
    files = [path for path in data.rglob('*') if path.is_file()]
    assert len(files) > 4 and not any(b'info' in path.read_bytes() or b'ready mqtt' in path.read_bytes() for path in files)
    assert all(stream['holds'] for stream in map(json.loads, run_cli('journal', 'audit', '--data-dir', data, '--json').stdout.splitlines()))


def test_diagnostics_as_json(spindle, connect):
    server = spindle(settings={'diagnostics.format': 'json', 'diagnostics.level': 'debug'}).start()
    connect(server, client_id='odd "\u00e9"').publish('a', b'')
    server.stop()
    lines = [json.loads(line) for line in server.stderr().splitlines()]
    assert lines and all({'time', 'level', 'module', 'text'} <= set(line) for line in lines)


def test_an_idle_server_is_small_and_quiet(spindle):
    server = spindle().start()
    before = server.metrics()
    cpu_s = before.get_sum('process_cpu_seconds_total')
    with pytest.raises(socket.timeout):  # two seconds in which nothing happens
        with socket.create_connection(('127.0.0.1', server.port), 2) as raw:
            raw.recv(1)
    after = server.metrics()
    assert after.get_sum('process_cpu_seconds_total') - cpu_s < 0.1
    if not SANITIZED:
        assert after.get_sum('process_resident_memory_bytes') < 64 << 20


def test_grip_codes_of_a_depth():
    def codes(depth):
        return json.loads(run_cli('grip', depth, '--json').stdout)
    assert codes('20.55') == {'depth_mm': 20.55, 'table': 13, 'next': 13, 'exact_or_next': 13, 'nearest': 14}
    assert codes('0.3')['nearest'] == 0 and codes('41')['table'] == 0
    for wrong in ('x', 'nan', '1e999', '3 mm'):
        refused = run_cli('grip', wrong, check=False)
        assert refused.returncode == 1 and 'is no depth' in refused.stderr


def test_an_address_that_this_machine_does_not_have_is_named(spindle, connect):
    """The others are listened on all the same."""
    server = spindle(settings={'bus.host': '127.0.0.1,192.0.2.1'}).start()
    connect(server).publish('a', b'b')
    server.stop()
    assert 'not listening on "192.0.2.1"' in server.stderr()
