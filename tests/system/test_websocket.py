"""WebSocket: the upgrade and the frames, right and wrong, over raw sockets; and third-party clients."""
import json
import shutil
import struct
import subprocess

import pytest

from client import V311, V5
from doors import (BINARY, CLOSE, CONNACK, CONNECT, CONTINUATION, PING, PONG, TEXT, Authority, RawWebSocket, frame, tls_settings,
                   websocket_settings)
from spindle import DEADLINE_S, ROOT, free_port, wait_until

PINGREQ, PINGRESP = b'\xc0\x00', b'\xd0\x00'
BIG = bytes(range(256)) * 1055  # 270 kB, more than any buffer takes at once
PACKET_MAX = 1 << 20
MQTT_JS = ROOT / 'build' / 'node' / 'node_modules' / 'mqtt'


@pytest.fixture
def server(spindle):
    server = spindle(settings=websocket_settings()).start()
    server.websocket_port = int(server.settings['bus.websocket.port'])
    return server


@pytest.fixture
def raw(server):
    sockets = []

    def make():
        sockets.append(RawWebSocket(server.websocket_port))
        return sockets[-1]
    yield make
    for one in sockets:
        one.socket.close()


# ---- the upgrade ----

def test_an_upgrade_is_answered_as_the_standard_says(raw):
    one = raw()
    # The example of RFC 6455, section 1.3.
    one.send(one.request(Sec_WebSocket_Key='dGhlIHNhbXBsZSBub25jZQ=='))
    status, headers = one.answer()
    assert status == 101 and headers['sec-websocket-accept'] == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
    assert headers['upgrade'].lower() == 'websocket' and headers['connection'].lower() == 'upgrade'
    assert headers['sec-websocket-protocol'] == 'mqtt' and 'sec-websocket-extensions' not in headers


@pytest.mark.parametrize('status, changes', [
    (404, {'path': '/'}),
    (404, {'path': '/mqtt/'}),
    (404, {'path': '/MQTT'}),
    (405, {'method': 'POST'}),
    (505, {'http': 'HTTP/1.0'}),
    (505, {'http': 'HTTP/2.0'}),
    (400, {'http': 'HTCPCP/1.0'}),
    (400, {'path': '/mqtt x'}),
    (400, {'Host': None}),
    (400, {'Host': ['a', 'b']}),
    (400, {'Content_Length': '5'}),
    (400, {'Transfer_Encoding': 'chunked'}),
    (426, {'Upgrade': None}),
    (426, {'Upgrade': 'h2c'}),
    (426, {'Connection': 'keep-alive'}),
    (426, {'Sec_WebSocket_Version': '8'}),
    (426, {'Sec_WebSocket_Version': None}),
    (426, {'Sec_WebSocket_Version': ['13', '13']}),
    (400, {'Sec_WebSocket_Key': None}),
    (400, {'Sec_WebSocket_Key': 'dGhlIHNhbXBsZSBub25jZQ'}),
    (400, {'Sec_WebSocket_Key': 'dGhlIHNhbXBsZSBub25jZR=='}),
    (400, {'Sec_WebSocket_Key': ['dGhlIHNhbXBsZSBub25jZQ=='] * 2}),
    (400, {'Sec_WebSocket_Protocol': None}),
    (400, {'Sec_WebSocket_Protocol': 'chat, mqttv3.1'}),
    (400, {'X_Bell': 'a\x07b'}),
    (400, {'X Space': 'a'}),
    (431, {'X_Long': 'a' * 9000}),
    (431, {'X_Many': ['a'] * 60}),
])
def test_other_requests_are_refused_with_a_reason(server, raw, status, changes):
    one = raw()
    one.send(one.request(**changes))
    told, headers = one.answer()
    assert told == status
    body = one.take(int(headers['content-length']))
    assert len(body) > 10
    one.expect_end()
    if status == 426:
        assert headers['upgrade'] == 'websocket' and headers['sec-websocket-version'] == '13'
    metrics = wait_until(lambda: (m := server.metrics()).get_sum('spindle_bus_handshakes_failed_total', reason='websocket') == 1 and m,
                         'the failure is counted')
    assert metrics.get_sum('spindle_bus_disconnects_total', reason='handshake') == 1
    assert 'the handshake with 127.0.0.1:' in server.stderr()


def test_what_is_no_http_is_refused(raw):
    for bytes_ in (CONNECT + b'\r\n\r\n', b'\r\n\r\n', b'GET\r\n\r\n', b'GET /mqtt HTTP/1.1\r\nHost : a\r\n\r\n', b'x' * 8192):
        one = raw()
        one.send(bytes_)
        assert one.answer()[0] in (400, 431)


def test_words_of_headers_have_no_case_and_may_stand_in_several(raw):
    one = raw()
    one.send(one.request(path='/mqtt?token=x', Upgrade='WebSocket', Connection=['keep-alive', 'upgrade'],
                         Sec_WebSocket_Protocol=['chat', 'mqtt'], Sec_WebSocket_Extensions='permessage-deflate'))
    assert one.answer()[0] == 101


def test_everything_may_come_byte_by_byte(raw):
    one = raw()
    for byte in one.request():
        one.send(bytes([byte]))
    assert one.answer()[0] == 101
    for byte in frame(BINARY, CONNECT) + frame(BINARY, PINGREQ):
        one.send(bytes([byte]))
    assert one.next_mqtt(4) == CONNACK
    assert one.next_mqtt(2) == PINGRESP


def test_request_and_frames_may_come_at_once(raw):
    one = raw()
    one.send(one.request() + frame(BINARY, CONNECT) + frame(BINARY, PINGREQ))
    assert one.answer()[0] == 101
    assert one.next_mqtt(6) == CONNACK + PINGRESP


def test_another_path(spindle):
    server = spindle(settings=websocket_settings(path='/')).start()
    with RawWebSocket(int(server.settings['bus.websocket.port'])) as one:
        one.send(one.request(path='/'))
        assert one.answer()[0] == 101


# ---- frames ----

def test_packets_may_be_cut_in_any_way(raw):
    one = raw().upgrade()
    stream = CONNECT + PINGREQ * 5
    for at in range(0, len(stream), 3):  # packets over messages, in fragments, with a ping in between
        one.send(frame(BINARY, stream[at:at + 1], final=False) + frame(PING, b'x') + frame(CONTINUATION, b'', final=False) +
                 frame(CONTINUATION, stream[at + 1:at + 3]))
    mqtt, pongs = b'', 0
    while len(mqtt) < 14:
        opcode, payload = one.next()
        if opcode == PONG:
            assert payload == b'x'
            pongs += 1
        else:
            assert opcode == BINARY
            mqtt += payload
    assert mqtt == CONNACK + PINGRESP * 5 and pongs >= 1


@pytest.mark.parametrize('content', [b'', b'a', b'x' * 125])
def test_a_ping_is_answered(raw, content):
    one = raw().connect()
    one.send(frame(PING, content))
    assert one.next() == (PONG, content)


def test_a_pong_that_nobody_asked_for_is_let_be(raw):
    one = raw().connect()
    one.send(frame(PONG, b'hello') + frame(BINARY, PINGREQ))
    assert one.next_mqtt(2) == PINGRESP


WRONG = {
    'not masked': (1002, frame(BINARY, CONNECT, masked=False)),
    'text': (1003, frame(TEXT, b'hello')),
    'reserved bit': (1002, frame(BINARY, CONNECT, reserved=0x40)),
    'unknown opcode': (1002, frame(3, b'')),
    'unknown control': (1002, frame(11, b'')),
    'continuation of nothing': (1002, frame(CONTINUATION, CONNECT)),
    'message in a message': (1002, frame(BINARY, b'\x10', final=False) + frame(BINARY, b'\x0d')),
    'long ping': (1002, frame(PING, b'x' * 126)),
    'ping in parts': (1002, frame(PING, b'x', final=False)),
    'length not short': (1002, b'\x82\xfe\x00\x05' + bytes(4) + b'hello'),
    'length 64 not short': (1002, b'\x82\xff' + struct.pack('>Q', 65535) + bytes(4)),
    'length negative': (1002, b'\x82\xff' + struct.pack('>Q', 1 << 63) + bytes(4)),
    'too large': (1009, frame(BINARY, b'', length=PACKET_MAX + 1)),
    'far too large': (1009, frame(BINARY, b'', length=1 << 40)),
    'close without a whole code': (1002, frame(CLOSE, b'\x03')),
    'close with no code': (1002, frame(CLOSE, struct.pack('>H', 1005))),
    'close with 999': (1002, frame(CLOSE, struct.pack('>H', 999))),
    'close with bad text': (1007, frame(CLOSE, struct.pack('>H', 1000) + b'\xff\xfe')),
}


@pytest.mark.parametrize('name', WRONG)
def test_a_wrong_frame_ends_the_connection_with_its_code(spindle, name):
    server = spindle(settings={**websocket_settings(), 'bus.packet_size_max': PACKET_MAX}).start()
    code, bytes_ = WRONG[name]
    with RawWebSocket(int(server.settings['bus.websocket.port'])) as one:
        one.connect()
        one.send(bytes_)
        one.expect_close(code)
    if not name.startswith('close'):
        assert server.metrics().get_sum('spindle_bus_disconnects_total', reason='protocol') == 1


def test_who_is_in_the_middle_of_a_large_frame_sees_why_it_is_refused(raw):
    one = raw().connect()
    one.send(frame(BINARY, bytes(20 << 20)))  # all of it, before anything is read
    one.expect_close(1009)


def test_who_sends_a_body_sees_why_it_is_refused(raw):
    one = raw()
    one.send(one.request(method='POST', Content_Length='10000000') + bytes(10000000))
    assert one.answer()[0] == 405


def test_the_largest_frame_is_taken(spindle):
    server = spindle(settings={**websocket_settings(), 'bus.packet_size_max': PACKET_MAX}).start()
    with RawWebSocket(int(server.settings['bus.websocket.port'])) as one:
        one.connect()
        one.send(frame(BINARY, PINGREQ * (PACKET_MAX // 2)))
        answers = b''
        while len(answers) < PACKET_MAX:
            answers += one.next()[1]
        assert answers == PINGRESP * (PACKET_MAX // 2)


@pytest.mark.parametrize('payload', [b'', struct.pack('>H', 1000) + 'Grüße'.encode(), struct.pack('>H', 4999)])
def test_a_close_is_echoed(raw, payload):
    one = raw().connect()
    one.send(frame(CLOSE, payload))
    one.expect_close(struct.unpack('>H', payload[:2])[0] if payload else None)


def test_a_close_without_disconnect_sends_the_will(server, raw, connect):
    watcher = connect(server)
    watcher.subscribe('will')
    one = raw().upgrade()
    one.send(frame(BINARY, b'\x10\x17\x00\x04MQTT\x04\x06\x00\x3c\x00\x01w\x00\x04will\x00\x02hi'))
    assert one.next_mqtt(4) == CONNACK
    one.send(frame(CLOSE, struct.pack('>H', 1001)))
    one.expect_close(1001)
    assert watcher.take()[0].payload == b'hi'


def test_the_server_closes_in_order(server, raw):
    one = raw().connect()
    one.send(frame(BINARY, b'\xe0\x00'))  # DISCONNECT
    one.expect_close(1000)
    other = raw().connect()
    server.stop()
    other.expect_close(1000)


def test_pings_without_end_from_one_who_reads_nothing_take_no_memory(server, raw, connect):
    one = raw().connect()
    before = server.metrics().get_sum('process_resident_memory_bytes')
    burst = b''.join(frame(PING, b'x' * 125) for _ in range(2000))
    for _ in range(40):  # 10 MB, far more than the sockets hold of pongs
        one.send(burst)
    one.send(frame(BINARY, PINGREQ))
    pongs = 0
    while True:
        opcode, payload = one.next()
        if opcode == BINARY:
            assert payload == PINGRESP
            break
        assert (opcode, payload) == (PONG, b'x' * 125)
        pongs += 1
    assert pongs >= 1
    assert server.metrics().get_sum('process_resident_memory_bytes') - before < 32 << 20


# ---- clients that others wrote ----

@pytest.fixture(params=['ws', 'wss'])
def way(request, spindle, tmp_path):
    """(server, port, options of a paho client) of each kind."""
    if request.param == 'ws':
        server = spindle(settings=websocket_settings()).start()
        return server, int(server.settings['bus.websocket.port']), {'transport': 'websockets'}
    authority = Authority(tmp_path)
    settings = {**tls_settings(authority.issue_server()), 'bus.websocket_tls.enabled': 'true', 'bus.websocket_tls.host': '127.0.0.1',
                'bus.websocket_tls.port': free_port(), 'bus.tls.enabled': 'false'}
    server = spindle(settings=settings).start()
    server.authority = authority
    return server, settings['bus.websocket_tls.port'], {'transport': 'websockets', 'tls': authority.context()}


@pytest.mark.parametrize('version', [V311, V5])
def test_paho(way, connect, version):
    server, port, options = way
    server.plain_port, server.port = server.port, port
    subscriber, publisher = connect(server, version=version, **options), connect(server, version=version, **options)
    server.port = server.plain_port
    assert subscriber.subscribe('big/#', qos=2) == [2]
    publisher.publish_all([('big/%d' % i, BIG) for i in range(20)])
    publisher.publish('big/twice', b'exactly', qos=2)
    messages = subscriber.take(21)
    assert all(m.payload == BIG for m in messages[:20]) and messages[20].payload == b'exactly'
    assert len(server.journal('bus')) == 21
    metrics = server.metrics()
    assert metrics.get_sum('spindle_bus_transport_connections', transport='websocket_tls' if 'tls' in options else 'websocket') == 2
    assert metrics.get_sum('spindle_bus_handshakes') == 0


MQTT_JS_CLIENT = '''
const mqtt = require(process.argv[2]), fs = require('fs');
const [url, version, size, ca] = [process.argv[3], Number(process.argv[4]), Number(process.argv[5]), process.argv[6]];
const client = mqtt.connect(url, {protocolVersion: version, reconnectPeriod: 0, ca: ca ? fs.readFileSync(ca) : undefined});
const payload = Buffer.alloc(size, 'abcdefg');
let received = 0, acknowledged = 0;
const count = 20;
function finish() {
    if (received === count && acknowledged === count)
        client.end(false, {}, () => console.log(JSON.stringify({received, acknowledged})));
}
client.on('error', error => { console.error(String(error)); process.exit(1); });
client.on('message', (topic, message) => {
    if (topic !== 'js/' + received || !message.equals(payload)) { console.error('another message', topic); process.exit(1); }
    received++;
    finish();
});
client.on('connect', () => client.subscribe('js/#', {qos: 1}, error => {
    if (error) throw error;
    for (let i = 0; i < count; i++)
        client.publish('js/' + i, payload, {qos: 1}, error => { if (error) throw error; acknowledged++; finish(); });
}));
'''


@pytest.mark.skipif(not shutil.which('node') or not MQTT_JS.is_dir(), reason='mqtt.js is not installed (make build/node/.ready, with npm)')
@pytest.mark.parametrize('version', [4, 5])
@pytest.mark.parametrize('size', [200, len(BIG)])
def test_mqtt_js(way, tmp_path, version, size):
    server, port, options = way
    script = tmp_path / 'client.js'
    script.write_text(MQTT_JS_CLIENT)
    secure = 'tls' in options
    url = '%s://localhost:%d/mqtt' % ('wss' if secure else 'ws', port)
    command = ['node', script, MQTT_JS, url, str(version), str(size)] + ([server.authority.path] if secure else [])
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3 * DEADLINE_S, text=True)
    assert done.returncode == 0 and json.loads(done.stdout) == {'received': 20, 'acknowledged': 20}, done.stderr
    assert len(server.journal('bus')) == 20
