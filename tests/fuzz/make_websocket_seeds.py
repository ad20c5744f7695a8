#!/usr/bin/env python3
"""Writes the seeds of the WebSocket fuzz target into tests/fuzz/corpus/websocket/: requests and frames, right and wrong.

    tests/fuzz/make_websocket_seeds.py

The output is the same every time. Standard library only.
"""
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / 'corpus' / 'websocket'
UPGRADED = 1
PIECES_OF_1, PIECES_OF_7 = 0 << 2, 6 << 2
CONNECT = b'\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01w'
REQUEST = (b'GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n'
           b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n')


def frame(first, payload, length=None):
    length = len(payload) if length is None else length
    mask = b'\x37\xfa\x21\x3d'
    head = bytes([first]) + (bytes([0x80 | length]) if length < 126 else b'\xfe' + struct.pack('>H', length) if length < 65536
                             else b'\xff' + struct.pack('>Q', length))
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


SEEDS = {
    'upgrade': (PIECES_OF_1, REQUEST + frame(0x82, CONNECT)),
    'upgrade_path': (PIECES_OF_7, REQUEST.replace(b'/mqtt', b'/other')),
    'upgrade_query': (PIECES_OF_7, REQUEST.replace(b'/mqtt', b'/mqtt?a=b')),
    'upgrade_version': (PIECES_OF_7, REQUEST.replace(b': 13', b': 8')),
    'upgrade_protocol': (PIECES_OF_7, REQUEST.replace(b', mqtt', b'')),
    'upgrade_key': (PIECES_OF_7, REQUEST.replace(b'==', b'=')),
    'upgrade_body': (PIECES_OF_7, REQUEST.replace(b'Host: a', b'Host: a\r\nContent-Length: 3')),
    'upgrade_long': (PIECES_OF_7, b'GET /mqtt HTTP/1.1\r\nX: ' + b'a' * 8200),
    'binary': (UPGRADED | PIECES_OF_1, frame(0x82, CONNECT) + frame(0x82, b'\xc0\x00' * 3)),
    'fragments': (UPGRADED | PIECES_OF_7, frame(0x02, CONNECT[:5]) + frame(0x89, b'ping') + frame(0x00, b'') + frame(0x80, CONNECT[5:])),
    'long': (UPGRADED | PIECES_OF_7, frame(0x82, bytes(range(256)))),
    'largest': (UPGRADED | PIECES_OF_7, frame(0x82, b'', 4096)),
    'too_large': (UPGRADED | PIECES_OF_7, frame(0x82, b'', 1 << 40)),
    'text': (UPGRADED, frame(0x81, b'hello')),
    'pings': (UPGRADED | PIECES_OF_1, frame(0x89, b'a') + frame(0x89, b'x' * 125) + frame(0x8a, b'')),
    'close': (UPGRADED | PIECES_OF_1, frame(0x82, b'\xe0\x00') + frame(0x88, b'\x03\xe8bye')),
    'close_code': (UPGRADED, frame(0x88, b'\x03\xed')),
    'close_text': (UPGRADED, frame(0x88, b'\x03\xe8\xff')),
    'close_empty': (UPGRADED, frame(0x88, b'')),
    'reserved': (UPGRADED, frame(0xc2, b'x')),
    'not_masked': (UPGRADED, b'\x82\x02\xc0\x00'),
    'continuation': (UPGRADED, frame(0x80, b'x')),
    'length_16': (UPGRADED, b'\x82\xfe\x00\x05' + bytes(4)),
    'length_64': (UPGRADED, b'\x82\xff' + struct.pack('>Q', 1 << 63) + bytes(4)),
}


def main():
    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, (habits, data) in SEEDS.items():
        (CORPUS / name).write_bytes(bytes([habits]) + data)


if __name__ == '__main__':
    main()
