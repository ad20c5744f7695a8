#!/usr/bin/env python3
"""Writes the seeds of the MQTT fuzz targets into tests/fuzz/corpus/: one small file for each shape of packet, topic and dialogue.

    tests/fuzz/make_mqtt_seeds.py

The output is the same every time. Standard library only.
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / 'corpus'
V4, V5 = 4, 5


def varint(value):
    out = b''
    while True:
        byte, value = value % 128, value // 128
        out += bytes([byte | (0x80 if value else 0)])
        if not value:
            return out


def u16(value):
    return struct.pack('>H', value)


def u32(value):
    return struct.pack('>I', value)


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return u16(len(data)) + data


def packet(packet_type, body=b'', flags=0):
    return bytes([packet_type << 4 | flags]) + varint(len(body)) + body


def props(*parts):
    body = b''.join(parts)
    return varint(len(body)) + body


def user(name, value):
    return b'\x26' + text(name) + text(value)


def connect(version, client='client', flags=0x02, properties=b'', tail=b'', keep_alive=60):
    body = text('MQTT') + bytes([version, flags]) + u16(keep_alive)
    body += props(properties) if version == V5 else b''
    return packet(1, body + text(client) + tail)


def publish(version, topic='plant/cell/tool', payload=b'payload', qos=0, packet_id=1, flags=0, properties=b''):
    body = text(topic) + (u16(packet_id) if qos else b'')
    body += props(properties) if version == V5 else b''
    return packet(3, body + payload, flags | qos << 1)


def subscribe(version, *filters, packet_id=2, properties=b''):
    body = u16(packet_id) + (props(properties) if version == V5 else b'')
    return packet(8, body + b''.join(text(f) + bytes([options]) for f, options in filters), 2)


def unsubscribe(version, *filters, packet_id=3):
    body = u16(packet_id) + (props() if version == V5 else b'')
    return packet(10, body + b''.join(text(f) for f in filters), 2)


def ack(packet_type, packet_id, tail=b''):
    return packet(packet_type, u16(packet_id) + tail, 2 if packet_type == 6 else 0)


CONNECT_PROPERTIES = (b'\x11' + u32(3600) + b'\x21' + u16(20) + b'\x27' + u32(65536) + b'\x22' + u16(10) + b'\x19\x01\x17\x00'
                      + user('key', 'value') + b'\x15' + text('SCRAM') + b'\x16' + text(b'\x00\x01'))
WILL_PROPERTIES = b'\x18' + u32(5) + b'\x01\x01\x02' + u32(60) + b'\x03' + text('text/plain') + b'\x08' + text('answers')
PUBLISH_PROPERTIES = (b'\x01\x01\x02' + u32(30) + b'\x03' + text('application/json') + b'\x08' + text('answers/7')
                      + b'\x09' + text(b'\x07\x00') + user('priority', 'high') + user('priority', 'low'))
CONNACK_PROPERTIES = (b'\x11' + u32(1) + b'\x21' + u16(9) + b'\x24\x01\x25\x00\x27' + u32(9999) + b'\x12' + text('given') + b'\x22'
                      + u16(0) + b'\x1f' + text('why') + b'\x28\x01\x29\x00\x2a\x01\x13' + u16(30) + b'\x1a' + text('info')
                      + b'\x1c' + text('other'))


def packets(version):
    five = version == V5
    will = (props(WILL_PROPERTIES) if five else b'') + text('last/will') + text(b'gone')
    none = props() if five else b''
    yield 'connect', connect(version)
    yield 'connect-anonymous', connect(version, client='')
    yield 'connect-full', connect(version, flags=0xee, properties=CONNECT_PROPERTIES, tail=will + text('user') + text(b'secret'))
    yield 'connect-password', connect(version, flags=0x42, tail=text(b'secret'))
    yield 'connack', packet(2, b'\x00\x00' + none)
    yield 'connack-full', packet(2, b'\x01\x00' + (props(CONNACK_PROPERTIES) if five else b''))
    yield 'connack-refused', packet(2, b'\x00' + (b'\x87' if five else b'\x05') + none)
    yield 'publish-0', publish(version)
    yield 'publish-1', publish(version, qos=1, packet_id=0x1234, flags=9)
    yield 'publish-2', publish(version, qos=2, properties=PUBLISH_PROPERTIES)
    yield 'publish-empty', publish(version, payload=b'')
    yield 'publish-unicode', publish(version, topic='Werk/Spindel/μ/孔')
    yield 'publish-long', publish(version, topic='a/' * 60 + 'b', payload=bytes(range(200)))
    yield 'publish-alias', publish(version, topic='' if five else 't', properties=b'\x23' + u16(3))
    yield 'publish-identifiers', publish(version, properties=b'\x0b\x01\x0b' + varint(70000))
    yield 'publish-wildcard', publish(version, topic='a/+/b')
    for packet_type, name in ((4, 'puback'), (5, 'pubrec'), (6, 'pubrel'), (7, 'pubcomp')):
        yield name, ack(packet_type, 7)
        yield name + '-reason', ack(packet_type, 7, b'\x92' if packet_type > 5 else b'\x97')
        yield name + '-full', ack(packet_type, 7, b'\x00' + props(b'\x1f' + text('why'), user('k', 'v')))
    yield 'subscribe', subscribe(version, ('a/+/c', 1), ('#', 0), properties=b'\x0b\x07')
    yield 'subscribe-options', subscribe(version, ('$share/group/a/#', 0x18), ('b', 0x2d))
    yield 'subscribe-shared-no-local', subscribe(version, ('$share/group/a', 0x04))
    yield 'unsubscribe', unsubscribe(version, 'a/+/c', '#')
    yield 'suback', packet(9, u16(2) + none + b'\x00\x01\x02\x80')
    yield 'unsuback', packet(11, u16(3) + none + (b'\x00\x11' if five else b''))
    yield 'pingreq', packet(12)
    yield 'pingresp', packet(13)
    yield 'disconnect', packet(14)
    yield 'disconnect-reason', packet(14, b'\x8e')
    yield 'disconnect-full', packet(14, b'\x04' + props(b'\x11' + u32(0), b'\x1c' + text('other'), b'\x1f' + text('why')))
    yield 'auth', packet(15, b'\x18' + props(b'\x15' + text('SCRAM'), b'\x16' + text(b'\x01')))
    yield 'cut', publish(version)[:-3]
    yield 'long-length', b'\x30\xff\xff\xff\x7f'
    yield 'bad-length', b'\x30\x80\x80\x80\x80\x01'


def dialogues(version):
    hello = connect(version, properties=b'\x21' + u16(3))
    one = publish(version, qos=1)
    yield 'publishes', hello + publish(version) + one * 4 + packet(12) + packet(14)
    yield 'subscribes', hello + subscribe(version, ('a/#', 1)) + unsubscribe(version, 'a/#') + packet(14)
    yield 'acknowledges', hello + packet(12) + ack(4, 1) + ack(4, 3) + ack(4, 2) + ack(4, 9) + packet(12) + ack(4, 4)
    yield 'floods', hello + one * 8
    yield 'impatient', hello + hello
    yield 'late', packet(12) + hello
    yield 'retains', hello + publish(version, flags=1) + publish(version, qos=1, flags=9)
    yield 'qos-2', hello + publish(version, qos=2) + ack(6, 1)
    yield 'alias', hello + publish(version, properties=b'\x23' + u16(1))
    yield 'expiry', connect(version, properties=b'\x11' + u32(9)) + packet(14, b'\x00' + props(b'\x11' + u32(1)))
    yield 'authenticates', connect(version, properties=b'\x15' + text('SCRAM')) + packet(15)
    yield 'too-large', hello + publish(version, payload=bytes(5000))[:40]
    yield 'nameless', connect(version, client='', flags=0)
    yield 'behind-disconnect', hello + packet(14) + packet(12)
    # In the owner's turn identifiers are sent: 4, 8 and so on are of QoS 2.
    two, again, ping = publish(version, qos=2, packet_id=65535), publish(version, qos=2, packet_id=65535, flags=8), packet(12)
    refused, unknown = (b'\x97', b'\x92') if version == V5 else (b'', b'')
    yield 'exactly-once', hello + (two + again + ping + again + two + ack(6, 65535)) * 2 + ack(6, 65535, unknown) + packet(14)
    yield 'release-early', hello + two + ack(6, 65535) + ping
    mixed = b''.join(publish(version, qos=1 + i % 2, packet_id=i + 1) for i in range(4))
    yield 'fills-receive-maximum', hello + mixed + ping + ack(6, 2) + two * 2 + one * 3
    taken = ack(5, 4) * 2 + ack(4, 1) + ack(7, 4) * 2
    yield 'takes-exactly-once', hello + ping * 4 + taken + ack(5, 8, refused) + ack(5, 9000) + ping
    yield 'takes-out-of-turn', hello + ping * 2 + ack(7, 4)
    yield 'takes-wrong-kind', hello + ping * 2 + ack(4, 4)
    yield 'takes-wrong-kind-of-one', hello + ping * 2 + ack(5, 1)
    yield 'takes-then-refuses', hello + ping * 2 + ack(5, 4) + ack(5, 4, refused) + ping


def client_dialogues(version):
    """What a server sends to a client whose owner sends three messages of QoS 1 and 2 after each event (the second bit of the habits)."""
    five = version == V5
    none = props() if five else b''
    hello, kept = packet(2, b'\x00\x00' + none), packet(2, b'\x01\x00' + none)
    two, again = publish(version, qos=2, packet_id=9), publish(version, qos=2, packet_id=9, flags=8)
    one, pong = publish(version, qos=1), packet(13)
    yield 'greets', hello + packet(9, u16(1) + none + b'\x01') + pong + one + packet(11, u16(2) + none + (b'\x00' if five else b''))
    yield 'refuses', packet(2, b'\x00' + (b'\x87' if five else b'\x05') + none) + one
    yield 'agrees', packet(2, b'\x00\x00' + (props(CONNACK_PROPERTIES) if five else b'')) + one * 3
    yield 'keeps', kept + two + again + b'\xff' + kept + again + ack(6, 9) * 2
    yield 'forgets', hello + two + b'\xff' + hello + two + ack(6, 9)
    yield 'answers', hello + pong * 3 + ack(5, 4) + ack(7, 4) + ack(4, 1) + b'\xff' + kept + ack(4, 2)
    yield 'floods', hello + one * 9
    yield 'leaves', hello + (packet(14, b'\x8e') if five else packet(14)) + one
    yield 'speaks-early', one + hello
    yield 'alias', hello + publish(version, properties=b'\x23' + u16(1))
    yield 'identifiers', hello + publish(version, properties=b'\x0b\x01\x0b\x02')
    yield 'asks', hello + packet(12)


TOPICS = [
    ('a/b/c', 'a/b/c'), ('a/+/c', 'a/b/c'), ('#', 'a/b'), ('+/+', '/a'), ('sport/#', 'sport'), ('sport/#', 'sports'), ('#', '$SYS/x'),
    ('$SYS/#', '$SYS/x'), ('+', ''), ('a/#/b', 'a'), ('a+', 'a'), ('$share/group/a/+', 'a/b'), ('$share//a', 'a'), ('$share/g', 'a'),
    ('a//b', 'a//b'), ('/', '/'), ('Straße/+', 'Straße/孔'), ('/'.join('+' * 128), '/'.join('x' * 128)),
    ('/'.join('+' * 129), '/'.join('x' * 129)), ('a/b/#', 'a'), ('+/#', 'a'), ('a/+', 'a/'),
]


# Of the owner, where a dialogue needs certain ones: 1 acknowledges at once, 2 sends.
HABITS = {'exactly-once': 0, 'release-early': 0, 'fills-receive-maximum': 0, 'takes-exactly-once': 2, 'takes-out-of-turn': 2,
          'takes-wrong-kind': 2, 'takes-wrong-kind-of-one': 2, 'takes-then-refuses': 2}


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    for version, first in ((V4, b'\x00'), (V5, b'\x01')):
        for name, data in packets(version):
            write('mqtt_packet', '%s-v%d' % (name, version), first + data)
        for number, (name, data) in enumerate(dialogues(version)):
            write('mqtt_session', '%s-v%d' % (name, version), bytes([HABITS.get(name, number % 8) | (number * 5 + 1) % 32 << 3]) + data)
        for number, (name, data) in enumerate(client_dialogues(version)):
            habits = number % 4 | (4 if version == V5 else 0) | (number * 7 + 1) % 32 << 3
            write('mqtt_client', '%s-v%d' % (name, version), bytes([habits]) + data)
    for number, (filter_text, topic) in enumerate(TOPICS):
        write('mqtt_topic', 'pair-%02d' % number, filter_text.encode() + b'\n' + topic.encode())
    write('mqtt_topic', 'ill-formed', b'\xed\xa0\x80/+\n\xc0\x80')
    write('mqtt_topic', 'zero', b'a\x00b\na\x00b')


if __name__ == '__main__':
    main()
