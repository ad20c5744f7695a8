"""Retention of a running server: what is old goes, also while nothing is written, and what is not finished stays."""
import pytest

from holes import ANSWERS, RESULT, TRACE, Hole
from sessions import Visit, payloads
from spindle import wait_until

PAYLOAD = b'x' * 100000
AGE_S = 2


@pytest.fixture
def aged(spindle):
    return spindle(settings={'journal.segment_size': '1MiB', 'journal.retention_age_s': AGE_S, 'mqtt.listener.time_window': 3600})


def segments(server, stream):
    return server.metrics().get_sum('spindle_journal_segments', stream=stream)


def terms_of(server):
    terms = server.metrics().streams()['ingest']
    return terms['accepted'], terms['pending']


def first_offset(server, stream):
    return int(min((server.data_dir / stream).glob('0*.seg')).stem)


def test_what_is_old_goes_while_nothing_is_written(aged, connect):
    server = aged.start()
    client = connect(server)
    for _ in range(35):
        client.publish('bus/x', PAYLOAD)
    client.publish('bus/x', b'the last')
    wait_until(lambda: segments(server, 'bus') == 1, 'only the newest is left')
    wait_until(lambda: first_offset(server, 'bus') > 0, 'of the files too')
    assert [record['payload'] for record in server.journal('bus')][-1] == b'the last'
    assert server.metrics().get_sum('spindle_accepted_total', stream='bus') == 36


def test_what_is_old_goes_after_a_restart(aged, connect):
    server = aged.start()
    client = connect(server)
    for _ in range(35):
        client.publish('bus/x', PAYLOAD)
    client.publish('bus/x', b'the last')
    server.stop()
    server.start()
    wait_until(lambda: segments(server, 'bus') == 1, 'only the newest is left')
    wait_until(lambda: first_offset(server, 'bus') > 0, 'of the files too')
    assert server.metrics().get_sum('spindle_accepted_total', stream='bus') == 36


def test_a_message_without_an_outcome_keeps_its_segment_and_all_behind_it(aged, connect):
    server = aged.start()
    client = connect(server)
    subscriber = connect(server)
    subscriber.subscribe(*ANSWERS)
    hole = Hole()
    client.publish_all(hole.messages((RESULT,)))  # it waits for its trace
    for _ in range(35):
        client.publish('OPCPUBSUB/nobody/knows/this', PAYLOAD)  # dead letters
    wait_until(lambda: terms_of(server) == (36, 1), 'all others are settled')
    before = segments(server, 'ingest')
    wait_until(lambda: segments(server, 'dead-letters') == 1, 'what is as old has gone elsewhere')
    wait_until(lambda: server.metrics().get_sum('spindle_journal_held_bytes', stream='ingest') > 2 << 20, 'it is said what is held')
    assert segments(server, 'ingest') == before > 3 and first_offset(server, 'ingest') == 0
    assert server.metrics().get_sum('spindle_journal_held_bytes', stream='bus') == 0
    client.publish_all(hole.messages((TRACE,)))
    assert len(subscriber.take(2)) == 2
    wait_until(lambda: segments(server, 'ingest') == 1, 'nothing holds it any more')
    assert server.metrics().get_sum('spindle_journal_held_bytes', stream='ingest') == 0
    assert server.audit()['ingest']['holds']


def test_what_a_session_does_not_wait_for_goes(aged, connect):
    """Its client is away, or connected and silent, and what is published is for others; then there is one for it."""
    server = aged.start()
    client = connect(server)
    with Visit(server, b'silent', expiry=1000) as silent:
        silent.subscribe(b'bus/rare/+', qos=1)
        with Visit(server, b'c', expiry=1000) as visit:
            visit.subscribe(b'bus/rare/#', qos=1)
            visit.leave()
        with Visit(server, b'idle', expiry=1000) as visit:
            visit.leave()
        for _ in range(35):
            client.publish('bus/x', PAYLOAD)
        wait_until(lambda: segments(server, 'bus') == 1, 'nobody waits for it', 60)
        assert first_offset(server, 'bus') > 0
        client.publish('bus/rare/1', b'rare')
        assert payloads(silent.take(1)) == [b'rare']
        for _ in range(35):
            client.publish('bus/x', PAYLOAD)
        wait_until(lambda: server.metrics().get_sum('spindle_journal_held_bytes', stream='bus') > 2 << 20, 'one waits', 60)
    with Visit(server, b'c') as visit:
        assert visit.present == 1 and payloads(visit.take(1)) == [b'rare']


@pytest.mark.parametrize('end', ['it is back', 'it is over', 'its time is over'])
def test_what_a_session_waits_for_stays(aged, connect, end):
    """However old it is, until its client has it, or the session has ended."""
    server = aged.start()
    client = connect(server)
    with Visit(server, b'c', expiry=5 if end == 'its time is over' else 1000) as visit:
        visit.subscribe(b'bus/x', qos=1)
        visit.leave()
    for _ in range(35):
        client.publish('bus/x', PAYLOAD)
    if end != 'its time is over':
        wait_until(lambda: server.metrics().get_sum('spindle_journal_held_bytes', stream='bus') > 2 << 20, 'it is said what is held')
        assert first_offset(server, 'bus') == 0
        with Visit(server, b'c', clean=end == 'it is over') as visit:
            if end == 'it is back':
                assert payloads(visit.take(35)) == [PAYLOAD] * 35
            visit.leave()
    client.publish('bus/y', b'the last')
    wait_until(lambda: segments(server, 'bus') == 1, 'nothing holds it any more')
    wait_until(lambda: server.metrics().get_sum('spindle_journal_held_bytes', stream='bus') == 0, 'and that is said')
