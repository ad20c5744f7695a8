#!/usr/bin/env python3
"""Reads a stream of Spindle's journal: an example for those who write a reader of their own (docs/journal.md).

    read_journal.py spindle-data/results

Prints offset, topic, payload and the offsets of its sources, record by record; of a result whether it was withheld. Checksums are checked where the Python package xxhash is
installed; without it, old records in a segment that was used again cannot be told from new ones. It stops at the first record of a segment
that does not check out; `spindle journal cat` looks for the next one. Packed payloads and compressed segments need the Python package
zstandard.
"""
import os
import re
import struct
import sys

try:
    from xxhash import xxh3_64_intdigest as xxh3
except ImportError:
    xxh3 = None
try:
    from zstandard import ZstdDecompressor
except ImportError:
    ZstdDecompressor = None

VERSIONS, COMPRESSED, HEADER_SIZE, COPY_SIZE, RECORD_HEADER_SIZE, FRAME_HEADER_SIZE = (2, 3, 4), 4, 8192, 4096, 48, 64
PACKED, WITHHELD, SEAL = 0x10, 0x20, 0x40


def read_header(block):
    """Returns (version, key, base offset, stream name) of a segment."""
    for at in (0, COPY_SIZE):
        copy = block[at:at + COPY_SIZE]
        magic, version, size, key, base_offset, _created_ns = struct.unpack_from('<8sIIQQQ', copy)
        checksum, = struct.unpack_from('<Q', copy, COPY_SIZE - 8)
        if magic != b'SPNDLSEG' or (xxh3 and xxh3(copy[:COPY_SIZE - 8]) != checksum):
            continue
        if version not in VERSIONS or size != HEADER_SIZE:
            raise SystemExit('format version %d is not known' % version)
        return version, key, base_offset, copy[40:104].rstrip(b'\0').decode()
    raise ValueError('no valid header')


def decompress(content, size):
    if not ZstdDecompressor:
        raise SystemExit('it is compressed; install the Python package zstandard')
    return ZstdDecompressor().decompress(content, max_output_size=size)


def unpack(payload):
    size, = struct.unpack_from('<I', payload)
    return decompress(payload[4:], size)


def expand(data):
    """The records of a compressed segment, as they stood before, up to the first frame that does not check out."""
    at, parts = HEADER_SIZE, []
    while data[at:at + 8] == b'SPNDLFRM':
        content_sum, _records, raw_size, size = struct.unpack_from('<QIII', data, at + 40)
        content = data[at + FRAME_HEADER_SIZE:at + FRAME_HEADER_SIZE + size]
        if len(content) != size or (xxh3 and xxh3(content) != content_sum):
            break
        parts.append(decompress(content, raw_size))
        at += FRAME_HEADER_SIZE + (size + 7) // 8 * 8
    return b''.join(parts)


def read_records(path):
    """Yields (offset, time_ns, topic, properties, payload, sources, flags) of a segment."""
    with open(path, 'rb') as file:
        data = file.read()
    version, key, base_offset, _stream = read_header(data[:HEADER_SIZE])
    if version == COMPRESSED:
        data = data[:HEADER_SIZE] + expand(data)
    salt = xxh3(struct.pack('<QQ', key, base_offset)) if xxh3 else None
    at = HEADER_SIZE
    while at + RECORD_HEADER_SIZE <= len(data):
        fields = struct.unpack_from('<IHBBQQQIIQ', data, at)
        length, topic_size, flags, source_count, checksum, offset, time_ns, property_size, payload_size, header_sum = fields
        content_size = topic_size + property_size + payload_size
        if length != (RECORD_HEADER_SIZE + content_size + 7) // 8 * 8 + 8 * source_count or at + length > len(data):
            return
        if xxh3:
            content_sum = xxh3(data[at + RECORD_HEADER_SIZE:at + length])
            if xxh3(data[at:at + 8] + data[at + 16:at + 40] + struct.pack('<Q', salt)) != header_sum:
                return
            if xxh3(struct.pack('<QQQ', content_sum, header_sum, salt)) != checksum:
                return
        if not flags & SEAL:
            content = data[at + RECORD_HEADER_SIZE:at + RECORD_HEADER_SIZE + content_size]
            topic, rest = content[:topic_size], content[topic_size:]
            sources = struct.unpack_from('<%dQ' % source_count, data, at + length - 8 * source_count)
            payload = unpack(rest[property_size:]) if flags & PACKED else rest[property_size:]
            yield offset, time_ns, topic.decode(), rest[:property_size], payload, sources, flags
        at += length


def main():
    folder = sys.argv[1]
    for name in sorted(n for n in os.listdir(folder) if re.fullmatch(r'\d{20}\.seg', n)):
        for offset, _time_ns, topic, _properties, payload, sources, flags in read_records(os.path.join(folder, name)):
            print(offset, topic, *['(withheld)'] * bool(flags & WITHHELD), payload.decode(errors='replace'), list(sources))


if __name__ == '__main__':
    main()
