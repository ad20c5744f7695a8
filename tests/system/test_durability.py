"""Killed at any moment, under load: what was acknowledged is there, and every hole is answered."""
import json
import random
import time

import pytest

from holes import ANSWERS, KEYPOINTS, Hole
from spindle import SANITIZED, free_port, wait_until
from toolbox import Toolbox, check_answered, check_kept, total_acknowledged

KILLS = 5 if SANITIZED else 20
SETTINGS = {'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2, 'mqtt.listener.time_window': 120}


@pytest.mark.timeout(600)
def test_killed_under_load(spindle):
    """The short form of tests/fault/test_kills.py."""
    server = spindle(settings=SETTINGS)
    server.port = free_port()
    server.start()
    chance = random.Random(11)
    boxes = [Toolbox(server, i) for i in range(3)]
    for box in boxes:
        box.start()
    scrapes = 0
    for _ in range(KILLS):
        before = total_acknowledged(boxes)
        wait_until(lambda: total_acknowledged(boxes) > before + 30, lambda: 'load from %s' % [box.failure for box in boxes])
        end = time.monotonic() + chance.uniform(0.05, 0.5)
        while time.monotonic() < end:
            server.metrics()  # checks the equation
            scrapes += 1
        server.kill()
        server.start()
        server.metrics()
    for box in boxes:
        box.finish()
    assert scrapes > KILLS
    terms = server.wait_settled().streams()
    server.stop()

    hole_count = sum(len(box.holes) for box in boxes)
    check_kept(server, boxes)
    check_answered(server, boxes)
    assert total_acknowledged(boxes) == 3 * hole_count
    assert server.dead_letters() == []
    audit = server.audit()
    assert {term: audit['ingest'][term] for term in terms['ingest']} == terms['ingest']
    assert audit['ingest']['holds'] and terms['ingest']['completed'] == 3 * hole_count


def test_holes_that_wait_survive_a_kill(spindle, connect):
    """Half of each hole before, the other half after."""
    server = spindle(settings=SETTINGS).start()
    holes = [Hole() for _ in range(20)]
    connect(server).publish_all([hole.messages()[i % 2] for i, hole in enumerate(holes)])
    wait_until(lambda: server.metrics().streams()['ingest']['pending'] == 20, 'all wait')
    server.kill()
    server.start()
    assert server.metrics().streams()['ingest'] == {'accepted': 20, 'completed': 0, 'duplicates': 0, 'dead_lettered': 0, 'pending': 20}
    client, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)
    client.publish_all([hole.messages()[1 - i % 2] for i, hole in enumerate(holes)] + [hole.messages()[2] for hole in holes])
    answers = {(m.topic, json.loads(m.payload)['SourceTimestamp']) for m in subscriber.take(40)}
    assert {(hole.topic(KEYPOINTS), hole.stamp) for hole in holes} <= answers
    assert server.wait_settled(60).streams()['ingest']['completed'] == 60


def test_finished_holes_stay_finished(spindle, connect):
    """A repeat after a restart is recognised, and nothing is published again."""
    server = spindle(settings=SETTINGS).start()
    hole = Hole()
    connect(server).publish_all(hole.messages())
    server.wait_settled(3)
    for end in (server.kill, server.stop):
        end()
        server.start()
        subscriber = connect(server)
        subscriber.subscribe(*ANSWERS)
        before = server.metrics().streams()['ingest']
        assert before['completed'] == 3 and before['pending'] == 0
        connect(server).publish_all(hole.messages())
        after = server.wait_settled(before['accepted'] + 3).streams()['ingest']
        assert after['duplicates'] == before['duplicates'] + 3
        assert subscriber.take_rest() == []
    assert len(server.journal('results')) == 2


def test_dead_letters_and_counts_survive(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    hole = Hole()
    client = connect(server)
    client.publish(hole.topic('Nonsense'), b'{}')
    client.publish(hole.message('ResultManagement')[0], b'not json')
    client.publish('other/topic', b'for the bus')
    server.wait_settled(2)
    before = server.metrics()
    letters = server.dead_letters()
    assert sorted(letter['reason'] for letter in letters) == ['not_json', 'unknown_topic']
    server.kill()
    server.start()
    after = server.metrics()
    assert after.streams() == before.streams()
    for reason in ('not_json', 'unknown_topic'):
        assert after.get_sum('spindle_dead_lettered_total', stream='ingest', reason=reason) == 1
    assert server.dead_letters() == letters


def test_the_audit_agrees_with_the_metrics_while_running_and_stopped(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    holes = [Hole() for _ in range(10)]
    client.publish_all([message for hole in holes for message in hole.messages()] + holes[0].messages())
    client.publish(holes[0].topic('Nonsense'), b'{}')
    client.publish('other/topic', b'')
    terms = server.wait_settled(34).streams()
    running = server.audit()
    server.stop()
    for audit in (running, server.audit()):
        for stream, expected in terms.items():
            assert {term: audit[stream][term] for term in expected} == expected
            assert audit[stream]['holds'] is True


PACKED = pytest.mark.parametrize('pack_from', [0, 1000], ids=['plain', 'packed'])


@PACKED
def test_what_the_bus_was_given_is_kept_as_it_came(spindle, connect, pack_from):
    """Any topic, any bytes; through journal cat as text where it is UTF-8 and as base64 where not."""
    server = spindle(settings={'journal.pack_from': pack_from}).start()
    payloads = [b'', b'text', '\u00e9\U0001f529"\\\n\x01'.encode(), b'\xff\xfe\x00', bytes(range(256)), b'x' * 300000]
    connect(server).publish_all([('bus/%d/\u00e9' % i, payload) for i, payload in enumerate(payloads)])
    for _ in range(2):
        records = server.journal('bus')
        assert [(r['topic'], r['payload']) for r in records] == [('bus/%d/\u00e9' % i, p) for i, p in enumerate(payloads)]
        assert [r['offset'] for r in records] == list(range(len(payloads)))
        now_ns = time.time_ns()
        assert all(now_ns - 600e9 < r['time_ns'] <= now_ns for r in records)
        if server.running():
            server.stop()


@PACKED
def test_small_segments_are_read_across_their_borders(spindle, connect, pack_from):
    server = spindle(settings={'journal.segment_size': '1MiB', 'journal.pack_from': pack_from}).start()
    client = connect(server)
    payloads = [b'%06d' % i + random.Random(i).randbytes(10000) + bytes(30000) for i in range(300)]
    client.publish_all([('many/segments', payload) for payload in payloads])
    server.kill()
    server.start()
    assert [r['payload'] for r in server.journal('bus')] == payloads
    assert server.metrics().streams()['bus']['accepted'] == 300
    stored = sum(path.stat().st_size for path in (server.data_dir / 'bus').glob('0*.seg'))
    assert (stored < 6e6) == bool(pack_from)


def test_packed_holes_are_answered_after_a_kill(spindle, connect):
    server = spindle(settings={**SETTINGS, 'journal.pack_from': 1000}).start()
    holes = [Hole().messages() for _ in range(10)]
    before = [hole.pop(i % 2) for i, hole in enumerate(holes)]
    connect(server).publish_all(before)
    wait_until(lambda: server.metrics().streams()['ingest']['pending'] == 10, 'all wait')
    server.kill()
    server.start()
    after = [message for hole in holes for message in hole]
    connect(server).publish_all(after)
    assert server.wait_settled(30).streams()['ingest']['completed'] == 30
    assert [(r['topic'], r['payload']) for r in server.journal('ingest')] == before + after
    assert len(server.journal('results')) == 20
