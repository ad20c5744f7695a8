"""kill -9 at any moment, hundreds of times, under load and during recovery: nothing that was acknowledged is lost, every hole is answered,
and the count on disk is the count that is shown."""
import os
import time

import pytest

from faults import check_went_on
from spindle import SANITIZED, wait_until
from toolbox import check_answered, check_kept, check_only_late, hold, total_acknowledged

KILLS = int(os.environ.get('FAULT_KILLS') or 300)
RECYCLING_KILLS = KILLS // 5
AUDIT_EVERY = 10
KILL_IN_START = 0.2  # share of the kills that come while it starts
ALIVE_S = (0.0, 0.4)
START_S = (0.001, 0.12)


def kill_and_restart(server, chance):
    """Lets it live for a while, with scrapes, and kills it; now and then again and again while it recovers. Returns the kills."""
    end = time.monotonic() + chance.uniform(*ALIVE_S)
    while time.monotonic() < end:
        server.metrics()  # checks the equation
        time.sleep(0.02)
    server.kill()
    kills = 1
    while chance.random() < KILL_IN_START:
        server.start_and_kill(chance.uniform(*START_S))
        kills += 1
    server.start()
    server.metrics()
    return kills


def kill_and_audit(server, senders):
    """As many as the files of a killed server say are there after the next start."""
    with hold(senders):
        server.kill()
        dead = server.audit()
        server.start()
        check_went_on(dead, server.metrics().streams())
        server.check_audit_agrees()


def kill_often(server, senders, count, chance, say):
    kills = rounds = shown = 0
    while kills < count:
        before = total_acknowledged(senders)
        wait_until(lambda: total_acknowledged(senders) > before, lambda: 'load from %s' % [sender.failure for sender in senders])
        kills += kill_and_restart(server, chance)
        rounds += 1
        if rounds % AUDIT_EVERY == 0:
            kill_and_audit(server, senders)
            kills += 1
        if kills >= shown + 50 or kills >= count:
            shown = kills
            say('%d kills, %d messages acknowledged' % (kills, total_acknowledged(senders)))


def settle(server, senders):
    """Everything is sent and has its outcome; returns the terms of `ingest`."""
    for sender in senders:
        sender.finish()
    return server.wait_settled().streams()['ingest']


@pytest.mark.timeout(1800 if SANITIZED else 600)
def test_killed_under_load(spindle, load, chance, say):
    server = spindle().start()
    senders = load(server)
    kill_often(server, senders, KILLS - RECYCLING_KILLS, chance, say)
    terms = settle(server, senders)
    server.stop()
    boxes = senders[:-1]
    records = check_kept(server, senders)
    check_answered(server, boxes)
    check_only_late(server)
    messages = {mark for box in boxes for mark in box.sent}
    assert terms['completed'] + terms['dead_lettered'] == len(messages)  # repeats are duplicates, one by one
    say('0 of %d acknowledged messages lost; %d records in the journal' % (total_acknowledged(senders), records))
    server.start()
    server.check_audit_agrees()


@pytest.mark.timeout(900 if SANITIZED else 300)
def test_killed_while_segments_are_used_again(spindle, load, chance, say):
    """Retention retires segments all the time; what is left has no gap, and nothing without an outcome was retired."""
    server = spindle(settings={'journal.retention_size': '2MiB'}).start()
    senders = load(server, feeder_rate=200, size_max=60000)
    kill_often(server, senders, RECYCLING_KILLS, chance, say)
    terms = settle(server, senders)
    boxes = senders[:-1]
    holes = sum(len(box.holes) for box in boxes)
    assert terms['completed'] + terms['dead_lettered'] == len({mark for box in boxes for mark in box.sent})
    assert server.metrics().streams()['results']['completed'] >= 2 * holes
    check_only_late(server)
    server.stop()
    newest = server.journal('bus')
    assert newest[0]['offset'] > 0, 'nothing was retired'
    assert [record['offset'] for record in newest] == list(range(newest[0]['offset'], newest[-1]['offset'] + 1))
    last = [int(record['payload'].split()[1]) for record in newest]
    assert max(last) == senders[-1].count
    assert all(record['payload'].startswith(senders[-1].topic.encode()) for record in newest)
