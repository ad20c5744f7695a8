"""Disks that fill up under load, and disks that can be written no more."""
import json
import time

import pytest

from faults import ABORTED, check_whole
from holes import ANSWERS
from spindle import run_cli, wait_until
from toolbox import hold, total_acknowledged

SIZE_MIB = 48
ROOM_MIB = 16  # that the ballast leaves
QUIET_S = 1.0


def begin(spindle, load, place, kept='0', **options):
    """`kept`: how much of the disk is not for new messages."""
    server = spindle(place.folder, settings={'journal.disk_free_min': kept}).start()
    senders = load(server, feeder_rate=150, size_max=60000, **options)
    wait_until(lambda: total_acknowledged(senders) > 50, 'load')
    return server, senders


def begin_full(spindle, load, place, **options):
    """A server under load whose disk has just become full."""
    place.fill(leave=ROOM_MIB << 20)
    server, senders = begin(spindle, load, place, **options)
    place.fill()
    wait_until(lambda: stays_stalled(server, senders), 'a full disk')
    return server, senders


def stays_stalled(server, senders):
    """Whether nothing is acknowledged for a while, because the journal cannot write. A group that is small may still find place."""
    before = total_acknowledged(senders)
    end = time.monotonic() + QUIET_S
    while time.monotonic() < end:
        if server.value('spindle_journal_stalled') != 1 or total_acknowledged(senders) != before:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize('kind, kept', [('tmpfs', '0'), ('ext4', '0'), ('ext4', '256MiB')])
def test_a_full_disk_under_load(spindle, load, connect, disk, kind, kept):
    """Acknowledgements stop, reading and QoS 0 go on, and it resumes when there is space; twice."""
    place = disk(kind, SIZE_MIB)
    server, senders = begin_full(spindle, load, place, kept=kept)
    for _ in range(2):
        wait_until(lambda: stays_stalled(server, senders), 'a full disk')
        status, _, text = server.http('/readyz')
        assert status == 503 and 'space' in text, text
        assert server.http('/healthz')[0] == 200
        assert 'cannot write to %s' % server.data_dir in server.stderr() and 'when there is space' in server.stderr()
        with connect(server) as reader:
            reader.subscribe('live/#')
            reader.publish('live/1', b'still served', qos=0)
            assert reader.take()[0].payload == b'still served'
        assert json.loads(run_cli('journal', 'audit', '--data-dir', server.data_dir, '--json').stdout.splitlines()[0])['holds']
        assert len(server.journal('bus')) > 0
        before = total_acknowledged(senders)
        place.empty()
        wait_until(lambda: total_acknowledged(senders) > before + 50, 'it goes on')
        wait_until(lambda: server.http('/readyz')[0] == 200 or server.value('spindle_journal_stalled'), 'ready, or full again')
        place.fill()
    place.empty()
    assert 'writing goes on' in server.stderr()
    check_whole(server, senders)


def test_killed_while_the_disk_is_full(spindle, load, disk, chance):
    """Killed and started again on the full disk: it serves what it has or says why not, and nothing is lost when there is space."""
    place = disk('ext4', SIZE_MIB)
    server, senders = begin_full(spindle, load, place)
    for _ in range(5):
        server.kill()
        dead = server.audit()
        with hold(senders):
            try:
                server.start()
            except AssertionError:
                said = server.stderr().splitlines()[-1]
                assert 'no space' in said.lower() and str(server.data_dir) in server.stderr(), said
            else:
                assert server.metrics().streams()['ingest']['accepted'] == dead['ingest']['accepted']
        time.sleep(chance.uniform(0, 0.3))
    place.empty()
    if not server.running():
        server.start()
    check_whole(server, senders)


def test_a_stop_while_the_disk_is_full(spindle, load, disk):
    place = disk('tmpfs', SIZE_MIB)
    server, senders = begin_full(spindle, load, place)
    server.stop()
    assert 'was not acknowledged' in server.stderr()
    place.empty()
    server.start()
    check_whole(server, senders)


def test_the_disk_can_be_written_no_more(spindle, load, disk):
    """A disk that fails makes its file system read-only. The process stops: what it cannot write it does not acknowledge, and only a start
    that reads what is there can tell what was kept."""
    place = disk('ext4', 96)
    server, senders = begin(spindle, load, place)
    place.fail()
    server.expect_end(ABORTED, str(server.data_dir), 'failed', 'the process stops', 'start it again')
    assert 'Read-only file system' in server.stderr() or 'Input/output error' in server.stderr()
    said = server.refuses_to_start(str(server.data_dir))
    assert 'ead-only' in said, said
    records = server.journal('bus')  # reading works
    assert records
    place.mend()
    server.start()
    check_whole(server, senders)


def test_answers_wait_for_the_disk(spindle, load, connect, disk):
    """While the disk is full nobody is shown an answer: what a subscriber has seen is on disk."""
    place = disk('tmpfs', SIZE_MIB)
    server, senders = begin_full(spindle, load, place)
    subscriber = connect(server)
    subscriber.subscribe(*ANSWERS)
    wait_until(lambda: stays_stalled(server, senders), 'a full disk')
    subscriber.take_rest()
    shown = stays_stalled(server, senders) and subscriber.take_rest()
    assert shown in (False, []), shown
    place.empty()
    seen = subscriber.take(10)
    kept = {(record['topic'], record['payload']) for record in server.journal('results')}
    assert {(message.topic, message.payload) for message in seen} <= kept
    check_whole(server, senders)
