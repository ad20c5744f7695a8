"""Restarts in order while the clients keep sending: SIGTERM, SIGHUP in between, and a kill that comes while it drains."""
import signal
import time

import pytest

from faults import KILLED, check_whole
from spindle import wait_until
from toolbox import hold, total_acknowledged

RESTARTS = 20


@pytest.fixture
def configured(spindle, tmp_path):
    """(server, write) of a server with a configuration file; write(grace_s) changes it."""
    path = tmp_path / 'spindle.yaml'

    def write(grace_s):
        path.write_text('pipeline: {grace_s: %s}\n' % grace_s)
    write(1)
    server = spindle()
    del server.settings['pipeline.grace_s']
    server.arguments = ['--config', str(path)]
    return server, write


def await_load(senders):
    before = total_acknowledged(senders)
    wait_until(lambda: total_acknowledged(senders) > before + 20, lambda: 'load from %s' % [sender.failure for sender in senders])


def test_restarted_in_order_while_clients_send(configured, load, chance, say):
    server, write = configured
    senders = load(server.start())
    for number in range(RESTARTS):
        await_load(senders)
        write(1 + number % 2 / 10)
        server.signal(signal.SIGHUP)
        time.sleep(chance.uniform(0, 0.2))
        server.metrics()
        with hold(senders if number % 5 == 0 else []):
            server.stop()  # exit status 0
            dead = server.audit()
            server.start()
            if number % 5 == 0:
                assert server.metrics().streams()['ingest']['accepted'] == dead['ingest']['accepted']
        server.metrics()
    said = server.stderr()
    assert said.count('SIGTERM: draining') == said.count('run: stopped') == RESTARTS
    assert 'pipeline.grace_s changed; the new value holds from now on' in said
    assert 'cut off' not in said, 'a stop in order left an unfinished group'
    say('%d restarts, %d messages acknowledged' % (RESTARTS, total_acknowledged(senders)))
    check_whole(server, senders)


def test_killed_while_it_drains(configured, load, chance):
    server, write = configured
    senders = load(server.start())
    for number in range(RESTARTS):
        await_load(senders)
        server.signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
        time.sleep(chance.uniform(0, 0.08))
        server.signal(signal.SIGKILL)
        assert server.wait() in (KILLED, 0)
        server.start()
        server.metrics()
    check_whole(server, senders)


def test_many_signals_do_no_harm(configured, load, chance):
    server, write = configured
    senders = load(server.start())
    await_load(senders)
    for number in range(100):
        write(1 + number % 3 / 10)
        server.signal(signal.SIGHUP)
        time.sleep(chance.uniform(0, 0.01))
    await_load(senders)
    check_whole(server, senders)
