"""The wall clock jumps back an hour and ahead a day. Windows and graces are not measured with it: nothing expires early, nothing hangs."""
import pathlib
import shutil
import subprocess
import time

import pytest

from faults import Clock, check_whole
from holes import ANSWERS, Hole
from spindle import SANITIZED, wait_until
from toolbox import total_acknowledged

HOUR_S, DAY_S = 3600, 86400
GRACE_S, WINDOW_S = 2.0, 4.0
SLACK_S = 2.0  # what a busy machine may add
JUMPS = [-HOUR_S, DAY_S]

pytestmark = pytest.mark.skipif(SANITIZED, reason='a sanitized program does not take the shim')


@pytest.fixture(scope='session')
def shim(tmp_path_factory):
    if not shutil.which('gcc'):
        pytest.skip('gcc is missing')
    built = tmp_path_factory.mktemp('shim') / 'clock_shim.so'
    source = pathlib.Path(__file__).with_name('clock_shim.c')
    subprocess.run(['gcc', '-std=c17', '-O2', '-Wall', '-Wextra', '-Werror', '-fPIC', '-shared', '-o', built, source], check=True)
    return built


@pytest.fixture
def clocked(spindle, shim, tmp_path):
    """clocked(**settings) gives (server, clock), the server started."""
    def make(**settings):
        clock = Clock(tmp_path / 'clock', shim)
        server = spindle(env=clock.env, settings={'pipeline.grace_s': GRACE_S, 'mqtt.listener.time_window': WINDOW_S, **settings})
        return server.start(), clock
    return make


@pytest.mark.parametrize('jump_s', JUMPS)
def test_heads_are_waited_for_as_long_as_ever(clocked, connect, jump_s):
    server, clock = clocked()
    client, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)
    began = time.monotonic()
    client.publish_all(Hole().messages()[:2])
    clock.jump(jump_s)
    client.publish('after/the/jump', b'')  # in another group
    subscriber.take(2)
    waited_s = time.monotonic() - began
    assert GRACE_S <= waited_s < GRACE_S + SLACK_S, waited_s
    record = server.journal('bus')[-1]
    assert abs(record['time_ns'] / 1e9 - time.time() - jump_s) < 60, 'the clock did not jump'


@pytest.mark.parametrize('jump_s', JUMPS)
def test_the_window_is_as_long_as_ever(clocked, connect, jump_s):
    server, clock = clocked()
    began = time.monotonic()
    connect(server).publish(*Hole().messages()[0])
    clock.jump(jump_s)
    wait_until(lambda: server.metrics().streams()['ingest']['dead_lettered'] == 1, 'the hole is given up')
    waited_s = time.monotonic() - began
    assert WINDOW_S <= waited_s < WINDOW_S + SLACK_S, waited_s
    assert [letter['reason'] for letter in server.dead_letters()] == ['unmatched']


def test_partners_on_both_sides_of_a_jump_find_each_other(clocked, connect):
    server, clock = clocked(**{'mqtt.listener.time_window': 60})
    holes = [Hole() for _ in range(20)]
    client, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)
    for kind, jump_s in enumerate([0, -HOUR_S, DAY_S]):
        clock.jump(jump_s)
        client.publish_all([hole.messages()[kind] for hole in holes])
    assert len(subscriber.take(2 * len(holes))) == 2 * len(holes)
    terms = server.wait_settled(60).streams()['ingest']
    assert terms['completed'] == 60


def test_jumps_and_kills_under_load(clocked, load, chance):
    """Restarts at another time of day, earlier or later, change nothing but the times of the records."""
    server, clock = clocked(**{'mqtt.listener.time_window': 120, 'pipeline.grace_s': 1})
    senders = load(server)
    for number in range(10):
        before = total_acknowledged(senders)
        wait_until(lambda: total_acknowledged(senders) > before + 20, 'load')
        clock.jump(chance.choice(JUMPS + [0]))
        server.metrics()
        if number % 2:
            server.kill()
            server.start()
            server.metrics()
    check_whole(server, senders)


def test_a_clock_that_leaps_ten_years_ahead_does_not_empty_the_journal(clocked, connect):
    server, clock = clocked(**{'journal.segment_size': '1MiB', 'journal.retention_age_s': 30 * DAY_S})
    client = connect(server)
    for _ in range(25):
        client.publish('bus/x', bytes(100000))
    before = sorted((server.data_dir / 'bus').glob('0*.seg'))
    assert len(before) > 2
    clock.jump(3650 * DAY_S)
    for _ in range(25):  # each segment that is begun wakes what removes old ones
        client.publish('bus/x', bytes(100000))
    wait_until(lambda: 'stream bus: what is there from before' in server.stderr(), 'it is told')
    assert 'set it right' in server.stderr() and all(path.exists() for path in before)
    clock.jump(0)
    server.stop()
    server.start()
    assert all(path.exists() for path in before)
