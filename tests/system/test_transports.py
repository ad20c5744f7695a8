"""TLS, client certificates, the Unix socket and IPv6, with third-party clients; certificates that end and are replaced; handshakes that do
not finish. (WebSocket: test_websocket.py.)"""
import contextlib
import os
import re
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time

import pytest

from client import V311, V5, RawClient
from doors import CONNACK, CONNECT, Authority, RawWebSocket, tls_settings, websocket_settings
from spindle import DEADLINE_S, free_port, run_cli, wait_until

BIG = bytes(range(256)) * 1055  # 270 kB
MOSQUITTO = shutil.which('mosquitto_pub') and shutil.which('mosquitto_sub')


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def secure(spindle, authority):
    """secure(**settings of bus.tls) starts a server; its `tls_port` is where it listens."""
    def make(**more):
        settings = tls_settings(authority.issue_server(), **more)
        server = spindle(settings={**settings, 'diagnostics.level': 'debug'}).start()
        server.tls_port = settings['bus.tls.port']
        return server
    return make


@pytest.fixture
def tls_client(connect):
    """tls_client(server, context, ...) connects a paho client by TLS."""
    class At:
        def __init__(self, port):
            self.port = port

    def make(server, context, **options):
        return connect(At(server.tls_port), tls=context, host='localhost', **options)
    return make


def exchange(publisher, subscriber):
    """Big messages in both directions at once, QoS 1, then one of QoS 2."""
    subscriber.subscribe('from/p', qos=2)
    publisher.subscribe('from/s', qos=1)
    tokens = [one.post('from/' + name, BIG) for one, name in ((publisher, 'p'), (subscriber, 's')) for _ in range(10)]
    assert all(m.payload == BIG for m in subscriber.take(10) + publisher.take(10))
    for token in tokens:
        token.wait_for_publish(DEADLINE_S)
        assert token.is_published()
    publisher.publish('from/p', b'exactly', qos=2)
    assert subscriber.take()[0].payload == b'exactly'


def closed(sock):
    """Whether the server has ended the connection (after an answer, maybe), within the deadline."""
    sock.settimeout(DEADLINE_S)
    try:
        while sock.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


def failures(server, reason):
    return server.metrics().get_sum('spindle_bus_handshakes_failed_total', reason=reason)


def wait_failures(server, reason, count=1):
    wait_until(lambda: failures(server, reason) == count, lambda: '%d handshakes failed: %s; now %d' % (count, reason, failures(server, reason)))


# ---- TLS ----

@pytest.mark.parametrize('tls_version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize('version', [V311, V5])
def test_tls(secure, authority, tls_client, tls_version, version):
    server = secure()
    context = authority.context(version=tls_version)
    publisher, subscriber = [tls_client(server, context, version=version) for _ in range(2)]
    exchange(publisher, subscriber)
    assert len(server.journal('bus')) == 21
    metrics = server.metrics()
    assert metrics.get_sum('spindle_bus_transport_connections', transport='tls') == 2
    assert metrics.get_sum('spindle_bus_handshakes') == 0
    name = {ssl.TLSVersion.TLSv1_2: 'TLSv1.2', ssl.TLSVersion.TLSv1_3: 'TLSv1.3'}[tls_version]
    assert server.stderr().count('is connected by ' + name) == 2


def test_tls_and_plain_clients_share_one_bus(secure, authority, tls_client, connect):
    server = secure()
    exchange(tls_client(server, authority.context()), connect(server))


def test_older_versions_are_refused(secure, authority):
    server = secure(version_min='1.3')
    context = authority.context(version=ssl.TLSVersion.TLSv1_2)
    with socket.create_connection(('127.0.0.1', server.tls_port)) as plain, pytest.raises(ssl.SSLError, match='VERSION'):
        context.wrap_socket(plain, server_hostname='localhost')
    wait_failures(server, 'tls')


def test_alpn_and_resumption(secure, authority):
    server = secure()
    context = authority.context(version=ssl.TLSVersion.TLSv1_2)  # 1.3 has its tickets later
    context.set_alpn_protocols(['other', 'mqtt'])

    def connection(session):
        with context.wrap_socket(socket.create_connection(('127.0.0.1', server.tls_port)), server_hostname='localhost', session=session) as tls:
            assert tls.selected_alpn_protocol() == 'mqtt'
            tls.sendall(CONNECT)
            assert tls.recv(4) == CONNACK
            return tls.session, tls.session_reused
    session, reused = connection(None)
    assert not reused
    assert connection(session)[1]
    context.set_alpn_protocols(['other'])  # is not refused
    with context.wrap_socket(socket.create_connection(('127.0.0.1', server.tls_port)), server_hostname='localhost') as tls:
        assert tls.selected_alpn_protocol() is None


def test_goodbyes_are_in_order(secure, authority, connect):
    """Nothing looks cut off to a client that watches for it."""
    server = secure()
    context = authority.context()
    with context.wrap_socket(socket.create_connection(('127.0.0.1', server.tls_port)), server_hostname='localhost',
                             suppress_ragged_eofs=False) as tls:
        tls.sendall(CONNECT + b'\xe0\x00')
        assert tls.recv(4) in (CONNACK, b'')
        assert tls.recv(4) == b''


def test_a_plain_client_on_the_tls_port_and_the_other_way_round(secure, authority):
    server = secure()
    with RawClient(server.tls_port) as raw:
        raw.send(CONNECT)
        assert closed(raw.socket)
    wait_failures(server, 'tls')
    assert 'it does not speak TLS, which this port expects' in server.stderr()
    with socket.create_connection(('127.0.0.1', server.port)) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        authority.context().wrap_socket(plain, server_hostname='localhost')
    with RawClient(server.port) as raw:
        raw.connect(b'still there')


def test_a_client_that_does_not_trust_the_server(secure, tmp_path):
    server = secure()
    other = Authority(tmp_path, 'other')
    with socket.create_connection(('127.0.0.1', server.tls_port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
        other.context().wrap_socket(plain, server_hostname='localhost')
    wait_failures(server, 'tls')


def test_broken_records_end_one_connection(secure, authority, tls_client):
    server = secure()
    good = tls_client(server, authority.context())
    with socket.create_connection(('127.0.0.1', server.tls_port)) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.context().wrap_bio(incoming, outgoing, server_hostname='localhost')
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        tls.write(CONNECT)
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        plain.sendall(record)
        assert closed(plain)
    exchange(good, tls_client(server, authority.context()))


@pytest.mark.skipif(not MOSQUITTO, reason='mosquitto-clients are not installed')
@pytest.mark.parametrize('way', ['tls', 'unix'])
def test_mosquitto_clients(spindle, authority, tmp_path, way):
    path = tmp_path / 'mqtt.sock'
    settings = {**tls_settings(authority.issue_server()), 'bus.unix.path': path}
    server = spindle(settings=settings).start()
    where = ['--unix', path] if way == 'unix' else ['-h', 'localhost', '-p', str(settings['bus.tls.port']), '--cafile', authority.path]
    subscriber = subscriber_output = None
    try:
        subscriber = subprocess.Popen(['mosquitto_sub', *where, '-t', 'm/#', '-q', '1', '-C', '3', '-V', '5'], stdout=subprocess.PIPE)
        wait_until(lambda: server.metrics().get_sum('spindle_bus_subscriptions') == 1, 'mosquitto_sub has subscribed')
        for number in range(3):
            subprocess.run(['mosquitto_pub', *where, '-t', 'm/%d' % number, '-m', 'hello %d' % number, '-q', '1'], check=True,
                           timeout=DEADLINE_S)
        subscriber_output, _ = subscriber.communicate(timeout=DEADLINE_S)
    finally:
        if subscriber and subscriber.poll() is None:
            subscriber.kill()
    assert subscriber_output.decode().split('\n') == ['hello 0', 'hello 1', 'hello 2', '']
    assert len(server.journal('bus')) == 3


def test_renegotiation_is_refused(secure, authority):
    server = secure()
    done = subprocess.run(['openssl', 's_client', '-tls1_2', '-connect', '127.0.0.1:%d' % server.tls_port, '-CAfile', authority.path],
                          input='R\n', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S)
    assert 'RENEGOTIATING' in done.stdout and 'no renegotiation' in done.stdout, done.stdout


def test_a_chain_that_is_too_long_ends_the_handshake(spindle, authority, tmp_path):
    certificate, key = authority.issue_server()
    chain = tmp_path / 'chain.pem'
    chain.write_text(certificate.read_text() + authority.path.read_text() * 200)  # more than 64 KiB
    server = spindle(settings=tls_settings((chain, key))).start()
    with contextlib.suppress(ssl.SSLError, ConnectionError), socket.create_connection(('127.0.0.1', server.settings['bus.tls.port'])) as plain:
        tls = authority.context().wrap_socket(plain, server_hostname='localhost')
        tls.sendall(CONNECT)
        assert tls.recv(4) == b''
    wait_failures(server, 'tls')
    assert 'failed: a limit is reached' in server.stderr()


# ---- certificates of clients ----

def test_client_certificates(secure, authority, tls_client, tmp_path):
    server = secure(client_certificate='required', client_ca=authority.path)
    tool = tls_client(server, authority.context(authority.issue('/O=Site/CN=tool7')))
    exchange(tool, tls_client(server, authority.context(authority.issue('/CN=Gerät 8'))))
    assert 'user "tool7"' in server.stderr() and 'user "Gerät 8"' in server.stderr()
    stranger = Authority(tmp_path, 'stranger')
    wrong = {
        'none': None,
        'of another authority': stranger.issue('/CN=tool7'),
        'ended': authority.issue('/CN=tool7', days=-1),
        'of no name': authority.issue('/O=Site'),
    }
    for count, certificate in enumerate(wrong.values(), 1):
        with socket.create_connection(('127.0.0.1', server.tls_port)) as plain:
            with contextlib.suppress(ssl.SSLError, ConnectionError):  # in 1.3 a client learns of it when it reads
                tls = authority.context(certificate).wrap_socket(plain, server_hostname='localhost')
                tls.sendall(CONNECT)
                assert tls.recv(4) == b''
        wait_failures(server, 'certificate', count)


def test_a_certificate_is_optional(secure, authority, tls_client):
    server = secure(client_certificate='optional', client_ca=authority.path)
    exchange(tls_client(server, authority.context()), tls_client(server, authority.context(authority.issue('/CN=tool7'))))
    assert server.stderr().count('user "') == 1


@pytest.mark.parametrize('user_from, user', [('dns', 'tool7.site'), ('email', 'tool7@site'), ('uri', 'urn:tool:7')])
def test_the_user_is_an_alternative_name(secure, authority, tls_client, user_from, user):
    server = secure(client_certificate='required', client_ca=authority.path, user_from=user_from)
    certificate = authority.issue('/CN=other', 'DNS:tool7.site,email:tool7@site,URI:urn:tool:7,DNS:second')
    tls_client(server, authority.context(certificate))
    assert 'user "%s"' % user in server.stderr()


def test_a_session_is_resumed_with_its_certificate(secure, authority):
    server = secure(client_certificate='required', client_ca=authority.path)
    context = authority.context(authority.issue('/CN=tool7'), ssl.TLSVersion.TLSv1_2)
    session = None
    for _ in range(2):
        with context.wrap_socket(socket.create_connection(('127.0.0.1', server.tls_port)), server_hostname='localhost', session=session) as tls:
            tls.sendall(CONNECT)
            assert tls.recv(4) == CONNACK
            assert tls.session_reused == (session is not None)
            session = tls.session
    assert server.stderr().count('user "tool7"') == 2


# ---- certificates over time ----

def check_settings(settings):
    arguments = [part for key, value in settings.items() for part in ('--set', '%s=%s' % (key, value))]
    done = run_cli('check', *arguments, check=False)
    return done.returncode, done.stdout


def test_check_reads_the_files(authority, tmp_path):
    certificate, key = authority.issue_server()
    good = tls_settings((certificate, key))
    assert check_settings(good)[0] == 0
    garbage = tmp_path / 'garbage.pem'
    garbage.write_text('-----BEGIN CERTIFICATE-----\nnothing\n')
    locked = tmp_path / 'locked.key'
    subprocess.run(['openssl', 'ec', '-in', key, '-aes128', '-passout', 'pass:secret', '-out', locked], check=True, capture_output=True)
    wrong = {
        ('certificate', tmp_path / 'missing.pem'): 'cannot be read: No such file or directory',
        ('certificate', garbage): 'there is no certificate in it that can be used',
        ('certificate', key): 'there is no certificate in it that can be used',
        ('certificate', ''): '`bus.tls.enabled` needs `bus.tls.certificate`',
        ('key', ''): '`bus.tls.enabled` needs `bus.tls.key`',
        ('key', authority.key): 'the key does not belong to the certificate',
        ('key', garbage): 'there is no key in it that can be used',
        ('key', locked): 'without a password',
    }
    for (name, path), expected in wrong.items():
        status, text = check_settings({**good, 'bus.tls.' + name: path})
        assert status == 2 and expected in text and str(path) in text and '`bus.tls.' + name in text, text
    asked = {**good, 'bus.tls.client_certificate': 'required'}
    assert '`bus.tls.client_ca`' in check_settings(asked)[1]
    assert 'there is no certificate in it' in check_settings({**asked, 'bus.tls.client_ca': key})[1]
    assert check_settings({**asked, 'bus.tls.client_ca': authority.path})[0] == 0


def test_check_knows_what_time_does(authority):
    ended, soon = authority.issue_server(days=-1), authority.issue_server(days=10)
    status, text = check_settings(tls_settings(ended))
    assert status == 2 and 'the certificate ended on' in text and str(ended[0]) in text
    status, text = check_settings(tls_settings(soon))
    assert status == 0 and 'warning: `bus.tls.certificate`' in text and re.search('in (9|10) days', text)


def test_a_start_says_what_is_wrong_with_a_file(spindle, authority, tmp_path):
    settings = tls_settings((tmp_path / 'missing.pem', authority.issue_server()[1]))
    server = spindle(settings=settings)
    with pytest.raises(AssertionError, match='no ready line'):
        server.start()
    assert 'error   bus: bus.tls.certificate: %s: cannot be read' % settings['bus.tls.certificate'] in server.stderr()


def test_a_certificate_that_has_ended_or_ends_soon_is_said_and_served(spindle, authority, connect):
    for days, said, most in ((-1, 'error   bus: bus.tls.certificate: ', 0), (10, 'warning bus: bus.tls.certificate: ', 10 * 86400)):
        server = spindle(settings=tls_settings(authority.issue_server(days=days))).start()
        assert said in server.stderr()
        left = server.metrics().get_sum('spindle_bus_certificate_expiry_seconds', certificate='server')
        assert most - 2 * 86400 < left <= most
        connect(server)
        server.stop()


def reload(server, expected):
    before = server.stderr().count(expected)
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.stderr().count(expected) > before, expected)


def test_sighup_takes_new_certificates_and_drops_nobody(secure, authority, tls_client, tmp_path):
    server = secure()
    certificate, key = server.settings['bus.tls.certificate'], server.settings['bus.tls.key']
    old = tls_client(server, authority.context())

    def serial():
        with authority.context().wrap_socket(socket.create_connection(('127.0.0.1', server.tls_port)), server_hostname='localhost') as tls:
            return tls.getpeercert()['serialNumber']
    first = serial()
    fresh = authority.issue_server()
    shutil.copy(fresh[0], certificate)
    shutil.copy(fresh[1], key)
    assert serial() == first
    reload(server, 'the certificates were read again')
    second = serial()
    assert second != first
    exchange(old, tls_client(server, authority.context()))

    shutil.copy(authority.key, key)  # what does not fit is said, and the old ones hold
    reload(server, 'the key does not belong to the certificate')
    assert serial() == second
    ended = authority.issue_server(days=-1)
    shutil.copy(ended[0], certificate)
    shutil.copy(ended[1], key)
    reload(server, 'the certificate ended on')
    assert serial() == second
    assert not old.disconnected.is_set()
    exchange(old, tls_client(server, authority.context()))


def test_sighup_takes_another_authority_for_clients(secure, authority, tls_client, tmp_path):
    ca = tmp_path / 'clients.pem'
    shutil.copy(authority.path, ca)
    server = secure(client_certificate='required', client_ca=ca)
    first = tls_client(server, authority.context(authority.issue('/CN=first')))
    other = Authority(tmp_path, 'other')
    shutil.copy(other.path, ca)
    reload(server, 'the certificates were read again')
    second = tls_client(server, authority.context(other.issue('/CN=second')))
    exchange(first, second)
    with contextlib.suppress(ssl.SSLError, ConnectionError), socket.create_connection(('127.0.0.1', server.tls_port)) as plain:
        tls = authority.context(authority.issue('/CN=third')).wrap_socket(plain, server_hostname='localhost')
        tls.sendall(CONNECT)
        assert tls.recv(4) == b''
    wait_failures(server, 'certificate')


# ---- handshakes that do not finish ----

def test_slow_handshakes_end(spindle, authority):
    settings = {**tls_settings(authority.issue_server()), **websocket_settings(), 'bus.handshake_timeout_s': 1}
    server = spindle(settings=settings).start()
    began = time.monotonic()
    half = [socket.create_connection(('127.0.0.1', settings[key])) for key in ('bus.tls.port', 'bus.websocket.port') for _ in range(2)]
    half[1].sendall(b'\x16\x03\x01\x02\x00\x01')
    half[3].sendall(b'GET /mqtt HTTP/1.1\r\nHost: a\r\n')
    wait_until(lambda: server.metrics().get_sum('spindle_bus_handshakes') == 4, 'all of them are under way')
    with socket.create_connection(('127.0.0.1', settings['bus.websocket.port'])) as slow:  # some of it all the time is no excuse
        for byte in RawWebSocket.request(None):
            try:
                slow.sendall(bytes([byte]))
            except ConnectionError:
                break
            slow.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                if slow.recv(1) == b'':
                    break
        else:
            pytest.fail('the slow handshake was waited for')
    assert all(closed(one) for one in half)
    assert 0.9 < time.monotonic() - began < DEADLINE_S
    for one in half:
        one.close()
    wait_failures(server, 'timeout', 5)
    assert server.metrics().get_sum('spindle_bus_handshakes') == 0
    assert 'was not finished in 1 s (bus.handshake_timeout_s)' in server.stderr()


def test_a_handshake_has_ten_seconds(secure):
    server = secure()
    began = time.monotonic()
    with socket.create_connection(('127.0.0.1', server.tls_port)) as half:
        assert closed(half)
    assert 9 < time.monotonic() - began < 13


def test_half_handshakes_do_not_shut_others_out(spindle, authority, connect):
    """At the limit further clients with handshakes wait; those without do not, and everybody gets in when the time of the others is up."""
    settings = {**tls_settings(authority.issue_server()), **websocket_settings(), 'bus.handshakes_max': 50, 'bus.handshake_timeout_s': 2}
    server = spindle(settings=settings).start()
    half = [socket.create_connection(('127.0.0.1', settings['bus.tls.port'])) for _ in range(200)]
    metrics = wait_until(lambda: (m := server.metrics()).get_sum('spindle_bus_handshakes') == 50 and m, 'fifty are under way')
    assert metrics.get_sum('spindle_bus_handshakes_max') == 50
    connect(server).publish('plain', b'is served')
    wait_until(lambda: server.metrics().get_sum('spindle_bus_handshakes_waited_total') > 0, 'somebody waits')
    context = authority.context()
    with context.wrap_socket(socket.create_connection(('127.0.0.1', settings['bus.tls.port'])), server_hostname='localhost') as tls:
        tls.sendall(CONNECT)
        assert tls.recv(4) == CONNACK
    assert server.metrics().get_sum('spindle_bus_handshakes') <= 50
    for one in half:
        one.close()
    wait_until(lambda: server.metrics().get_sum('spindle_bus_handshakes') == 0, 'all are gone')
    assert failures(server, 'timeout') >= 50
    with RawWebSocket(settings['bus.websocket.port']) as web:
        web.connect()


def test_handshakes_that_come_at_once_do_not_hold_up_the_others(spindle, authority):
    """Hundreds of clients have sent their hello before the server looks, and a live client pings behind them: its pings are not the last
    to be answered."""
    settings = tls_settings(authority.issue_server())
    server = spindle(settings={**settings, 'bus.threads': 1}).start()
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        authority.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname='localhost').do_handshake()
    hello = outgoing.read()
    with RawClient(server.port) as live, contextlib.ExitStack() as stack:
        live.connect(b'live')
        clients = [stack.enter_context(socket.create_connection(('127.0.0.1', settings['bus.tls.port']))) for _ in range(400)]
        wait_until(lambda: server.metrics().get_sum('spindle_bus_handshakes') == len(clients), 'all are accepted')
        server.signal(signal.SIGSTOP)
        for client in clients:
            client.sendall(hello)
        live.send(b'\xc0\x00')
        server.signal(signal.SIGCONT)
        assert live.read(2) == b'\xd0\x00'
        live.send(b'\xc0\x00')  # the first may have been answered before the work began
        assert live.read(2) == b'\xd0\x00'
        poll = select.poll()
        for client in clients:
            poll.register(client, select.POLLIN)
        assert len(poll.poll(0)) < len(clients) / 2
        wait_until(lambda: len(poll.poll(0)) == len(clients), 'all are answered')


def test_who_hangs_up_in_the_handshake_is_counted(secure):
    server = secure()
    socket.create_connection(('127.0.0.1', server.tls_port)).close()
    wait_failures(server, 'left')
    assert server.metrics().get_sum('spindle_bus_transport_connections', transport='tls') == 0


# ---- the Unix socket ----

@pytest.fixture
def unix_server(spindle, tmp_path):
    server = spindle(settings={'bus.unix.path': tmp_path / 'mqtt.sock', 'diagnostics.level': 'debug'})
    server.path = tmp_path / 'mqtt.sock'
    return server


def test_unix_socket(unix_server, connect):
    server = unix_server.start()
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660
    options = {'transport': 'unix', 'host': str(server.path)}
    exchange(connect(server, **options), connect(server, version=V5, **options))
    assert server.metrics().get_sum('spindle_bus_transport_connections', transport='unix') == 2
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        raw.sendall(b'\x10\x00')
        assert closed(raw)
    assert 'at unix:%d/%d is disconnected' % (os.getpid(), os.getuid()) in server.stderr()
    server.stop()
    assert not server.path.exists()


def test_the_mode_of_the_unix_socket_is_exact(unix_server):
    before = os.umask(0o027)
    try:
        unix_server.settings['bus.unix.mode'] = '0606'
        unix_server.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE(unix_server.path.stat().st_mode) == 0o606


def test_a_unix_socket_that_was_left_behind_is_replaced(unix_server, connect):
    unix_server.start()
    unix_server.kill()
    assert unix_server.path.exists()
    unix_server.start()
    connect(unix_server, transport='unix', host=str(unix_server.path))


def refused(server, reason):
    with pytest.raises(AssertionError, match='no ready line'):
        server.start()
    assert reason in server.stderr()


def test_a_unix_socket_that_is_in_use_is_not_taken(unix_server, spindle, connect):
    unix_server.start()
    refused(spindle(settings={'bus.unix.path': unix_server.path}), 'another program listens there')
    connect(unix_server, transport='unix', host=str(unix_server.path))


def test_another_file_is_not_taken_for_a_socket(unix_server):
    unix_server.path.write_text('precious')
    refused(unix_server, 'there is something else of this name')
    assert unix_server.path.read_text() == 'precious'


def test_a_path_that_cannot_be_is_refused(spindle, tmp_path):
    refused(spindle(settings={'bus.unix.path': tmp_path / ('x' * 120)}), 'longer than 107 bytes')
    refused(spindle(settings={'bus.unix.path': tmp_path / 'missing' / 'mqtt.sock'}), 'No such file or directory')


# ---- addresses ----

def test_tls_and_websocket_on_ipv6(spindle, authority):
    with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(('::1', 0))
        except OSError:
            pytest.skip('this machine has no IPv6')
    settings = {**tls_settings(authority.issue_server(), host='::1'), **websocket_settings(host='::1'), 'bus.host': '::1'}
    server = spindle(settings=settings).start()
    context = authority.context()
    with context.wrap_socket(socket.create_connection(('::1', settings['bus.tls.port'])), server_hostname='localhost') as tls:
        tls.sendall(CONNECT)
        assert tls.recv(4) == CONNACK
    with socket.create_connection(('::1', server.port)) as plain:
        plain.sendall(CONNECT)
        assert plain.recv(4) == CONNACK
    for port in (server.port, settings['bus.tls.port'], settings['bus.websocket.port']):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.1', port))


def test_more_addresses_than_can_be_listened_on(spindle):
    many = ','.join('127.0.0.%d' % number for number in range(1, 32))
    server = spindle(settings={**websocket_settings(), 'bus.host': many})
    refused(server, 'cannot listen on "127.0.0.1" with WebSocket: more than 31 addresses; name fewer with bus.websocket.host')


def test_without_plain_tcp(spindle, authority):
    settings = {**tls_settings(authority.issue_server()), 'bus.tcp_enabled': 'false'}
    port = free_port()
    server = spindle('--port', port, settings=settings)
    server.port = 0
    server.start()
    assert server.port == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', port))
    with authority.context().wrap_socket(socket.create_connection(('127.0.0.1', settings['bus.tls.port'])), server_hostname='localhost') as tls:
        tls.sendall(CONNECT)
        assert tls.recv(4) == CONNACK


def test_settings_that_contradict_each_other():
    def check(*settings):
        return check_settings(dict(setting.split('=', 1) for setting in settings))
    for settings, expected in (
            (['bus.tcp_enabled=false'], 'there is no other way to connect'),
            (['bus.websocket.enabled=true', 'bus.websocket.port=1883'], '`bus.port` and `bus.websocket.port` are both 1883'),
            (['bus.websocket.path=mqtt'], 'expected a path that begins with `/`'),
            (['bus.unix.mode=0999'], '`bus.unix.mode`: expected permissions in octal')):
        status, text = check(*settings)
        assert status == 2 and expected in text, text
    assert check('bus.websocket.port=1883')[0] == 0  # it is not enabled
