"""Clients that do not read, or must wait, in each of the ways to connect: nothing is lost, repeated, out of order, or kept without limit."""
import contextlib
import struct

import pytest

from doors import WAYS, Authority, all_ways, bad_client
from spindle import wait_until
from test_bus_limits import Reader, Sender, packet, pauses, publish, subscribe

COUNT, SIZE = 1000, 20000


def numbered(number):
    return struct.pack('>I', number) + bytes([number % 256]) * SIZE


@pytest.mark.parametrize('from_way, to_way', [('tcp', way) for way in WAYS] + [(way, way) for way in WAYS[1:]])
def test_a_subscriber_that_does_not_read_holds_its_publisher_back(spindle, tmp_path, from_way, to_way):
    authority = Authority(tmp_path)
    server = spindle(settings={**all_ways(authority, tmp_path), 'bus.outgoing_size_max': '1MiB', 'bus.threads': 1}).start()
    with contextlib.ExitStack() as stack:
        subscriber, publisher = [stack.enter_context(bad_client(server, way, authority)) for way in (to_way, from_way)]
        subscriber.connect(b's')
        subscriber.send(subscribe(b't'))
        reader = Reader(subscriber, acknowledge=False)
        assert reader.next()[0] == 0x90
        publisher.connect(b'p')
        sender = Sender(publisher, [publish(b't', numbered(i), i + 1) for i in range(COUNT)])
        wait_until(lambda: pauses(server, 'subscriber') > 0, 'the publisher waits')
        metrics = server.metrics()
        assert metrics.get_sum('spindle_bus_transport_connections', transport=from_way) >= 1
        assert metrics.get_sum('spindle_bus_messages_received_total') < COUNT
        for i in range(COUNT):
            first, body = reader.next()
            assert first == 0x32 and body[:3] == b'\x00\x01t' and body[5:] == numbered(i)
            if i % 50 == 49:  # a Unix socket holds about a hundred writes, however small, and this client does not read while it writes
                reader.answer()
        sender.finish()
        acknowledgements = Reader(publisher)
        for i in range(COUNT):
            assert acknowledgements.next() == (0x40, struct.pack('>H', i + 1))
        publisher.send(b'\xc0\x00')
        assert acknowledgements.next() == (0xd0, b'')
    assert len(server.journal('bus')) == COUNT


@pytest.mark.parametrize('way', WAYS)
def test_many_packets_in_every_cut(spindle, tmp_path, way):
    """Packets of all sizes up to more than a read, sent in one stream, and echoed."""
    authority = Authority(tmp_path)
    server = spindle(settings=all_ways(authority, tmp_path)).start()
    with bad_client(server, way, authority) as client:
        client.connect(b'c')
        client.send(subscribe(b't', 0))
        reader = Reader(client)
        assert reader.next()[0] == 0x90
        sizes = [0, 1, 100, 16380, 16384, 16390, 65535, 65536, 262144, 300000, 3, 700000, 5]
        payloads = [bytes([i]) * size for i, size in enumerate(sizes)]
        sender = Sender(client, [b''.join(publish(b't', payload) for payload in payloads)]) if way in ('tcp', 'unix') else None
        if not sender:  # an SSL object is not for two threads; the server has room for all of it
            client.send(b''.join(publish(b't', payload) for payload in payloads))
        for payload in payloads:
            first, body = reader.next()
            assert first == 0x30 and body[3:] == payload
        if sender:
            sender.finish()
        client.send(packet(0xe0, b''))
        assert client.socket.recv(1) == b''
