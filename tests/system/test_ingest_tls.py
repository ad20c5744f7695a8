"""TLS to brokers: whom Spindle trusts, what it shows, and what it says when a handshake fails. A real Mosquitto with a port for TLS beside
its plain one, at which the tests publish."""
import signal
import socket
import ssl
import threading

import pytest

from client import Client
from doors import Authority
from holes import ROOT, Hole
from mosquitto import PROGRAM
from spindle import DEADLINE_S, free_port, run_cli, wait_until
from test_ingest import QUICK, Publisher, broker, connections, payloads, probe, wait_accepted, wait_payloads  # noqa: F401 (a fixture)
from test_ingest_results import Receiver

pytestmark = pytest.mark.skipif(PROGRAM is None, reason='Mosquitto is not installed')


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def secure(broker):  # noqa: F811
    """secure(authority, certificate, lines=()) makes a Mosquitto with a `tls_port`."""
    def make(authority, certificate=None, lines=()):
        port = free_port()
        certificate = certificate or authority.issue_server()
        mosquitto = broker(lines=['listener %d 127.0.0.1' % port, 'cafile %s' % authority.path, 'certfile %s' % certificate[0],
                                  'keyfile %s' % certificate[1], *lines])
        mosquitto.tls_port = port
        return mosquitto
    return make


def settings(port, authority=None, host='localhost', **more):
    """`more` are settings of ingest; those of ingest.tls begin with tls_."""
    values = {**QUICK, 'ingest.brokers': 'mqtts://%s:%d' % (host, port), 'ingest.connections': '3', 'ingest.results': 'false',
              'ingest.qos': '2'}
    if authority:
        values['ingest.tls.ca'] = authority.path
    values.update({'ingest.' + key.replace('tls_', 'tls.', 1): str(value) for key, value in more.items()})
    return values


def wait_connected(server, port, count=3):
    wait_until(lambda: connections(server).get(str(port)) == count, lambda: 'connections: %s\n%s' % (connections(server), server.stderr()))


def exchange(server, mosquitto):
    big = bytes(range(256)) * 1055
    with Client(mosquitto.port) as client:
        client.publish('site/big', big, 2)
        for number in range(200):
            client.post('site/a', '%d' % number, number % 3)
        client.publish('site/end', 'end', 2)
    wait_accepted(server, 202)
    records = server.journal('bus')
    assert len(records) == 202
    return records


def failures(server):
    return server.metrics().get_sum('spindle_ingest_tls_failures_total')


def wait_refused(server, text):
    wait_until(lambda: failures(server) >= 1, 'a handshake has failed')
    wait_until(lambda: text in server.stderr(), lambda: 'it is told: %s' % server.stderr()[-2000:])
    assert text in probe(server)[1]
    assert server.metrics().get_sum('spindle_ingest_connections') == 0
    # told once for the breaker's first failure, not by each connection again and again
    assert server.stderr().count(text) <= 1 + server.stderr().count('cannot be used'), server.stderr()


@pytest.mark.parametrize('version', ['1.2', '1.3'])
@pytest.mark.parametrize('host', ['localhost', '127.0.0.1'])
def test_messages_come_by_tls(spindle, secure, authority, version, host):
    mosquitto = secure(authority, lines=['tls_version tlsv' + version]).start()
    server = spindle(settings=settings(mosquitto.tls_port, authority, host)).start()
    wait_connected(server, mosquitto.tls_port)
    exchange(server, mosquitto)
    assert failures(server) == 0 and probe(server)[0] == 200


def test_a_client_certificate_is_shown(spindle, secure, authority):
    mosquitto = secure(authority, lines=['require_certificate true', 'use_identity_as_username true']).start()
    certificate, key = authority.issue('/CN=drill-site')
    server = spindle(settings=settings(mosquitto.tls_port, authority, tls_certificate=certificate, tls_key=key)).start()
    wait_connected(server, mosquitto.tls_port)
    assert "u'drill-site'" in mosquitto.log()
    exchange(server, mosquitto)


@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_a_demand_for_a_certificate_is_told(spindle, secure, authority, version):
    mosquitto = secure(authority, lines=['require_certificate true', 'tls_version tlsv' + version]).start()
    server = spindle(settings=settings(mosquitto.tls_port, authority)).start()
    wait_refused(server, 'ingest.tls.certificate and ingest.tls.key')
    server.stop()
    stranger = Authority(authority.folder, 'stranger').issue('/CN=nobody')
    other = spindle(settings=settings(mosquitto.tls_port, authority, tls_certificate=stranger[0], tls_key=stranger[1])).start()
    wait_refused(other, 'it refuses our certificate')


@pytest.mark.parametrize('case,text', [('wrong_ca', 'name a file with who signed it in ingest.tls.ca'),
                                       ('system', 'name a file with who signed it in ingest.tls.ca'),
                                       ('wrong_name', 'its certificate is not for "localhost"'),
                                       ('wrong_address', 'its certificate is not for "127.0.0.1"'),
                                       ('ended', 'certificate has expired')])
def test_a_broker_that_is_not_trusted_gets_nothing(spindle, secure, authority, case, text):
    certificate = {'wrong_name': lambda: authority.issue('/CN=localhost', 'DNS:other.example'),
                   'wrong_address': lambda: authority.issue('/CN=127.0.0.1', 'DNS:localhost'),
                   'ended': lambda: authority.issue_server(days=-1)}.get(case, authority.issue_server)()
    mosquitto = secure(authority, certificate).start()
    trusted = {'wrong_ca': Authority(authority.folder, 'other'), 'system': None}.get(case, authority)
    host = '127.0.0.1' if case == 'wrong_address' else 'localhost'
    server = spindle(settings=settings(mosquitto.tls_port, trusted, host, breaker_open_s=60)).start()
    wait_refused(server, text)
    assert server.metrics().get_sum('spindle_ingest_circuit_breaker', state='open') == 1
    assert failures(server) == 1  # one connection probes, and a refusal opens the circuit breaker at once
    assert 'as spindle-' not in mosquitto.log()  # CONNECT, with its password, never left


def test_what_is_not_verified_is_warned_of(spindle, secure, authority):
    mosquitto = secure(authority, authority.issue('/CN=x', 'DNS:other.example', days=-1)).start()
    values = settings(mosquitto.tls_port, tls_verify='false')
    done = run_cli('check', *[part for key, value in values.items() for part in ('--set', '%s=%s' % (key, value))], check=False)
    assert done.returncode == 0 and 'ingest.tls.verify' in done.stdout, done.stdout
    server = spindle(settings=values).start()
    assert '`ingest.tls.verify` is false' in server.stderr()
    wait_connected(server, mosquitto.tls_port)
    exchange(server, mosquitto)


def test_a_port_without_tls_is_told(spindle, broker):  # noqa: F811
    mosquitto = broker().start()
    server = spindle(settings=settings(mosquitto.port)).start()
    wait_refused(server, 'speak TLS on this port')


def test_a_handshake_that_never_ends_is_given_up(spindle):
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen(64)
        server = spindle(settings=settings(silent.getsockname()[1], host='127.0.0.1', connect_timeout_s='0.3')).start()
        wait_refused(server, 'did not finish the TLS handshake in time')


def test_a_broker_that_breaks_off_in_the_handshake_is_tried_again(spindle, authority):
    """It closes after the ClientHello a few times, then answers as a broker should: half a CONNACK later it is gone for good."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*map(str, authority.issue_server()))
    greeted = threading.Event()
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen(64)
        listener.settimeout(DEADLINE_S)

        def serve():
            for _ in range(3):
                with listener.accept()[0] as peer:
                    assert peer.recv(1) == b'\x16'
            with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
                assert peer.recv(1) == b'\x10'
                peer.sendall(b'\x20')
                greeted.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        server = spindle(settings=settings(listener.getsockname()[1], authority)).start()
        assert greeted.wait(DEADLINE_S), server.stderr()
        thread.join(DEADLINE_S)
        assert failures(server) >= 3


def test_files_are_checked_and_read_again(spindle, secure, authority, tmp_path):
    """A certificate that is replaced while Spindle runs is shown from the next connection on."""
    mosquitto = secure(authority, lines=['require_certificate true', 'use_identity_as_username true']).start()
    certificate, key = authority.issue('/CN=first')
    values = settings(mosquitto.tls_port, authority, tls_certificate=certificate, tls_key=key)

    def check(**changed):
        arguments = {**values, **{'ingest.tls.' + name: value for name, value in changed.items()}}
        done = run_cli('check', *[part for name, value in arguments.items() for part in ('--set', '%s=%s' % (name, value))], check=False)
        return done.returncode, done.stdout
    assert check()[0] == 0
    assert check(key='')[0] == 2 and 'belong together' in check(key='')[1]
    assert check(key=authority.issue('/CN=x')[1])[0] == 2
    assert check(ca=tmp_path / 'absent')[0] == 2 and '`ingest.tls.ca`' in check(ca=tmp_path / 'absent')[1]
    ended = authority.issue('/CN=ended', days=-1)
    code, text = check(certificate=ended[0], key=ended[1])
    assert code == 0 and 'ended on' in text, text  # brokers are tried again and again, and it may be replaced meanwhile
    server = spindle(settings=values).start()
    wait_connected(server, mosquitto.tls_port)
    second = authority.issue('/CN=second')
    certificate.write_bytes(second[0].read_bytes())
    key.write_bytes(second[1].read_bytes())
    server.signal(signal.SIGHUP)
    wait_until(lambda: 'configuration was read again' in server.stderr(), 'it was read again')
    mosquitto.kill()
    mosquitto.start()
    wait_connected(server, mosquitto.tls_port)
    wait_until(lambda: "u'second'" in mosquitto.log(), 'it is shown')


def test_what_waits_for_the_disk_is_kept_in_order(spindle, secure, authority):
    """More comes than may be on its way to the disk: links stop in the middle of what TLS has read, and go on there."""
    mosquitto = secure(authority).start()
    values = {**settings(mosquitto.tls_port, authority, connections=1), 'journal.backlog_size_max': '1MiB'}
    server = spindle(settings=values).start()
    wait_connected(server, mosquitto.tls_port, 1)
    with Client(mosquitto.port) as client:
        client.publish_all([('site/a', b'%06d' % number + bytes(90000)) for number in range(400)])
    wait_accepted(server, 400)
    assert server.metrics().get_sum('spindle_ingest_pauses_total') > 0
    server.stop()
    assert [record['payload'][:6] for record in server.journal('bus')] == [b'%06d' % number for number in range(400)]


def test_results_go_out_by_tls(spindle, secure, authority):
    mosquitto = secure(authority).start()
    server = spindle(settings={**settings(mosquitto.tls_port, authority, results='true', results_qos=2, filters=ROOT + '/+/+/#'),
                               'pipeline.grace_s': '0'}).start()
    wait_connected(server, mosquitto.tls_port, 4)
    receiver = Receiver(mosquitto.port)
    with Client(mosquitto.port) as client:
        client.publish_all([message for _ in range(20) for message in Hole().messages()])
    receiver.take(40)
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_results_lag') == 0, 'all are acknowledged')
    receiver.client.close()
    assert set(receiver.answers.values()) == {1}


def test_exactly_once_by_tls_whoever_is_killed(spindle, secure, authority):
    """Spindle is killed under load twice, then Mosquitto while nothing is on its way to it."""
    mosquitto = secure(authority, lines=['autosave_on_changes true', 'autosave_interval 1']).start()
    count = 1200
    server = spindle(settings=settings(mosquitto.tls_port, authority, receive_maximum=30)).start()
    wait_connected(server, mosquitto.tls_port)
    publisher = Publisher(mosquitto.port, count, 2)
    for part in range(1, 3):
        wait_until(lambda: publisher.progress >= count * part // 3, lambda: 'progress %d' % publisher.progress, 3 * DEADLINE_S)
        server.kill()
        server.start()
        wait_connected(server, mosquitto.tls_port)
    publisher.finish()
    wait_payloads(server, {'m%d' % number for number in range(count)})
    mosquitto.kill()
    wait_until(lambda: sum(connections(server).values()) == 0, 'it is gone')
    mosquitto.start()
    wait_connected(server, mosquitto.tls_port)
    with Client(mosquitto.port) as client:
        client.publish('site/a', 'after', 2)
    wait_payloads(server, {'after'})
    assert {payload: times for payload, times in payloads(server).items() if times > 1} == {}


def test_nothing_is_lost_when_the_broker_is_killed_in_the_middle(spindle, secure, authority):
    """Of what it had saved, while it delivers."""
    mosquitto = secure(authority, lines=['autosave_on_changes true', 'autosave_interval 1']).start()
    server = spindle(settings=settings(mosquitto.tls_port, authority, qos=1, receive_maximum=20)).start()
    wait_connected(server, mosquitto.tls_port)
    server.stop()  # so that all of it waits at the broker
    with Client(mosquitto.port) as client:
        client.publish_all([('site/a', 'p%d' % number) for number in range(600)])
    mosquitto.stop()
    mosquitto.start()
    server.start()
    wait_until(lambda: server.metrics().get_sum('spindle_ingest_messages_received_total') >= 20, 'some have come')
    mosquitto.kill()
    mosquitto.start()
    wait_payloads(server, {'p%d' % number for number in range(600)})
    wait_connected(server, mosquitto.tls_port)
