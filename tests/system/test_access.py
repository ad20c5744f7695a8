"""Who may connect, publish and subscribe: passwords, rules, quotas, and their reload, with third-party clients."""
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from client import V5, V311, Client, RawClient, Refused
from doors import Authority, all_ways, tls_settings
from sessions import Visit, payloads, put
from spindle import BINARY, DEADLINE_S, run_cli, wait_until

VERSIONS = pytest.mark.parametrize('version', [V311, V5], ids=['3.1.1', '5.0'])
BAD_IDENTIFIER, BAD_CREDENTIALS, NOT_AUTHORIZED, BUSY, QUOTA = 0x85, 0x86, 0x87, 0x89, 0x97
USERS = {'tool-7': 'seven', 'tool-8': 'eight', 'admin': 'root of all'}
RULES = '''
rules:
  - {user: "tool-*", publish: ["OPCPUBSUB/%u/#"], subscribe: ["commands/%u/#"]}
  - {user: "*", client: "hmi-*", subscribe: ["results/+/depth"]}
  - {client: "own-*", publish: ["by/%c"], subscribe: ["to/%c"]}
  - {user: admin, publish: ["#"], subscribe: ["#"]}
'''


def set_password(path, user, password):
    done = subprocess.run([BINARY, 'passwd', str(path), user], input=password + '\n', text=True, capture_output=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def users_text(tmp_path_factory):
    """The content of a file of USERS, made once."""
    path = tmp_path_factory.mktemp('users') / 'users.txt'
    for user, password in USERS.items():
        set_password(path, user, password)
    return path.read_text()


@pytest.fixture
def make(spindle, users_text):
    """make(rules, **settings) starts a server with USERS and these rules; server.rules and server.users are its files."""
    def start(rules=RULES, users=users_text, **settings):
        server = spindle(settings=dict({'http.changes': 'loopback'}, **settings))
        server.users, server.rules = server.folder / 'users.txt', server.folder / 'rules.yaml'
        server.users.write_text(users)
        server.settings['access.users'] = str(server.users)
        if rules is not None:
            server.rules.write_text(rules)
            server.settings['access.rules'] = str(server.rules)
        return server.start()
    return start


def denied(server, reason):
    return server.metrics().get_sum('spindle_access_denied_total', reason=reason)


def denials(server):
    status, _, text = server.http('/api/v1/access/denials')
    assert status == 200
    return json.loads(text)['denials']


def code_of(refusal):
    """The reason of a refused CONNECT, as MQTT 5 has it (paho translates those of 3.1.1)."""
    return refusal.value.code.value


def reload(server):
    """POST /api/v1/reload; returns (status, answer)."""
    request = urllib.request.Request('http://127.0.0.1:%d/api/v1/reload' % server.http_port, data=b'{}', method='POST',
                                     headers={'Content-Type': 'application/json'})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.loads(refusal.read())


def own_address():
    """An IPv4 address of this machine that is not loopback; what is sent to it does not leave the machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(('192.0.2.1', 9))  # sends nothing
        except OSError:
            pytest.skip('this machine has no address beside loopback')
        address = probe.getsockname()[0]
    if address.startswith('127.'):
        pytest.skip('this machine has no address beside loopback')
    return address


# ---- who is let in ----

@VERSIONS
def test_a_password_lets_in_and_another_does_not(make, connect, version):
    server = make(rules=None)
    connect(server, version=version, user='tool-7', password='seven').publish('a', b'x')
    for user, password in (('tool-7', 'eight'), ('tool-7', ''), ('tool-9', 'seven'), ('', 'seven'), ('tool-7 ', 'seven'),
                           ('tool-7', 'seven\0'), ('tool-7', 'x' * 5000), ('x' * 5000, 'x')):
        with pytest.raises(Refused) as refusal:
            connect(server, version=version, user=user, password=password)
        assert code_of(refusal) == BAD_CREDENTIALS
    assert denied(server, 'credentials') == 8
    assert server.metrics().get_sum('spindle_access_logins_total', way='password') == 1
    assert 'seven' not in server.stderr()
    last = denials(server)[0]
    assert (last['reason'], last['user'], last['topic']) == ('credentials', 'x' * 200, None)


def test_a_user_name_without_a_password_is_refused(make, connect):
    server = make(rules=None)
    with pytest.raises(Refused) as refusal:
        connect(server, version=V5, user='tool-7')
    assert code_of(refusal) == BAD_CREDENTIALS


@VERSIONS
def test_nameless_clients_are_let_in_as_the_setting_says(make, connect, version):
    outside = own_address()
    for setting, here, there in (('never', False, False), ('loopback', True, False), ('always', True, True)):
        server = make(rules=None, **{'access.anonymous': setting, 'bus.host': '0.0.0.0'})
        for host, allowed in (('127.0.0.1', here), (outside, there)):
            if allowed:
                connect(server, version=version, host=host).publish('a', b'x')
            else:
                with pytest.raises(Refused) as refusal:
                    connect(server, version=version, host=host)
                assert code_of(refusal) == NOT_AUTHORIZED
        connect(server, version=version, host=outside, user='tool-7', password='seven').publish('a', b'x')
        assert denied(server, 'anonymous') == [here, there].count(False)
        assert ('access.anonymous' in server.stderr()) == (not there)


def test_the_loopback_of_ipv6_is_this_machine(make, connect):
    if not os.path.exists('/proc/net/if_inet6') or '00000000000000000000000000000001' not in open('/proc/net/if_inet6').read():
        pytest.skip('this machine has no ::1')
    connect(make(rules=None, **{'bus.host': '::1'}), host='::1').publish('a', b'x')


def test_without_users_names_are_not_looked_at_but_do_not_open_the_door(spindle, connect):
    server = spindle(settings={'bus.host': '0.0.0.0'}).start()
    connect(server, user='anybody', password='anything').publish('a', b'x')
    with pytest.raises(Refused) as refusal:
        connect(server, host=own_address(), version=V5, user='anybody', password='anything')
    assert code_of(refusal) == NOT_AUTHORIZED


def test_a_certificate_is_a_user_without_a_password(make, connect, tmp_path):
    authority = Authority(tmp_path)
    server = make(**tls_settings(authority.issue_server(), client_certificate='optional', client_ca=authority.path),
                  **{'access.anonymous': 'never'})
    port = server.settings['bus.tls.port']

    def secure(certificate, **options):
        context = authority.context(certificate)
        client = Client(port, version=V5, host='localhost', tls=context, **options)
        return client
    tool = authority.issue('/CN=tool-9')
    with secure(tool) as client:
        assert client.subscribe('commands/tool-9/#', 'commands/tool-7/#') == [1, NOT_AUTHORIZED]
    with secure(tool, user='admin') as client:  # a name alone does not make it another user
        assert client.subscribe('commands/tool-9/#', '#') == [1, NOT_AUTHORIZED]
    with secure(tool, user='admin', password='root of all') as client:  # a password does
        assert client.subscribe('#') == [1]
    with secure(None, user='tool-7', password='seven') as client:
        assert client.subscribe('commands/tool-7/#') == [1]
    with pytest.raises(Refused) as refusal:
        secure(None)
    assert code_of(refusal) == NOT_AUTHORIZED
    assert server.metrics().get_sum('spindle_access_logins_total', way='certificate') == 2


def test_every_way_in_asks_for_the_password(make, connect, tmp_path):
    authority = Authority(tmp_path)
    server = make(rules=None, **all_ways(authority, tmp_path))
    ways = {'tls': dict(transport='tcp', tls=True), 'websocket': dict(transport='websockets'),
            'websocket_tls': dict(transport='websockets', tls=True), 'unix': dict(transport='unix')}
    for way, options in ways.items():
        options['tls'] = authority.context() if options.get('tls') else None
        port = 1 if way == 'unix' else server.settings['bus.%s.port' % way]
        host = str(server.settings['bus.unix.path']) if way == 'unix' else 'localhost'
        with Client(port, host=host, user='tool-7', password='seven', **options) as client:
            client.publish('a', b'x')
        with pytest.raises(Refused) as refusal:
            Client(port, host=host, version=V5, user='tool-7', password='six', **options)
        assert code_of(refusal) == BAD_CREDENTIALS
        with Client(port, host=host, **options) as client:  # all of them are on this machine
            client.publish('a', b'x')


def test_mosquitto_clients_log_in(make, tmp_path):
    server = make()
    base = ['mosquitto_pub', '-p', str(server.port), '-q', '1', '-t', 'OPCPUBSUB/tool-7/x', '-m', 'y', '-u', 'tool-7']
    assert subprocess.run(base + ['-P', 'seven'], timeout=DEADLINE_S).returncode == 0
    assert subprocess.run(base + ['-P', 'six'], timeout=DEADLINE_S, capture_output=True).returncode != 0
    assert subprocess.run(base + ['-V', '5', '-P', 'seven'], timeout=DEADLINE_S).returncode == 0


def test_many_clients_at_once_are_let_in(make):
    """One hash for all of them: who was let in a moment ago is known again."""
    server, count = make(rules=None), 400
    connect_packet = b'\x00\x04MQTT\x04\xc2\x00\x3c'
    sockets = []
    begin = time.monotonic()
    for i in range(count):
        client = socket.create_connection(('127.0.0.1', server.port), DEADLINE_S)
        body = connect_packet + b''.join(struct.pack('>H', len(t)) + t for t in (b'storm-%d' % i, b'tool-7', b'seven'))
        client.sendall(bytes([0x10, len(body)]) + body)
        sockets.append(client)
    for client in sockets:
        assert client.recv(4) == b'\x20\x02\x00\x00'
        client.close()
    assert time.monotonic() - begin < 10
    metrics = server.metrics()
    assert metrics.get_sum('spindle_access_checks_total', how='hashed') <= 16
    assert metrics.get_sum('spindle_access_checks_total', how='remembered') >= count - 16
    assert metrics.get_sum('spindle_access_checks_waiting') == 0


def test_who_is_in_is_served_while_passwords_are_checked(make, connect):
    """Wrong passwords cost the full price each; they are checked beside the event loops."""
    server = make(rules=None, **{'access.checks_max': '20', 'access.login_cache_s': '0'})
    client = connect(server, user='tool-7', password='seven')
    client.subscribe('echo', qos=0)
    sockets = []
    for i in range(60):
        attacker = socket.create_connection(('127.0.0.1', server.port), DEADLINE_S)
        body = b'\x00\x04MQTT\x05\xc2\x00\x3c\x00' + b''.join(struct.pack('>H', len(t)) + t for t in (b'bad-%d' % i, b'tool-7', b'no'))
        attacker.sendall(bytes([0x10, len(body)]) + body)
        sockets.append(attacker)
    slowest = 0
    for _ in range(20):
        begin = time.monotonic()
        client.publish('echo', b'', qos=0)
        client.take()
        slowest = max(slowest, time.monotonic() - begin)
    answers = [attacker.recv(64)[3] for attacker in sockets]
    assert set(answers) == {BAD_CREDENTIALS, BUSY}, 'the queue of checks has an end'
    assert slowest < 1
    assert denied(server, 'busy') == answers.count(BUSY) and denied(server, 'credentials') == answers.count(BAD_CREDENTIALS)


def test_a_client_does_not_wait_for_ever_to_be_checked(make):
    server = make(rules=None, **{'access.check_timeout_s': '1', 'access.login_cache_s': '0'})
    sockets = []
    for i in range(300):  # more than a second's work
        client = socket.create_connection(('127.0.0.1', server.port), DEADLINE_S)
        body = b'\x00\x04MQTT\x04\xc2\x00\x3c' + b''.join(struct.pack('>H', len(t)) + t for t in (b'c-%d' % i, b'tool-7', b'no'))
        client.sendall(bytes([0x10, len(body)]) + body)
        sockets.append(client)
    answers = [client.recv(4)[3] for client in sockets]
    assert set(answers) == {4, 3}
    assert denied(server, 'busy') == answers.count(3)


def test_a_client_identifier_belongs_to_the_user_who_has_it(make, connect):
    server = make(rules=None)
    first = connect(server, 'same', user='tool-7', password='seven')
    for options in ({'user': 'tool-8', 'password': 'eight'}, {}):
        for version in (V311, V5):
            with pytest.raises(Refused) as refusal:
                connect(server, 'same', version=version, **options)
            assert code_of(refusal) == BAD_IDENTIFIER
    first.publish('a', b'still here')
    assert denied(server, 'client_id') == 4
    connect(server, 'same', user='tool-7', password='seven').publish('a', b'taken over')
    first.wait_disconnected()


@pytest.mark.parametrize('end', ['away', 'stop', 'kill'])
def test_a_session_belongs_to_the_user_who_began_it(make, end):
    """Also while its client is away, and after a restart; a clean start does not end that of another."""
    server = make(rules=None)
    mine = (b'tool-7', b'seven')
    with Visit(server, b'same', login=mine) as visit:
        visit.subscribe(b't', qos=1)
        visit.leave()
    if end != 'away':
        server.stop() if end == 'stop' else server.kill()
        server.start()
    put(server, b't', b'secret')
    for clean in (False, True):
        for login in ((b'tool-8', b'eight'), None):
            with Visit(server, b'same', login=login, clean=clean) as visit, Visit(server, b'same', 4, login=login, clean=clean) as old:
                assert (visit.present, visit.reason) == (0, BAD_IDENTIFIER) and (old.present, old.reason) == (0, 2)
    assert denied(server, 'client_id') == 8
    with Visit(server, b'same', login=mine) as visit:
        assert visit.present == 1 and payloads(visit.take_rest(server, b't')) == [b'secret']


# ---- rules ----

@pytest.mark.parametrize('qos', [0, 1, 2])
def test_a_denied_publish_is_answered_in_mqtt_5(make, connect, qos):
    server = make()
    watcher = connect(server, user='admin', password='root of all')
    watcher.subscribe('#')
    client = connect(server, version=V5, user='tool-7', password='seven')
    reasons = {}
    client.paho.on_publish = lambda paho, data, identifier, reason, properties: reasons.__setitem__(identifier, reason.value)
    wrong = client.post('OPCPUBSUB/tool-8/x', b'no', qos)
    right = client.post('OPCPUBSUB/tool-7/x', b'yes', qos)
    wait_until(lambda: right.mid in reasons and wrong.mid in reasons, 'both were answered')
    assert reasons[right.mid] == 0
    if qos < 2:  # paho goes on with PUBREL after a PUBREC that refuses; see test_refusals_leave_in_order_with_acknowledgements
        assert reasons[wrong.mid] == (NOT_AUTHORIZED if qos else 0)
    assert watcher.take()[0].payload == b'yes' and watcher.inbox.empty()
    assert denied(server, 'publish') == 1
    [entry] = denials(server)
    assert (entry['user'], entry['client'], entry['topic'], entry['reason']) == ('tool-7', client.id, 'OPCPUBSUB/tool-8/x', 'publish')
    assert entry['peer'].startswith('127.0.0.1:')


@pytest.mark.parametrize('qos', [0, 1, 2])
def test_a_denied_publish_ends_the_connection_in_3_1_1(make, connect, qos):
    """There is no word for it, and an acknowledgement would say that the message is kept. QoS 0 is dropped."""
    server = make()
    client = connect(server, user='tool-7', password='seven')
    acknowledged = []
    client.paho.on_publish = lambda *_: acknowledged.append(True)
    client.post('elsewhere', b'no', qos)
    if qos:
        client.wait_disconnected()
        assert not acknowledged
    else:
        client.publish('OPCPUBSUB/tool-7/x', b'yes')
    assert denied(server, 'publish') == 1
    assert server.metrics().get_sum('spindle_bus_disconnects_total', reason='denied') == (1 if qos else 0)
    assert all(record['topic'] != 'elsewhere' for record in server.journal('bus'))


def publish_packet(topic, packet_id, qos):
    body = struct.pack('>H', len(topic)) + topic + struct.pack('>H', packet_id) + b'\x00x'
    return bytes([0x30 | qos << 1, len(body)]) + body


@pytest.mark.parametrize('qos', [1, 2])
def test_refusals_leave_in_order_with_acknowledgements(make, qos):
    """Good messages are acknowledged when they are on disk, refused ones need not wait for it; still they leave as they came."""
    server, count = make(), 200
    with RawClient(server.port) as client:
        body = b'\x00\x04MQTT\x05\xc2\x00\x3c\x00' + b''.join(struct.pack('>H', len(t)) + t for t in (b'raw', b'tool-7', b'seven'))
        client.send(bytes([0x10, len(body)]) + body)
        head = client.read(2)
        assert head[0] == 0x20 and client.read(head[1])[1] == 0
        allowed = [i % 3 != 1 for i in range(count)]
        client.send(b''.join(publish_packet(b'OPCPUBSUB/tool-7/x' if good else b'no', i + 1, qos) for i, good in enumerate(allowed)))
        answers = []
        for _ in range(count):
            head = client.read(2)
            assert head[0] == (0x40 if qos == 1 else 0x50)
            answers.append(client.read(head[1]))
        assert [struct.unpack('>H', answer[:2])[0] for answer in answers] == list(range(1, count + 1))
        assert [len(answer) == 2 or answer[2] == 0 for answer in answers] == allowed
        assert {answer[2] for answer, good in zip(answers, allowed) if not good} == {NOT_AUTHORIZED}
        if qos == 2:  # a refused identifier is free again
            client.send(publish_packet(b'no', 2, 2))
            head = client.read(2)
            assert client.read(head[1])[:3] == b'\x00\x02\x87'


@VERSIONS
def test_subscriptions_are_decided_one_by_one(make, connect, version):
    server = make()
    client = connect(server, 'hmi-1', version=version, user='tool-7', password='seven')
    refused = NOT_AUTHORIZED if version == V5 else 0x80
    wanted = ['commands/tool-7/#', 'commands/tool-7', 'commands/tool-7/a/+', 'results/+/depth', 'results/1/depth',
              'commands/#', '$share/g/#', 'commands/+/a', '#', '+/tool-7/#', 'commands/tool-8/#', 'results/#', 'results/+/+', '$SYS/#']
    assert client.subscribe(*wanted) == [1] * 5 + [refused] * 9
    assert denied(server, 'subscribe') == 9
    admin = connect(server, version=version, user='admin', password='root of all')
    assert admin.subscribe('#', '$SYS/#') == [1, refused], '# is not meant for topics with $'
    admin.publish('commands/tool-8/x', b'no')
    admin.publish('commands/tool-7/x', b'yes')
    assert {message.payload for message in admin.take(2)} == {b'no', b'yes'}
    assert client.take()[0].payload == b'yes'
    assert client.inbox.empty()


def test_patterns_stand_for_the_own_names(make, connect):
    server = make()
    client = connect(server, 'own-1', version=V5)
    assert client.subscribe('to/own-1', 'to/own-2', 'to/+') == [1, NOT_AUTHORIZED, NOT_AUTHORIZED]
    for name in ('own-/', 'own-+', 'own-#', 'own-a/b', 'own-+/x'):
        odd = connect(server, name, version=V5)
        assert odd.subscribe('to/' + (name if '#' not in name and '+' not in name else 'x')) == [NOT_AUTHORIZED]
        assert odd.subscribe('to/+', 'to/#', 'to/+/x', '#') == [NOT_AUTHORIZED] * 4
    nameless = connect(server, '', version=V5)
    assert nameless.subscribe('to/own-1') == [NOT_AUTHORIZED]


def test_a_user_with_a_wildcard_name_gets_no_wider_rule(make, connect, tmp_path):
    users = tmp_path / 'odd.txt'
    for name in ('+', 'x#', 'a/b', '$SYS'):
        set_password(users, name, 'x')
    server = make(rules='rules:\n  - {publish: ["%u", "%u/x", "in/%u/#"], subscribe: ["%u/#", "in/%u"]}\n', users=users.read_text())
    for name in ('+', 'x#', 'a/b', '$SYS'):
        client = connect(server, version=V5, user=name, password='x')
        assert set(client.subscribe('+/x', 'in/+', 'in/a/b', '$SYS/#', 'a/b/#')) == {NOT_AUTHORIZED}


@VERSIONS
def test_a_will_is_decided_at_connect(make, connect, version):
    server = make()
    with pytest.raises(Refused) as refusal:
        connect(server, version=version, user='tool-7', password='seven', will=('elsewhere', b'gone', 1))
    assert code_of(refusal) == NOT_AUTHORIZED
    assert denied(server, 'will') == 1
    assert denials(server)[0]['topic'] == 'elsewhere'
    connect(server, version=version, user='tool-7', password='seven', will=('OPCPUBSUB/tool-7/will', b'gone', 1))


def test_a_file_without_rules_for_anybody_closes_everything(make, connect):
    server = make(rules='rules: []\n')
    client = connect(server, version=V5, user='admin', password='root of all')
    assert client.subscribe('a') == [NOT_AUTHORIZED]
    assert client.post('a', b'', 1).rc == 0
    wait_until(lambda: denied(server, 'publish') == 1, 'the publish was denied')


# ---- quotas ----

def test_connections_of_a_user_are_limited(make, connect):
    server = make(rules='quotas:\n  - {user: "tool-*", connections: 2}\n')
    tool = {'user': 'tool-7', 'password': 'seven'}
    first = connect(server, 'one', **tool)
    connect(server, 'two', **tool)
    with pytest.raises(Refused) as refusal:
        connect(server, 'three', version=V5, **tool)
    assert code_of(refusal) == QUOTA
    with pytest.raises(Refused) as refusal:
        connect(server, 'three', **tool)
    assert denied(server, 'connections') == 2
    connect(server, 'two', **tool)  # who comes back takes its own place
    connect(server, 'four', user='tool-8', password='eight')  # another user has its own
    first.close()
    wait_until(lambda: server.metrics().get_sum('spindle_bus_connections') == 2, 'the first is gone')
    connect(server, 'three', **tool)


def test_sessions_of_a_user_are_limited(make, connect):
    server = make(rules='quotas:\n  - {user: "tool-*", sessions: 2}\n')
    tool = {'user': 'tool-7', 'password': 'seven'}
    for name in ('one', 'two'):
        connect(server, name, session_s=1000, version=V5, **tool).close()
    with pytest.raises(Refused) as refusal:
        connect(server, 'three', session_s=1000, version=V5, **tool)
    assert code_of(refusal) == QUOTA
    with pytest.raises(Refused) as refusal:
        connect(server, 'three', session_s=1000, **tool)
    assert code_of(refusal) == 0x88  # as paho names code 3
    assert denied(server, 'sessions') == 2
    denial = json.loads(server.http('/api/v1/access/denials')[2])['denials'][0]
    assert (denial['reason'], denial['user'], denial['client']) == ('sessions', 'tool-7', 'three')
    connect(server, 'three', **tool)  # who asks for none
    assert connect(server, 'one', session_s=1000, version=V5, **tool).present  # who goes on with one
    connect(server, 'four', session_s=1000, user='tool-8', password='eight')  # another user has its own
    connect(server, 'two', **tool)  # it ends
    connect(server, 'five', session_s=1000, **tool)
    assert denied(server, 'sessions') == 2


@pytest.mark.parametrize('qos', [0, 1])
def test_the_rate_of_messages_is_limited_without_loss(make, connect, qos):
    server = make(rules='quotas:\n  - {user: "tool-7", messages_per_s: 200}\n')
    watcher = connect(server, user='admin', password='root of all')
    watcher.subscribe('#', qos=qos)
    client = connect(server, version=V5, user='tool-7', password='seven')
    begin = time.monotonic()
    for i in range(500):  # a second's worth at once, the rest at the rate
        client.post('t', b'%d' % i, qos)
    assert [int(message.payload) for message in watcher.take(500)] == list(range(500))
    assert 1 < time.monotonic() - begin < 10
    assert server.metrics().get_sum('spindle_bus_pauses_total', reason='quota') > 0
    assert server.metrics().get_sum('spindle_bus_paused', reason='quota') == 0


def test_the_rate_of_bytes_is_shared_by_the_clients_of_a_user(make, connect):
    server = make(rules='quotas:\n  - {user: "tool-7", bytes_per_s: 100KiB}\n')
    clients = [connect(server, user='tool-7', password='seven') for _ in range(2)]
    begin = time.monotonic()
    tokens = [client.post('t', b'x' * 10240) for client in clients for _ in range(12)]  # 240 KiB; 100 KiB at once
    for token in tokens:
        token.wait_for_publish(DEADLINE_S)
    assert 1 < time.monotonic() - begin < 10


def test_what_may_be_on_the_way_is_announced(make, connect):
    server = make(rules='quotas:\n  - {user: "tool-*", inflight: 7}\n')
    with RawClient(server.port) as raw:
        body = b'\x00\x04MQTT\x05\xc2\x00\x3c\x00' + b''.join(struct.pack('>H', len(t)) + t for t in (b'raw', b'tool-7', b'seven'))
        raw.send(bytes([0x10, len(body)]) + body)
        head = raw.read(2)
        assert b'\x21\x00\x07' in raw.read(head[1])
        raw.send(b''.join(publish_packet(b't', i + 1, 2) for i in range(9)))  # PUBREL is never sent
        data = raw.read_until_closed()
        assert data.count(b'\x50\x02') <= 7 and b'\x93' in data[data.rindex(b'\xe0'):], 'disconnected: receive maximum exceeded'
    tool = connect(server, user='tool-7', password='seven')  # 3.1.1 is not read from meanwhile
    tool.publish_all([('t', b'%d' % i) for i in range(300)])
    assert server.metrics().get_sum('spindle_bus_pauses_total', reason='quota') > 0


def test_what_may_be_on_the_way_is_changed_under_connected_clients(make, connect):
    """3.1.1, whose clients were not told a number."""
    server = make(rules='quotas:\n  - {user: "tool-*", inflight: 1000}\n')
    tool = connect(server, user='tool-7', password='seven')
    tool.publish_all([('t', b'%d' % i) for i in range(300)])
    assert server.metrics().get_sum('spindle_bus_pauses_total', reason='quota') == 0
    server.rules.write_text('quotas:\n  - {user: "tool-*", inflight: 2}\n')
    assert reload(server)[0] == 200
    tool.publish_all([('t', b'%d' % i) for i in range(300)])
    assert server.metrics().get_sum('spindle_bus_pauses_total', reason='quota') > 0


def test_subscriptions_and_levels_are_limited(make, connect):
    server = make(rules='quotas:\n  - {user: "tool-*", subscriptions: 3, topic_levels: 4}\n')
    client = connect(server, version=V5, user='tool-7', password='seven')
    assert client.subscribe('a', 'b', 'c', 'd', 'a', '1/2/3/4/5', '1/2/3/4/#') == [1, 1, 1, QUOTA, 1, QUOTA, QUOTA]
    other = connect(server, version=V5, user='tool-7', password='seven')
    assert other.subscribe('e') == [QUOTA]
    client.unsubscribe('b')
    assert other.subscribe('e') == [1]
    reasons = []
    client.paho.on_publish = lambda paho, data, identifier, reason, properties: reasons.append(reason.value)
    client.post('1/2/3/4/5', b'', 1)
    wait_until(lambda: reasons, 'it was answered')
    assert reasons == [QUOTA]
    assert (denied(server, 'subscriptions'), denied(server, 'topic_levels')) == (2, 3)
    client.close()
    other.close()
    wait_until(lambda: server.metrics().get_sum('spindle_bus_connections') == 0, 'both are gone')
    again = connect(server, version=V5, user='tool-7', password='seven')
    assert again.subscribe('a', 'b', 'c') == [1, 1, 1]


# ---- reload ----

def test_users_come_and_go_without_dropping_anybody(make, connect, tmp_path):
    server = make(rules=None)
    stays = connect(server, user='tool-7', password='seven')
    goes = connect(server, user='tool-8', password='eight')
    set_password(server.users, 'fresh', 'new')
    run_cli('passwd', server.users, 'tool-8', '--delete')
    set_password(server.users, 'tool-7', 'changed')
    status, answer = reload(server)
    assert (status, answer['ok']) == (200, True)
    connect(server, user='fresh', password='new').publish('a', b'x')
    connect(server, user='tool-7', password='changed').publish('a', b'x')
    for user, password in (('tool-8', 'eight'), ('tool-7', 'seven')):
        with pytest.raises(Refused):
            connect(server, user=user, password=password)
    stays.publish('a', b'still here')
    goes.publish('a', b'still here')


def test_rules_are_replaced_under_connected_clients(make, connect):
    server = make()
    client = connect(server, version=V5, user='tool-7', password='seven')
    admin = connect(server, user='admin', password='root of all')
    assert client.subscribe('commands/tool-7/#', 'fresh/+', '$share/g/commands/tool-7/+') == [1, NOT_AUTHORIZED, 1]
    server.rules.write_text('rules:\n  - {user: "tool-*", publish: [new], subscribe: ["fresh/#"]}\n  - {user: admin, publish: ["#"]}\n')
    server.signal(signal.SIGHUP)
    wait_until(lambda: denied(server, 'revoked') == 2, 'the old subscriptions have ended')
    assert server.metrics().get_sum('spindle_bus_subscriptions') == 0
    assert client.subscribe('fresh/+') == [1]
    admin.publish('commands/tool-7/x', b'old')
    admin.publish('fresh/x', b'new')
    assert client.take()[0].payload == b'new'
    client.publish('new', b'x')
    assert denials(server)[0]['reason'] in ('revoked', 'subscribe')
    assert {entry['topic'] for entry in denials(server) if entry['reason'] == 'revoked'} == {'commands/tool-7/#', '$share/g/commands/tool-7/+'}


def test_a_reload_with_mistakes_keeps_what_holds(make, connect):
    server = make()
    client = connect(server, version=V5, user='tool-7', password='seven')
    before = server.rules.read_text()
    for path, text, complaint in ((server.rules, 'rules:\n  - {usr: a, publish: [b]}\n', 'rules.yaml:2:6: unknown key `usr`'),
                                  (server.rules, 'rules:\n  - {publish: ["a/#/b"]}\n', 'rules.yaml:2:16: `a/#/b` is no topic filter'),
                                  (server.users, 'tool-7:plain\n', 'users.txt:1:8: what follows the name `tool-7` is no argon2id hash')):
        old = path.read_text()
        path.write_text(text)
        status, answer = reload(server)
        assert status == 400 and not answer['ok'] and any(complaint in problem for problem in answer['problems']), answer
        path.write_text(old)
    server.rules.unlink()
    status, answer = reload(server)
    assert status == 400 and 'cannot be read' in answer['problems'][0]
    server.rules.write_text(before)
    assert client.subscribe('commands/tool-7/#', 'b') == [1, NOT_AUTHORIZED]
    connect(server, user='tool-8', password='eight')
    assert reload(server)[0] == 200


def test_quotas_of_a_reload_hold_for_connected_clients(make, connect):
    server = make(rules='quotas:\n  - {user: "tool-*", messages_per_s: 1}\n')
    client = connect(server, user='tool-7', password='seven')
    tokens = [client.post('a', b'%d' % i) for i in range(50)]
    wait_until(lambda: server.metrics().get_sum('spindle_bus_paused', reason='quota') == 1, 'it is held back')
    server.rules.write_text('quotas: []\n')
    assert reload(server)[0] == 200
    for token in tokens:
        token.wait_for_publish(DEADLINE_S)
        assert token.is_published()


def test_reload_by_http_is_governed_by_http_changes(make):
    assert reload(make(**{'http.changes': 'none'}))[0] in (403, 405)


# ---- the command, and what is checked before a start ----

def test_passwd_sets_lists_and_removes(tmp_path):
    users, secret = tmp_path / 'users.txt', tmp_path / 'secret'
    users.write_text('# our tools\n\n')
    set_password(users, 'b', 'first')
    secret.write_text('second\nnot this\n')
    run_cli('passwd', users, 'a', '--password-file', secret)
    before = users.read_text()
    assert before.startswith('# our tools\n\nb:$argon2id$') and 'second' not in before
    assert os.stat(users).st_mode & 0o777 == 0o600
    assert run_cli('passwd', users, '--list').stdout == 'a\nb\n'
    assert json.loads(run_cli('passwd', users, '--list', '--json').stdout) == {'users': ['a', 'b']}
    run_cli('passwd', users, 'b', '--delete')
    assert run_cli('passwd', users, '--list').stdout == 'a\n'
    assert users.read_text().startswith('# our tools\n\na:')
    for arguments, status in ((['b', '--delete'], 1), ([], 2), (['a:b', '--password-file', secret], 2), (['--list', 'a'], 2), (['a'], 1),
                              (['a', '--json'], 2), (['a', '--password-file', tmp_path / 'none'], 1)):
        done = run_cli('passwd', users, *arguments, check=False)
        assert done.returncode == status and done.stderr.startswith('spindle passwd: '), (arguments, done)
    assert not list(tmp_path.glob('*.new'))


def test_passwd_at_the_same_time_loses_no_user(tmp_path):
    users = tmp_path / 'users.txt'
    threads = [threading.Thread(target=set_password, args=(users, 'user-%d' % i, 'x')) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run_cli('passwd', users, '--list').stdout.split()) == 8


def test_passwd_asks_twice_on_a_terminal_and_shows_nothing(tmp_path):
    users = tmp_path / 'users.txt'
    for first, second, status in (('open', 'open', 0), ('open', 'shut', 1)):
        master, slave = os.openpty()
        process = subprocess.Popen([BINARY, 'passwd', users, 'a'], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        shown = b''
        for question, text in ((b'Password of a: ', first), (b'Again: ', second)):
            while question not in shown:
                shown += os.read(master, 1024)
            os.write(master, text.encode() + b'\n')
        assert process.wait(DEADLINE_S) == status
        try:
            shown += os.read(master, 4096)
        except OSError:
            pass
        os.close(master)
        shown = shown.replace(str(users).encode(), b'')
        assert first.encode() not in shown and second.encode() not in shown
        assert (b'differ' in shown) == bool(status)


def test_check_names_mistakes_in_users_and_rules(tmp_path):
    config, users, rules = tmp_path / 'c.yaml', tmp_path / 'users.txt', tmp_path / 'rules.yaml'
    config.write_text('access:\n  users: %s\n  rules: %s\n' % (users, rules))
    users.write_text('nobody\nbad:name:x\n')
    rules.write_text('rules:\n  - {user: a}\n  - {publish: [x], subscribe: "%q"}\n  - {publish: ["%q/a"]}\nquotas:\n'
                     '  - {conections: 1}\n  - {inflight: 70000}\n  - 5\nrule: 1\n')
    done = run_cli('check', '-c', config, check=False)
    assert done.returncode == 2
    for complaint in ('users.txt:1:1: expected NAME:HASH', 'users.txt:2:5:', 'rules.yaml:2:5: the rule allows nothing',
                      'rules.yaml:3:31: `subscribe`: expected a list', 'rules.yaml:4:16: `%q/a`: expected %u',
                      'rules.yaml:6:6: unknown key `conections` in a quota; did you mean `connections`?', 'rules.yaml:7:16: `inflight`:',
                      'rules.yaml:8:5: expected keys with values', 'rules.yaml:9:1: unknown key `rule` in a file of rules; did you mean'):
        assert complaint in done.stdout, (complaint, done.stdout)


def test_a_start_with_mistakes_is_refused(spindle, tmp_path):
    server = spindle(settings={'access.users': str(tmp_path / 'none')})
    with pytest.raises(AssertionError, match='cannot be read: not found'):
        server.start()
    done = run_cli('run', '--port', '0', '--http-port', '0', '--data-dir', tmp_path / 'd', '--set', 'access.rules=/none', check=False)
    assert done.returncode == 2 and done.stderr.startswith('/none: the file of rules (access.rules) cannot be read: not found')


def test_raw_clients_are_not_let_past_a_connect_that_waits(make):
    """What follows a CONNECT waits for the check, and is taken after it, in order."""
    server = make(rules=None)
    with RawClient(server.port) as raw:
        body = b'\x00\x04MQTT\x04\xc2\x00\x3c' + b''.join(struct.pack('>H', len(t)) + t for t in (b'raw', b'tool-7', b'seven'))
        publish = b''.join(b'\x32\x06\x00\x01t' + struct.pack('>H', i) + b'x' for i in range(1, 4))
        raw.send(bytes([0x10, len(body)]) + body + publish + b'\xc0\x00')
        data = raw.read(4 + 3 * 4 + 2)
        assert data[:4] == b'\x20\x02\x00\x00' and data.count(b'\x40\x02') == 3
    with RawClient(server.port) as raw:
        body = body.replace(b'seven', b'wrong')
        raw.send(bytes([0x10, len(body)]) + body + publish)
        assert raw.read_until_closed() == b'\x20\x02\x00\x04'
    assert server.metrics().get_sum('spindle_bus_messages_received_total', qos='1') == 3


def test_everybody_may_do_everything_without_users_and_rules(spindle, connect):
    server = spindle().start()
    client = connect(server)
    assert isinstance(client, Client)
    assert client.subscribe('#') == [1]
    client.publish('a', b'x')
    assert client.take()[0].payload == b'x'


# ---- sessions and rules ----

@pytest.mark.parametrize('how', ['reload', 'stop', 'kill'])
def test_a_session_gets_nothing_any_more_that_its_user_may_not_have(make, how):
    """Rules that have changed while a client was away hold when it is back: the subscription has ended."""
    may = '{user: "tool-*", publish: ["#"], subscribe: [%s]}'
    server = make(rules='rules: [%s]' % (may % '"a/#", "b/#", "fence"'))
    login = (b'tool-7', b'seven')

    def publish(topic, payload):
        with Visit(server, b'p', login=login, expiry=None) as publisher:
            publisher.put(topic, payload)
    with Visit(server, b'c', login=login) as visit:
        assert visit.subscribe(b'a/1', b'b/#', b'fence', qos=1) == [1, 1, 1]
        visit.leave()
    for topic in (b'a/1', b'b/1', b'fence'):
        publish(topic, b'while away')
    server.rules.write_text('rules: [%s]' % (may % '"b/1", "a/#", "fence"'))
    if how == 'reload':
        assert reload(server)[0] == 200
    else:
        server.stop() if how == 'stop' else server.kill()
        server.start()
    for i in range(2):
        with Visit(server, b'c', login=login) as visit:
            assert visit.present == 1
            publish(b'b/1', b'live')
            publish(b'a/1', b'live')
            publish(b'fence', b'end')
            messages, _ = visit.collect(lambda messages, _: messages and messages[-1].payload == b'end')
            assert {m.topic for m in messages} == {b'a/1', b'fence'}
            assert payloads(m for m in messages if m.topic == b'a/1') == [b'while away', b'live'][i:]
            visit.leave()
        server.rules.write_text('rules: [%s]' % (may % '"a/#", "b/#", "fence"'))  # what has ended does not begin again
        assert reload(server)[0] == 200
