"""What breaks a rule of the standards ends the connection, and in 5.0 with the reason code that the standard names."""
import pytest

from client import without_reason
from packets import ALIAS, RESPONSE_TOPIC, SUBSCRIPTION, USER, properties, text, varint
from wire import (BOTH, CLEAN, NAME, PASSWORD, PING, USER_NAME, WILL, WILL_QOS, WILL_RETAIN, Wire, answer, answers, connect, packet, publish,
                  set_of, subscribe, u16, unsubscribe)

MALFORMED, PROTOCOL, BAD_FILTER, BAD_TOPIC, BAD_ALIAS = 0x81, 0x82, 0x8f, 0x90, 0x94
SURROGATE, ZERO, CUT = b'\xed\xa0\x80', b'a\0b', b'\xc3'


@pytest.fixture(scope='module')
def server(shared_server):
    return shared_server()


# ---- CONNECT ----

def connects(version):
    """{what is wrong: (bytes, reason code in 5.0)}; 3.1.1 wants silence."""
    def made(flags=CLEAN, rest=b'', **options):
        return connect(version, b'broken', flags, rest=rest, **options)
    none = set_of(version)
    will = none + text(b't') + text(b'x')
    head = NAME + bytes([version, CLEAN]) + u16(60) + none
    cases = {
        'flags of the fixed header': (made(first=0x11), None),
        'the reserved flag': (made(CLEAN | 1), MALFORMED),
        'a QoS of no will': (made(CLEAN | WILL_QOS), MALFORMED),
        'no will, but retained': (made(CLEAN | WILL_RETAIN), MALFORMED),
        'a will of QoS 3': (made(CLEAN | WILL | 3 * WILL_QOS, will), MALFORMED),
        'a will that is missing': (made(CLEAN | WILL), MALFORMED),
        'a will without payload': (made(CLEAN | WILL, none + text(b't')), MALFORMED),
        'a will that was not announced': (made(CLEAN, will), MALFORMED),
        'a user name that is missing': (made(CLEAN | USER_NAME), MALFORMED),
        'a user name that was not announced': (made(CLEAN, text(b'me')), MALFORMED),
        'a password that is missing': (made(CLEAN | USER_NAME | PASSWORD, text(b'me')), MALFORMED),
        'a password that was not announced': (made(CLEAN | USER_NAME, text(b'me') + text(b'secret')), MALFORMED),
        'no client identifier': (packet(0x10, head), MALFORMED),
        'a client identifier longer than the packet': (packet(0x10, head, u16(9), b'short'), MALFORMED),
        'a byte too many': (made(rest=b'\0'), MALFORMED),
        'a client identifier with a surrogate': (connect(version, SURROGATE), MALFORMED),
        'a client identifier with U+0000': (connect(version, ZERO), MALFORMED),
        'a client identifier cut within a character': (connect(version, CUT), MALFORMED),
        'a will topic with a surrogate': (made(CLEAN | WILL, none + text(SURROGATE) + text(b'')), MALFORMED),
        'a will topic with U+0000': (made(CLEAN | WILL, none + text(ZERO) + text(b'')), MALFORMED),
        'a will topic with a wildcard': (made(CLEAN | WILL, none + text(b'a/+') + text(b'')), BAD_TOPIC),
        'an empty will topic': (made(CLEAN | WILL, none + text(b'') + text(b'')), BAD_TOPIC),
        'a user name with a surrogate': (made(CLEAN | USER_NAME, text(SURROGATE)), MALFORMED),
        'a user name with U+0000': (made(CLEAN | USER_NAME, text(ZERO)), MALFORMED),
    }
    if version == 4:
        cases['a password without user name'] = (made(CLEAN | PASSWORD, text(b'secret')), None)
        return cases

    def with_set(raw):
        return packet(0x10, NAME, bytes([5, CLEAN]), u16(60), varint(len(raw)), raw, text(b'broken'))
    cases |= {
        'no length of properties': (packet(0x10, NAME, bytes([5, CLEAN]), u16(60), text(b'broken')), MALFORMED),
        'properties longer than the packet': (packet(0x10, NAME, bytes([5, CLEAN]), u16(60), b'\x7f', text(b'broken')), MALFORMED),
        'an unknown property': (with_set(b'\x7f\0'), MALFORMED),
        'a property of a PUBLISH': (with_set(b'\x01\1'), MALFORMED),
        'a property of the will': (with_set(b'\x18\0\0\0\1'), MALFORMED),
        'a property cut short': (with_set(b'\x11\0\0'), MALFORMED),
        'a property twice': (with_set(b'\x21\0\1\x21\0\1'), PROTOCOL),
        'receive maximum 0': (with_set(b'\x21\0\0'), PROTOCOL),
        'maximum packet size 0': (with_set(b'\x27\0\0\0\0'), PROTOCOL),
        'request problem information 2': (with_set(b'\x17\2'), PROTOCOL),
        'request response information 2': (with_set(b'\x19\2'), PROTOCOL),
        'authentication data without a method': (with_set(b'\x16\0\0'), PROTOCOL),
        'a user property whose name is no UTF-8': (with_set(b'\x26' + text(SURROGATE) + text(b'')), MALFORMED),
        'a user property whose value holds U+0000': (with_set(b'\x26' + text(b'') + text(ZERO)), MALFORMED),
        'a delay of the will twice': (made(CLEAN | WILL, b'\x0a' + 2 * b'\x18\0\0\0\1' + text(b't') + text(b'')), PROTOCOL),
        'a length in more bytes than it needs': (bytes([0x10, made()[1] | 0x80, 0]) + made()[2:], MALFORMED),
    }
    return cases


@pytest.mark.parametrize('name', connects(4))
def test_a_connect_that_breaks_the_rules_is_not_answered_in_3_1_1(server, name):
    assert answers(server, connects(4)[name][0]) == b''


@pytest.mark.parametrize('name', connects(5))
def test_a_connect_that_breaks_the_rules_is_told_why_in_5_0(server, name):
    data, reason = connects(5)[name]
    got = answers(server, data)
    assert got == b'' if reason is None else without_reason(got) == bytes([0x20, 3, 0, reason, 0])


# ---- everything behind it ----

def packets_of(version):
    """{what is wrong: (bytes, reason code in 5.0)}"""
    none = set_of(version)
    qos = 0 if version == 4 else PROTOCOL
    cases = {
        'a reserved packet type': (b'\0\0', MALFORMED),
        'PUBLISH of QoS 3': (packet(0x36, text(b't'), u16(1), none), MALFORMED),
        'PUBLISH of QoS 0 that is a repeat': (publish(version, b't', dup=True), MALFORMED),
        'PUBLISH without topic': (packet(0x30), MALFORMED),
        'PUBLISH with a topic longer than the packet': (packet(0x30, u16(9), b'short'), MALFORMED),
        'PUBLISH to an empty topic': (publish(version, b''), BAD_TOPIC if version == 4 else PROTOCOL),
        'PUBLISH to a topic with +': (publish(version, b'a/+'), BAD_TOPIC),
        'PUBLISH to a topic with #': (publish(version, b'#'), BAD_TOPIC),
        'PUBLISH to a topic with a surrogate': (publish(version, SURROGATE), MALFORMED),
        'PUBLISH to a topic with U+0000': (publish(version, ZERO), MALFORMED),
        'PUBLISH to a topic with an overlong character': (publish(version, b'\xc0\xaf'), MALFORMED),
        'PUBLISH to a topic of 202 levels': (publish(version, b'/' * 201), BAD_TOPIC),
        'PUBLISH with identifier 0': (publish(version, b't', qos=1, identifier=0), PROTOCOL),
        'PUBLISH without identifier': (packet(0x32, text(b't')), MALFORMED),
        'PUBREL with flags 0': (packet(0x60, u16(1)), MALFORMED),
        'PUBACK with flags': (packet(0x42, u16(1)), MALFORMED),
        'PUBACK with identifier 0': (answer(0x40, 0), PROTOCOL),
        'PUBACK without identifier': (packet(0x40, b'\1'), MALFORMED),
        'SUBSCRIBE with flags 0': (subscribe(version, (b't', 0), first=0x80), MALFORMED),
        'SUBSCRIBE with identifier 0': (subscribe(version, (b't', 0), identifier=0), PROTOCOL),
        'SUBSCRIBE without filter': (subscribe(version), PROTOCOL),
        'SUBSCRIBE without options': (packet(0x82, u16(1), none, text(b't')), MALFORMED),
        'SUBSCRIBE with reserved options': (subscribe(version, (b't', 0x40)), MALFORMED),
        'SUBSCRIBE with other reserved options': (subscribe(version, (b't', 0x80)), MALFORMED),
        'SUBSCRIBE of QoS 3': (subscribe(version, (b't', 3)), qos),
        'SUBSCRIBE to an empty filter': (subscribe(version, (b'', 0)), BAD_FILTER),
        'SUBSCRIBE to a filter of 202 levels': (subscribe(version, (b'/' * 201, 0)), BAD_FILTER),
        'SUBSCRIBE to a filter with a surrogate': (subscribe(version, (SURROGATE, 0)), MALFORMED),
        'SUBSCRIBE to a filter with U+0000': (subscribe(version, (ZERO, 0)), MALFORMED),
        'UNSUBSCRIBE with flags 0': (unsubscribe(version, b't', first=0xa0), MALFORMED),
        'UNSUBSCRIBE with identifier 0': (unsubscribe(version, b't', identifier=0), PROTOCOL),
        'UNSUBSCRIBE without filter': (unsubscribe(version), PROTOCOL),
        'UNSUBSCRIBE from an empty filter': (unsubscribe(version, b''), BAD_FILTER),
        'UNSUBSCRIBE from a filter with a surrogate': (unsubscribe(version, SURROGATE), MALFORMED),
        'UNSUBSCRIBE from a filter with U+0000': (unsubscribe(version, ZERO), MALFORMED),
        'PINGREQ with flags': (b'\xc1\0', MALFORMED),
        'PINGREQ with a body': (b'\xc0\1\0', MALFORMED),
        'DISCONNECT with flags': (b'\xe1\0', MALFORMED),
        'CONNECT again': (connect(version, b'again'), PROTOCOL),
        'CONNACK': (packet(0x20, b'\0\0', none), PROTOCOL),
        'SUBACK': (packet(0x90, u16(1), none, b'\0'), PROTOCOL),
        'UNSUBACK': (packet(0xb0, u16(1), none), PROTOCOL),
        'PINGRESP': (b'\xd0\0', PROTOCOL),
        'AUTH with flags': (b'\xf1\0', MALFORMED),
        'AUTH': (b'\xf0\0', PROTOCOL),
        'a length of five bytes': (b'\x30\x80\x80\x80\x80\1', MALFORMED),
    }
    for name in (b'a/#/b', b'a#', b'+a', b'a/b+', b'#/'):
        for kind, make in (('SUBSCRIBE to', lambda f: subscribe(version, (f, 0))), ('UNSUBSCRIBE from', lambda f: unsubscribe(version, f))):
            cases['%s %s' % (kind, name.decode())] = (make(name), BAD_FILTER)
    if version == 4:
        return cases | {'SUBSCRIBE with an option of 5.0': (subscribe(4, (b't', 4)), MALFORMED),
                        'PUBACK with a reason': (answer(0x40, 1, b'\0'), MALFORMED),
                        'DISCONNECT with a reason': (b'\xe0\1\0', MALFORMED)}
    return cases | packets_of_5_0()


def packets_of_5_0():
    def published(*props, topic=b't'):
        return publish(5, topic, props=props)

    def with_set(first, raw, before=u16(1), after=b''):
        return packet(first, before, varint(len(raw)), raw, after)
    expiry = b'\x11\0\0\0\1'
    cases = {
        'a length in more bytes than it needs': (b'\xc0\x80\0', MALFORMED),
        'properties whose length has a byte too many': (packet(0x30, text(b't'), b'\x80\0'), MALFORMED),
        'PUBLISH without length of properties': (packet(0x30, text(b't')), MALFORMED),
        'PUBLISH with properties longer than the packet': (packet(0x30, text(b't'), b'\x7f\0'), MALFORMED),
        'PUBLISH with an unknown property': (with_set(0x30, b'\x7f\0', text(b't')), MALFORMED),
        'PUBLISH with a property of CONNECT': (with_set(0x30, expiry, text(b't')), MALFORMED),
        'PUBLISH with a property twice': (published((3, b'a'), (3, b'a')), PROTOCOL),
        'PUBLISH with payload format 2': (published((1, 2)), PROTOCOL),
        'PUBLISH with a content type that is no UTF-8': (published((3, SURROGATE)), MALFORMED),
        'PUBLISH with a response topic that is no UTF-8': (published((RESPONSE_TOPIC, SURROGATE)), MALFORMED),
        'PUBLISH with a response topic with #': (published((RESPONSE_TOPIC, b'a/#')), BAD_TOPIC),
        'PUBLISH with a response topic with +': (published((RESPONSE_TOPIC, b'+')), BAD_TOPIC),
        'PUBLISH with a user property whose name is no UTF-8': (published((USER, (SURROGATE, b''))), MALFORMED),
        'PUBLISH with a user property whose value holds U+0000': (published((USER, (b'', ZERO))), MALFORMED),
        'PUBLISH with a subscription identifier': (published((SUBSCRIPTION, 1)), PROTOCOL),
        'PUBLISH with alias 0': (published((ALIAS, 0)), BAD_ALIAS),
        'PUBLISH with alias 65': (published((ALIAS, 65)), BAD_ALIAS),
        'PUBLISH with an alias that is not known': (published((ALIAS, 1), topic=b''), PROTOCOL),
        'SUBSCRIBE without length of properties': (packet(0x82, u16(1)), MALFORMED),
        'SUBSCRIBE with subscription identifier 0': (subscribe(5, (b't', 0), props=[(SUBSCRIPTION, 0)]), PROTOCOL),
        'SUBSCRIBE with two subscription identifiers': (subscribe(5, (b't', 0), props=[(SUBSCRIPTION, 1)] * 2), PROTOCOL),
        'SUBSCRIBE with retain handling 3': (subscribe(5, (b't', 0x30)), PROTOCOL),
        'SUBSCRIBE to a share without own messages': (subscribe(5, (b'$share/g/t', 4)), PROTOCOL),
        'UNSUBSCRIBE with a property of SUBSCRIBE': (with_set(0xa2, b'\x0b\1', after=text(b't')), MALFORMED),
        'DISCONNECT with an unknown reason': (b'\xe0\1\3', PROTOCOL),
        'DISCONNECT with a property of PUBLISH': (packet(0xe0, b'\0\2\1\1'), MALFORMED),
        'DISCONNECT with a session expiry where there was none': (packet(0xe0, b'\0', b'\5', expiry), PROTOCOL),
        'AUTH without a method': (b'\xf0\1\x18', PROTOCOL),
        'AUTH with a method': (packet(0xf0, b'\x19', properties([(0x15, b'm')])), PROTOCOL),
        'AUTH with an unknown reason': (packet(0xf0, b'\1', properties([(0x15, b'm')])), PROTOCOL),
    }
    for first, name in ((0x40, 'PUBACK'), (0x50, 'PUBREC'), (0x62, 'PUBREL'), (0x70, 'PUBCOMP')):
        cases[name + ' with an unknown reason'] = (answer(first, 1, b'\1'), PROTOCOL)
        cases[name + ' with a property of PUBLISH'] = (answer(first, 1, b'\0\2\1\1'), MALFORMED)
        cases[name + ' with two reason strings'] = (answer(first, 1, b'\0\x08', 2 * b'\x1f\0\1a'), PROTOCOL)
    for name in (b'$share/', b'$share/g', b'$share/g/', b'$share//t', b'$share/+/t', b'$share/g#/t'):
        cases['SUBSCRIBE to ' + name.decode()] = (subscribe(5, (name, 0)), BAD_FILTER)
    return cases


@pytest.mark.parametrize('version, name', [(version, name) for version in BOTH for name in packets_of(version)],
                         ids=lambda value: {4: '3.1.1', 5: '5.0'}.get(value, value))
def test_a_packet_that_breaks_the_rules_ends_the_connection(server, version, name):
    """What lies behind it is not looked at."""
    data, reason = packets_of(version)[name]
    with Wire(server).connected(version, b'broken') as wire:
        wire.send(data + PING)
        wire.refused(reason)


@pytest.mark.parametrize('first', [publish(4, b't'), subscribe(4, (b't', 0)), PING, b'\xe0\0', b'\xf0\0', answer(0x62, 1), b'\x20\2\0\0', b'\0'],
                         ids=['PUBLISH', 'SUBSCRIBE', 'PINGREQ', 'DISCONNECT', 'AUTH', 'PUBREL', 'CONNACK', 'nothing known'])
def test_nothing_but_a_connect_comes_first(server, first):
    assert answers(server, first + connect(5, b'late')) == b''
