"""A file system that is really full, and one of which only the last is left (journal.disk_free_min): senders are held back, nothing that was
acknowledged is lost, and it goes on when there is space."""
import errno
import json
import os
import signal
import subprocess
import threading
import time
import uuid

import pytest

from client import V5
from holes import ANSWERS, HEADS, RESULT, TRACE, Hole
from sessions import Visit
from spindle import DEADLINE_S, Spindle, run_cli, wait_until

SMALL = {'journal.segment_size': '1MiB', 'journal.backlog_size_max': '1MiB'}
LEFT = 1 << 20  # less than a tenth of the small disk
PAYLOAD = b'x' * 50000


@pytest.fixture
def small_disk(tmp_path):
    """A folder with 24 MiB of space and a ballast file of 4 MiB in it."""
    folder = tmp_path / 'small'
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', str(folder)],
                                                   stderr=subprocess.DEVNULL).returncode == 0
    if not mounted:
        pytest.skip('mounting a small file system needs root')
    (folder / 'ballast').write_bytes(bytes(4 << 20))
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


class Filler:
    """Publishes until it is stopped; notes every payload that was acknowledged."""

    def __init__(self, client):
        self.client, self.acknowledged, self.stopping = client, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            payload = uuid.uuid4().hex.encode() + PAYLOAD
            token = self.client.post('fill/up', payload)
            while not self.stopping.is_set() and not token.is_published():
                self.stopping.wait(0.005)
            if token.is_published():
                self.acknowledged.append(payload[:32].decode())

    def stop(self):
        self.stopping.set()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def full(small_disk, connect):
    """A server whose disk is full, and who filled it."""
    server = Spindle(small_disk, settings={**SMALL, 'journal.disk_free_min': 0})
    server.stderr_path = small_disk.parent / 'stderr.txt'  # on another disk
    server.start()
    filler = Filler(connect(server))
    wait_until(lambda: server.metrics().get_sum('spindle_journal_stalled') == 1, 'a full disk is noticed')
    yield server, filler
    filler.stopping.set()
    server.kill()


def kept(server):
    return {record['payload'][:32].decode() for record in server.journal('bus')}


def test_a_full_disk_holds_senders_back_until_there_is_space(full, small_disk):
    server, filler = full
    answer = server.http('/readyz')
    assert answer[0] == 503 and 'space' in str(answer)
    before = len(filler.acknowledged)
    (small_disk / 'ballast').unlink()
    wait_until(lambda: len(filler.acknowledged) > before + 20, 'it goes on')
    filler.stop()
    assert set(filler.acknowledged) <= kept(server)
    wait_until(lambda: 'writing goes on' in server.stderr(), 'and it says so')


def test_a_full_disk_holds_back_nobody_but_those_who_wait_for_it(full, connect):
    """Beyond what may be on its way to the disk: QoS 1 waits, drilling messages of QoS 0 are dropped by reason, all else goes on."""
    server, _ = full
    held = connect(server)
    tokens = [held.post('fill/up', PAYLOAD) for _ in range(60)]  # 3 MB
    wait_until(lambda: server.metrics().get_sum('spindle_bus_pauses_total', reason='journal') >= 1, 'a sender is held back')
    witness, publisher = connect(server), connect(server)
    assert witness.subscribe('live/#', 'OPCPUBSUB/#', qos=1) == [1, 1]
    for i in range(50):
        publisher.publish('live/%d' % i, b'not for the disk', qos=0)
        assert witness.take()[0].topic == 'live/%d' % i
    publisher.publish('OPCPUBSUB/box/tool/ResultManagement', b'{}', qos=0)
    assert witness.take()[0].payload == b'{}'
    metrics = server.metrics()
    assert metrics.get_sum('drilling_messages_dropped_total', reason='journal') == 1
    assert metrics.get_sum('drilling_messages_dropped_total', reason='no_memory') == 0
    assert not any(token.is_published() for token in tokens)


def test_a_full_disk_does_not_keep_it_from_ending(full):
    server, filler = full
    server.signal(signal.SIGTERM)
    wait_until(lambda: 'stopping' in server.readiness()[1], 'it says that it stops')  # it waits some seconds for space
    assert server.readiness()[0] == 503 and server.http('/healthz')[0] == 200
    assert server.wait() == 0
    filler.stop()
    assert set(filler.acknowledged) <= kept(server)


def test_what_is_said_of_a_full_disk_is_said_once_and_when_it_goes_on(full, small_disk):
    server, filler = full
    said = server.stderr()
    assert said.count('cannot write to') == 1 and 'no space left on the device' in said
    before, since = len(filler.acknowledged), time.monotonic()
    wait_until(lambda: server.http('/readyz')[0] == 503 and time.monotonic() > since + 1.5, 'it has tried again many times')
    assert server.stderr() == said
    (small_disk / 'ballast').unlink()
    wait_until(lambda: len(filler.acknowledged) > before, 'it goes on')
    wait_until(lambda: server.stderr().count('writing goes on after') == 1, 'and says so')
    filler.stop()


def test_the_end_on_a_full_disk_is_explained_once(full):
    server, filler = full
    server.stop()
    filler.stop()
    assert server.stderr().count('is given up') == 1


def test_a_full_disk_does_not_keep_it_from_starting(full, small_disk, connect):
    """What is on disk is served and worked on; what comes new waits for space."""
    server, filler = full
    server.stop()  # what was zeroed ahead is given back
    filler.stop()
    for file in server.data_dir.glob('*/[pns]*.seg'):
        file.unlink()
    fill(small_disk / 'rest')
    before = kept(server)
    server.start()
    assert set(filler.acknowledged) <= kept(server) == before
    client, subscriber = connect(server), connect(server)
    subscriber.subscribe('live/#', qos=0)
    client.publish('live/x', b'now', qos=0)
    assert [m.payload for m in subscriber.take(1)] == [b'now']
    later = bytes(1 << 20)  # more than what a start gives back
    token = client.post('live/y', later)
    assert [m.payload for m in subscriber.take(1)] == [later]
    wait_until(lambda: server.metrics().get_sum('spindle_journal_stalled') == 1, 'it waits')
    assert server.http('/readyz')[0] == 503 and not token.is_published()
    (small_disk / 'rest').unlink()
    (small_disk / 'ballast').unlink()
    wait_until(token.is_published, 'it goes on')
    assert later in {record['payload'] for record in server.journal('bus')}
    assert server.audit()['bus']['holds']


def fill(path):
    """Takes all the space there is."""
    with open(path, 'wb', buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError as refusal:
                assert refusal.errno == errno.ENOSPC


# ---- the last of the disk ----

def fill_up_to(folder, left):
    """Takes all space but `left` bytes, and perhaps what a server beside it writes ahead meanwhile."""
    with open(folder / 'rest', 'wb', buffering=0) as file:
        while os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize > left:
            try:
                file.write(bytes(65536))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                file.truncate(max(0, file.tell() - left))
                return


@pytest.fixture
def guarded(small_disk):
    """A server, not started, that keeps a tenth of the small disk free; holes wait some seconds for their heads."""
    server = Spindle(small_disk, settings={**SMALL, 'pipeline.grace_s': 3})
    server.stderr_path = small_disk.parent / 'stderr.txt'
    yield server
    server.kill()


def stalled(server):
    return server.metrics().get_sum('spindle_journal_stalled') == 1


def test_the_last_of_the_disk_is_for_what_was_accepted(guarded, small_disk, connect):
    server = guarded.start()
    publisher, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)
    publisher.publish('OPCPUBSUB/box/tool/ResultManagement', b'no JSON', qos=1)
    wait_until(lambda: server.metrics().get_sum('spindle_dead_lettered_total', stream='ingest') == 1, 'it is a dead letter')
    publisher.publish_all(Hole().messages((RESULT, TRACE)))
    fill_up_to(small_disk, LEFT)
    status, _, text = server.http('/readyz')
    assert status == 503 and 'journal.disk_free_min' in text and 'MiB' in text and 'free some space' in text
    metrics = server.metrics()
    assert 0 < metrics.get_sum('spindle_journal_disk_free_bytes') < metrics.get_sum('spindle_journal_disk_free_min_bytes') < 3 << 20
    token = None
    while not stalled(server):  # the disk is asked once a second
        token = publisher.post('waits/for/room', b'not acknowledged')
    assert run_cli('dead', 'purge', '--data-dir', server.data_dir, '--all').returncode == 0  # what that writes has room
    assert run_cli('dead', 'ls', '--data-dir', server.data_dir, '--json').stdout == ''
    assert stalled(server) and not token.is_published()
    assert server.metrics().get_sum('spindle_pending', stream='ingest') == 2  # its heads may be held back
    assert 'not ready' in server.http('/')[2] and 'journal.disk_free_min' in server.http('/')[2]
    said = server.stderr()
    assert said.count('cannot write to') == 1 and 'journal.disk_free_min' in said and 'free some' in said
    (small_disk / 'rest').unlink()
    wait_until(token.is_published, 'it goes on')
    wait_until(lambda: 'writing goes on after' in server.stderr(), 'and says so')
    assert len(subscriber.take(2)) == 2  # its grace began anew, and has passed
    assert server.readiness()[0] == 200
    server.stop()
    assert all(terms['holds'] for terms in server.audit().values())
    assert b'not acknowledged' in {record['payload'] for record in server.journal('bus')}


def test_what_waits_for_room_holds_back_as_a_full_disk_does(guarded, small_disk, connect):
    subprocess.run(['mount', '-o', 'remount,size=32m', str(small_disk)], check=True)  # room for all of it in the end
    server = guarded.start()
    fill_up_to(small_disk, LEFT)
    held = connect(server)
    tokens = [held.post('fill/up', PAYLOAD) for _ in range(60)]  # 3 MB
    wait_until(lambda: server.metrics().get_sum('spindle_bus_pauses_total', reason='journal') >= 1, 'a sender is held back')
    witness, publisher = connect(server), connect(server)
    assert witness.subscribe('live/#', qos=0) == [0]
    publisher.publish('OPCPUBSUB/box/tool/ResultManagement', b'{}', qos=0)
    publisher.publish('live/1', b'not for the disk', qos=0)
    assert witness.take()[0].payload == b'not for the disk'
    assert server.metrics().get_sum('drilling_messages_dropped_total', reason='journal') == 1
    assert not any(token.is_published() for token in tokens)
    (small_disk / 'rest').unlink()
    wait_until(lambda: all(token.is_published() for token in tokens), 'it goes on')


def test_sessions_are_served_in_the_last_of_the_disk_and_so_make_room(small_disk, connect):
    """A backlog of QoS 2 is drained and a subscription acknowledged while publishes wait; what the backlog held is removed then, and they go
    on."""
    subprocess.run(['mount', '-o', 'remount,size=48m', str(small_disk)], check=True)
    server = Spindle(small_disk, settings={**SMALL, 'journal.retention_size': '1MiB'})
    server.stderr_path = small_disk.parent / 'stderr.txt'
    server.start()
    try:
        client = connect(server, client_id='drains', session_s=1000, version=V5)
        assert client.subscribe('q/#', qos=2) == [2]
        client.close()
        publisher = connect(server)
        payloads = [b'%d ' % i + PAYLOAD for i in range(160)]  # 8 MB
        for payload in payloads:
            publisher.publish('q/x', payload, qos=2)
        fill_up_to(small_disk, 7 * LEFT // 2)  # more than half of a tenth
        tokens = []
        while not stalled(server):  # the disk is asked once a second
            tokens.append(publisher.post('w/x', b'waits for room', qos=2))
        assert not tokens[-1].is_published()
        client = connect(server, client_id='drains', session_s=1000, version=V5)
        assert client.present
        assert client.subscribe('other/#', qos=2) == [2]
        assert [message.payload for message in client.take(len(payloads))] == payloads
        wait_until(lambda: all(token.is_published() for token in tokens), 'what was held has gone, so there is room', 60)
        wait_until(lambda: not stalled(server) and server.readiness()[0] == 200, 'all goes on')
        publisher.publish('other/x', b'later', qos=2)
        assert client.take()[0].payload == b'later'
        server.stop()
        assert all(terms['holds'] for terms in server.audit().values())
    finally:
        server.kill()


@pytest.mark.parametrize('end', ['kill', 'stop'])
def test_a_will_that_waits_for_room_is_not_lost(small_disk, connect, end):
    """Its session's note of it goes on and its message does not: the former is taken back only when the latter is on disk."""
    server = Spindle(small_disk, settings=SMALL)
    server.stderr_path = small_disk.parent / 'stderr.txt'
    server.start()
    try:
        with Visit(server, b'witness') as witness:
            assert witness.subscribe(b'will/#', qos=1) == [1]
            witness.leave()
        keeper = Visit(server, b'keeper', will=(b'will/keeper', b'gone', 1, False, []))
        publisher = connect(server)
        fill_up_to(small_disk, 3 * LEFT // 2)  # more than half of a tenth
        while not stalled(server):  # the disk is asked once a second
            publisher.post('w/x', b'waits for room')
        keeper.cut()
        with Visit(server, b'other') as other:  # a note behind those of its end is on disk
            assert other.subscribe(b'other/#', qos=1) == [1]
            other.leave()
        server.stop() if end == 'stop' else server.kill()
        (small_disk / 'rest').unlink()
        for expected in ([b'gone'], []):
            server.start()
            with Visit(server, b'witness') as witness:
                if expected:
                    assert [m.payload for m in witness.take(1)] == expected
                witness.quiet()
                witness.leave()
            server.stop()
    finally:
        server.kill()


def test_a_start_with_too_little_room_works_and_says_so(guarded, small_disk, connect):
    server = guarded
    fill_up_to(small_disk, LEFT)
    server.start()
    assert 'They will wait until there is more' in server.stderr() and 'journal.disk_free_min' in server.stderr()
    assert server.readiness()[0] == 503
    client = connect(server)
    client.subscribe('live/#', qos=0)
    client.publish('live/x', b'now', qos=0)
    assert client.take()[0].payload == b'now'
    (small_disk / 'rest').unlink()
    wait_until(lambda: server.readiness()[0] == 200, 'there is room')
    client.publish('bus/x', b'kept')
    server.stop()


def test_without_a_limit_the_disk_is_used_to_its_end(small_disk, connect):
    server = Spindle(small_disk, settings={**SMALL, 'journal.disk_free_min': 0})
    server.stderr_path = small_disk.parent / 'stderr.txt'
    server.start()
    try:
        fill_up_to(small_disk, LEFT)
        assert server.readiness()[0] == 200
        connect(server).publish('bus/x', b'kept')
        assert server.metrics().get_sum('spindle_journal_disk_free_min_bytes') == 0
    finally:
        server.kill()


def test_what_waits_for_its_partners_does_not_wait_in_vain_while_they_cannot_be_written(small_disk, connect):
    """Both halves of a hole were sent in time; that Spindle could not take the second one for longer than the window is not their fault."""
    server = Spindle(small_disk, settings={**SMALL, 'journal.disk_free_min': 0, 'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.5,
                                           'mqtt.listener.time_window': 2})
    server.stderr_path = small_disk.parent / 'stderr.txt'
    server.start()
    try:
        holes = [Hole() for _ in range(5)]
        client = connect(server)
        client.publish_all([hole.message(TRACE) for hole in holes])
        filler = Filler(connect(server))
        wait_until(lambda: server.metrics().get_sum('spindle_journal_stalled') == 1, 'a full disk is noticed')
        tokens = [client.post(*hole.message(kind)) for hole in holes for kind in (RESULT, HEADS)]
        time.sleep(3)  # longer than the window: nothing can be waited for, because nothing is to happen
        assert server.metrics().streams()['ingest']['dead_lettered'] == 0
        assert not any(token.is_published() for token in tokens)
        filler.stopping.set()
        (small_disk / 'ballast').unlink()
        terms = server.wait_settled(15).streams()['ingest']
        assert terms['completed'] == 15 and terms['dead_lettered'] == 0
        answers = [json.loads(record['payload']) for record in server.journal('results')]
        assert len(answers) == 10 and all(answer['HeadId'] for answer in answers)
    finally:
        server.kill()
