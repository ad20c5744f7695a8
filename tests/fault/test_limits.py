"""A process that may have few files or little memory: new clients wait or are refused, and nothing that was acknowledged is lost."""
import contextlib
import os
import pathlib
import re
import socket
import struct
import time

import pytest

from client import Client, RawClient
from faults import KILLED, check_whole
from spindle import SANITIZED, wait_until
from toolbox import total_acknowledged

FILES = 400  # that the process may have open
MIB = 1 << 20
ADDRESS_SPACE = 1500 * MIB
MEMORY = 256 * MIB
CGROUP2, CGROUP1 = pathlib.Path('/sys/fs/cgroup'), pathlib.Path('/sys/fs/cgroup/memory')


def await_load(senders, count=100):
    before = total_acknowledged(senders)
    wait_until(lambda: total_acknowledged(senders) > before + count, lambda: 'load from %s' % [sender.failure for sender in senders])


def segments(server, stream):
    return {path.name for path in (server.data_dir / stream).glob('0*.seg')}


# ---- files ----

def connect_many(stack, port, count, greeting):
    """`count` connections that are kept open, whether or not they are accepted."""
    for _ in range(count):
        connection = stack.enter_context(socket.socket())
        connection.setblocking(False)
        connection.connect_ex(('127.0.0.1', port))
        with contextlib.suppress(OSError):
            connection.send(greeting)


@pytest.fixture
def few_files(spindle, load):
    """A server under load that may have FILES files open, and its senders."""
    server = spindle()
    server.prefix = ['prlimit', '--nofile=%d:%d' % (FILES, FILES)]
    server.start()
    assert re.search(r'at most \d+ connections instead of .*ulimit -n', server.stderr())
    senders = load(server, feeder_rate=200, size_max=60000)
    await_load(senders)
    return server, senders


def test_more_connections_than_files(few_files):
    """Clients and browsers together: the journal keeps the files that it needs for its next segments, and everybody is served again when
    they have gone."""
    server, senders = few_files
    with contextlib.ExitStack() as stack:
        connect_many(stack, server.http_port, FILES, b'GET / HTTP/1.1\r\n')
        connect_many(stack, server.port, FILES, b'\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00')
        wait_until(lambda: 'was refused: ' in server.stderr(), 'refusals')
        before = segments(server, 'bus')
        wait_until(lambda: len(segments(server, 'bus') - before) >= 3, lambda: 'new segments; standard error: %s' % server.stderr()[-2000:])
        assert 'cannot write' not in server.stderr() and 'cannot accept' not in server.stderr()
        assert server.metrics().get_sum('process_open_fds') < FILES
    wait_until(lambda: server.value('spindle_bus_connections') <= len(senders), 'the clients have gone')
    Client(server.port).close()
    check_whole(server, senders)


# ---- memory ----

def fill_memory(stack, server):
    """What takes memory: subscribers that do not read, and packets of which the end does not come."""
    for number in range(8):
        raw = stack.enter_context(RawClient(server.port))
        raw.connect(b'deaf%d' % number)
        raw.send(b'\x82\x06\x00\x01\x00\x01#\x00' if number % 2 else b'\x82\x06\x00\x01\x00\x01#\x01')
    for number in range(24):
        raw = stack.enter_context(RawClient(server.port))
        raw.connect(b'half%d' % number)
        raw.socket.settimeout(2)
        with contextlib.suppress(OSError):  # it may be held back, or disconnected
            raw.send(b'\x32' + b'\xff\xff\xff\x06' + struct.pack('>H', 4) + b'half' + bytes(12 * MIB))


def publish_large(server):
    with contextlib.suppress(Exception), Client(server.port) as client:  # it may be held back, or the server killed
        for _ in range(20):
            client.post('large/topic', bytes(MIB), qos=0)
        client.publish('large/end', b'', qos=0)


def press(server, seconds):
    """Takes memory for a while. Starts the server again when that has killed it; returns its exit statuses."""
    statuses = []
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        while time.monotonic() < end:
            with contextlib.suppress(OSError, AssertionError):
                fill_memory(stack, server)
            publish_large(server)
            revive(server, statuses)
    return statuses


def revive(server, statuses):
    if not server.running():
        statuses.append(server.wait())
        server.start()


@pytest.mark.skipif(SANITIZED, reason='a sanitized program needs more address space than there is')
def test_little_address_space(spindle, load):
    """malloc fails: what cannot be taken is refused or waits; the process goes on."""
    server = spindle(settings={'bus.stall_timeout_s': 3})
    server.prefix = ['prlimit', '--as=%d' % ADDRESS_SPACE]
    server.start()
    senders = load(server)
    await_load(senders)
    assert press(server, 4) == [], server.stderr()[-2000:]
    await_load(senders)
    check_whole(server, senders)


@pytest.fixture
def memory_group():
    """A control group with MEMORY bytes: a function that moves a process into it."""
    second = CGROUP2 / 'cgroup.controllers'
    unified = second.is_file() and 'memory' in second.read_text().split()
    group = (CGROUP2 if unified else CGROUP1) / ('spindle-fault-%d' % os.getpid())
    try:
        group.mkdir()
        (group / ('memory.max' if unified else 'memory.limit_in_bytes')).write_text(str(MEMORY))
        if unified:
            with contextlib.suppress(OSError):
                (group / 'memory.swap.max').write_text('0')
    except OSError as refused:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip('no control group with a limit of memory can be made here: %s' % refused)
    yield group
    wait_until(lambda: not (group / 'cgroup.procs').read_text(), 'the group is empty')
    group.rmdir()


def test_the_system_kills_it_for_memory(spindle, load, memory_group, say):
    """Either it stays within the limit, or the kernel kills it: then what was acknowledged is there at the next start."""
    server = spindle(settings={'bus.stall_timeout_s': 3})
    server.prefix = ['sh', '-c', 'echo $$ > %s/cgroup.procs && exec "$@"' % memory_group, 'sh']
    server.start()
    senders = load(server)
    await_load(senders)
    statuses = press(server, 8)
    before = total_acknowledged(senders)

    def goes_on():
        revive(server, statuses)  # it may be killed for the last of what was pressed
        return total_acknowledged(senders) > before + 100

    wait_until(goes_on, lambda: 'load from %s' % [sender.failure for sender in senders])
    say('killed %d times' % len(statuses))
    assert set(statuses) <= {KILLED}, statuses
    check_whole(server, senders)
