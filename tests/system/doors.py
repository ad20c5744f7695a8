"""What tests of the ways to connect share: certificates made for the occasion, the settings of each way, a WebSocket that breaks rules."""
import base64
import hashlib
import os
import pathlib
import socket
import ssl
import struct
import subprocess

from client import RawClient
from spindle import DEADLINE_S, free_port


def openssl(folder, *arguments):
    done = subprocess.run(['openssl', *map(str, arguments)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout


class Authority:
    """Signs certificates; its own is `path`."""

    def __init__(self, folder, name='authority'):
        self.folder = pathlib.Path(folder)
        self.path = self.folder / (name + '.pem')
        self.key = self.folder / (name + '.key')
        self.made = 0
        openssl(self.folder, 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', 100,
                '-subj', '/CN=' + name, '-keyout', self.key, '-out', self.path)

    def issue(self, subject, names=None, days=90):
        """Returns the paths of a new certificate and its key. `names` are alternative names, as in "DNS:a,email:b@c"."""
        self.made += 1
        stem = self.folder / ('%s-%d' % (self.path.stem, self.made))
        certificate, key, request = stem.with_suffix('.crt'), stem.with_suffix('.key'), stem.with_suffix('.csr')
        openssl(self.folder, 'req', '-utf8', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', subject, '-keyout', key,
                '-out', request)
        extensions = stem.with_suffix('.ext')
        extensions.write_text('subjectAltName=' + names if names else '')
        openssl(self.folder, 'x509', '-req', '-in', request, '-CA', self.path, '-CAkey', self.key, '-CAcreateserial', '-days', days,
                '-extfile', extensions, '-out', certificate)
        return certificate, key

    def issue_server(self, **options):
        return self.issue('/CN=spindle', 'DNS:localhost,IP:127.0.0.1', **options)

    def context(self, certificate=None, version=None):
        """An ssl.SSLContext of a client that trusts this authority, and shows `certificate` (paths, as from issue)."""
        context = ssl.create_default_context(cafile=str(self.path))
        if certificate:
            context.load_cert_chain(*map(str, certificate))
        if version:
            context.minimum_version = context.maximum_version = version
        return context


def tls_settings(certificate, **more):
    """Settings that listen with TLS; `more` are further ones of bus.tls."""
    settings = {'bus.tls.enabled': 'true', 'bus.tls.host': '127.0.0.1', 'bus.tls.port': free_port(), 'bus.tls.certificate': certificate[0],
                'bus.tls.key': certificate[1]}
    settings.update({'bus.tls.' + key: value for key, value in more.items()})
    return settings


def websocket_settings(**more):
    settings = {'bus.websocket.enabled': 'true', 'bus.websocket.host': '127.0.0.1', 'bus.websocket.port': free_port()}
    settings.update({'bus.websocket.' + key: value for key, value in more.items()})
    return settings


def bad_client(server, way, authority):
    """A RawClient that reaches the server in one of WAYS, and speaks what the test wants there."""
    settings = server.settings
    client = RawClient.__new__(RawClient)
    context = authority.context()
    if way == 'tcp':
        client.socket = socket.create_connection(('127.0.0.1', server.port), DEADLINE_S)
    elif way == 'tls':
        plain = socket.create_connection(('127.0.0.1', settings['bus.tls.port']), DEADLINE_S)
        client.socket = context.wrap_socket(plain, server_hostname='localhost')
    elif way == 'unix':
        client.socket = socket.socket(socket.AF_UNIX)
        client.socket.settimeout(DEADLINE_S)
        client.socket.connect(str(settings['bus.unix.path']))
    else:
        secure = way == 'websocket_tls'
        client.socket = WebSocketStream(settings['bus.%s.port' % way], context if secure else None)
    return client


WAYS = ['tcp', 'tls', 'websocket', 'websocket_tls', 'unix']


def all_ways(authority, folder):
    """Settings that listen in every one of WAYS."""
    return {**tls_settings(authority.issue_server()), **websocket_settings(), 'bus.unix.path': folder / 'mqtt.sock',
            'bus.websocket_tls.enabled': 'true', 'bus.websocket_tls.host': '127.0.0.1', 'bus.websocket_tls.port': free_port()}


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CONNECT = b'\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01w'
CONNACK = b'\x20\x02\x00\x00'


def frame(opcode, payload=b'', final=True, masked=True, reserved=0, length=None):
    """A frame of a client's, or what should not be one. `length` is what it says of its length."""
    length = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    mask_bit = 0x80 if masked else 0
    if length < 126:
        head += bytes([mask_bit | length])
    elif length < 65536:
        head += bytes([mask_bit | 126]) + struct.pack('>H', length)
    else:
        head += bytes([mask_bit | 127]) + struct.pack('>Q', length)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    repeated = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, repeated))


class RawWebSocket:
    """A socket that speaks WebSocket as badly as the test wants."""

    def __init__(self, port, context=None):
        self.socket = socket.create_connection(('127.0.0.1', port), DEADLINE_S)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname='localhost')
        self.data = self.mqtt = b''

    def send(self, data):
        self.socket.sendall(data)

    def request(self, path='/mqtt', method='GET', http='HTTP/1.1', key=b'0123456789abcdef', **changed):
        """The bytes of an upgrade. Headers are changed by name with `_` for `-`; None leaves one out, a list repeats it."""
        headers = {'Host': 'localhost', 'Upgrade': 'websocket', 'Connection': 'keep-alive, Upgrade', 'Sec-WebSocket-Version': '13',
                   'Sec-WebSocket-Key': base64.b64encode(key).decode(), 'Sec-WebSocket-Protocol': 'mqttv3.1, mqtt'}
        headers.update({name.replace('_', '-'): value for name, value in changed.items()})
        lines = ['%s %s %s' % (method, path, http)]
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                lines += ['%s: %s' % (name, one)] if one is not None else []
        return '\r\n'.join(lines + ['', '']).encode()

    def answer(self):
        """(status, headers by name in small letters) of the answer to the upgrade."""
        while b'\r\n\r\n' not in self.data:
            more = self.socket.recv(65536)
            assert more, 'closed after %r' % self.data
            self.data += more
        head, self.data = self.data.split(b'\r\n\r\n', 1)
        first, *lines = head.decode().split('\r\n')
        return int(first.split(' ')[1]), {name.lower(): value for name, value in (line.split(': ', 1) for line in lines)}

    def upgrade(self, key=b'0123456789abcdef'):
        self.send(self.request(key=key))
        status, headers = self.answer()
        assert status == 101, status
        expected = hashlib.sha1(base64.b64encode(key) + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()
        assert headers['sec-websocket-accept'] == base64.b64encode(expected).decode()
        assert headers['sec-websocket-protocol'] == 'mqtt'
        return self

    def take(self, count):
        while len(self.data) < count:
            more = self.socket.recv(1 << 18)
            assert more, 'closed after %r' % self.data[:100]
            self.data += more
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def next(self):
        """(opcode, payload) of the next frame, which must be final and not masked."""
        head = self.take(2)
        assert head[0] & 0xf0 == 0x80 and not head[1] & 0x80, head
        length = head[1]
        if length == 126:
            length, = struct.unpack('>H', self.take(2))
        elif length == 127:
            length, = struct.unpack('>Q', self.take(8))
        return head[0] & 15, self.take(length)

    def next_mqtt(self, count):
        """The next `count` bytes of MQTT."""
        while len(self.mqtt) < count:
            opcode, payload = self.next()
            assert opcode == BINARY, (opcode, payload)
            self.mqtt += payload
        taken, self.mqtt = self.mqtt[:count], self.mqtt[count:]
        return taken

    def connect(self):
        """An MQTT 3.1.1 client "w"."""
        self.upgrade()
        self.send(frame(BINARY, CONNECT))
        assert self.next_mqtt(4) == CONNACK
        return self

    def expect_close(self, code):
        """A close with this code, then the end of the connection."""
        opcode, payload = self.next()
        assert opcode == CLOSE, (opcode, payload)
        assert (struct.unpack('>H', payload[:2])[0] if payload else None) == code
        self.expect_end()

    def expect_end(self):
        try:
            more = self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLError):
            more = b''
        assert self.data == b'' and more == b'', self.data + more
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class WebSocketStream:
    """The part of a socket that tests use, with MQTT in and out of frames."""

    def __init__(self, port, context=None):
        self.raw = RawWebSocket(port, context).upgrade()

    def sendall(self, data):
        for at in range(0, len(data), 1 << 16):
            self.raw.send(frame(BINARY, data[at:at + (1 << 16)]))

    def recv(self, count):
        while not self.raw.mqtt:
            opcode, payload = self.raw.next()
            if opcode != BINARY:
                return b''
            self.raw.mqtt = payload
        taken, self.raw.mqtt = self.raw.mqtt[:count], self.raw.mqtt[count:]
        return taken

    def close(self):
        self.raw.socket.close()
