"""Somebody deletes the newest segment of a stream, or its folder, while no server runs: it is noticed, no offset is given twice, and the books
hold."""
import shutil
import struct

import pytest

from holes import Hole
from spindle import json_lines, run_cli, wait_until

STREAMS = ['ingest', 'bus', 'results', 'dead-letters', 'outcomes']
SETTINGS = {'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2, 'pipeline.workers': 1}
BLOCK, FIRST, ENTRY = 4096, 16, 80


def noted_ends(folder):
    """{stream: offset behind the last noted}, as docs/journal.md tells."""
    data, ends = (folder / 'ends').read_bytes(), {}
    for block in (data[:BLOCK], data[BLOCK:2 * BLOCK]):
        magic, version, count = struct.unpack_from('<8sII', block.ljust(FIRST, b'\0'))
        if magic != b'SPNDLEND':
            continue
        assert version == 2
        for i in range(count):
            name, end = struct.unpack_from('<64sQ', block, FIRST + i * ENTRY)
            name = name.rstrip(b'\0').decode()
            ends[name] = max(end, ends.get(name, 0))
    return ends


def ends_of_streams(folder):
    lines = json_lines(run_cli('journal', 'ls', '--data-dir', folder, '--json', check=False).stdout)
    return {line['stream']: line['next_offset'] for line in lines}


def records(folder, stream):
    return json_lines(run_cli('journal', 'cat', '--data-dir', folder, '--stream', stream, '--json', check=False).stdout)


def write_to_all(server, connect):
    """Five holes, five dead letters, five messages of the bus."""
    accepted = server.metrics().streams()['ingest']['accepted']
    client = connect(server)
    for i in range(5):
        client.publish_all(Hole().messages() + [('a/bus', b'%d' % i), (Hole().topic('Nonsense'), b'%d' % i)])
    server.wait_settled(accepted + 20)
    client.close()


@pytest.fixture(params=['stopped', 'killed'])
def used(request, spindle, connect):
    """A server that has ended, and has written to every stream in two lives."""
    server = spindle(settings=SETTINGS).start()
    write_to_all(server, connect)
    server.stop()
    server.start()
    write_to_all(server, connect)
    if request.param == 'stopped':
        server.stop()
    else:
        wait_until(lambda: noted_ends(server.data_dir) == ends_of_streams(server.data_dir), 'the ends of all streams are noted')
        server.kill()
    assert noted_ends(server.data_dir) == ends_of_streams(server.data_dir)
    return server


def newest_with_records(folder, stream):
    files = json_lines(run_cli('journal', 'ls', '--segments', '--stream', stream, '--data-dir', folder, '--json').stdout)[0]['files']
    return max(file['name'] for file in files if file.get('records'))


def check_noticed(folder, stream, first_lost, end):
    """Each command says it, with the offsets."""
    offsets = 'offsets %d to %d are lost' % (first_lost, end - 1)
    audit = run_cli('journal', 'audit', '--data-dir', folder, '--json', check=False)
    of_books = stream == 'outcomes'
    rows = {row['stream']: row for row in json_lines(audit.stdout)}
    assert audit.returncode == 1 and offsets in audit.stderr and not rows['ingest' if of_books else stream]['holds']
    verify = run_cli('journal', 'verify', '--data-dir', folder, '--json', check=False)
    found = [line for line in json_lines(verify.stdout) if 'finding' in line]
    assert verify.returncode == 1
    assert [(f['stream'], f['finding'], f['first_offset'], f['lost']) for f in found] == [(stream, 'missing', first_lost, end - first_lost)]
    if (folder / stream).exists():
        cat = run_cli('journal', 'cat', '--data-dir', folder, '--stream', stream, check=False)
        assert cat.returncode == 1 and offsets in cat.stderr
    listing = run_cli('journal', 'ls', '--data-dir', folder, check=False)
    assert listing.returncode == 1 and offsets in listing.stderr and stream in listing.stderr


@pytest.mark.parametrize('stream', STREAMS)
@pytest.mark.parametrize('gone', ['segment', 'folder'])
def test_the_newest_of_a_stream_is_gone(used, connect, stream, gone):
    folder = used.data_dir
    ends = noted_ends(folder)
    before = {name: records(folder, name) for name in STREAMS}
    victim = newest_with_records(folder, stream)
    for segment in (folder / stream).glob('0*.seg'):
        if segment.name >= victim:
            segment.unlink()
    if gone == 'folder':
        shutil.rmtree(folder / stream)
    first_lost = int(victim.split('.')[0]) if gone == 'segment' else 0
    assert first_lost < ends[stream]
    check_noticed(folder, stream, first_lost, ends[stream])

    used.start()
    assert 'offsets %d to %d are lost' % (first_lost, ends[stream] - 1) in used.stderr()
    used.wait_settled()
    write_to_all(used, connect)
    used.stop()
    for name in STREAMS:
        old = [record for record in before[name] if name != stream or record['offset'] < first_lost]
        now = records(folder, name)
        assert now[:len(old)] == old, name
        assert all(record['offset'] >= ends[name] for record in now[len(old):]) and len(now) > len(old), name
    audit = run_cli('journal', 'audit', '--data-dir', folder)  # holds, of every stream
    assert 'DOES NOT HOLD' not in audit.stdout
    terms = {row['stream']: row for row in json_lines(run_cli('journal', 'audit', '--data-dir', folder, '--json').stdout)}
    assert terms['ingest']['pending'] == 0 and terms['ingest']['accepted'] == ends['ingest'] + 20


@pytest.mark.parametrize('stream', ['bus', 'ingest'])
def test_a_segment_that_is_put_back_is_whole_again(used, connect, stream):
    folder = used.data_dir
    before = records(folder, stream)
    path = folder / stream / newest_with_records(folder, stream)
    path.rename(folder / 'away')
    used.start()
    write_to_all(used, connect)
    used.stop()
    (folder / 'away').rename(path)
    used.start()
    write_to_all(used, connect)
    used.stop()
    now = records(folder, stream)
    assert now[:len(before)] == before and [record['offset'] for record in now] == list(range(len(now)))
    assert run_cli('journal', 'verify', '--data-dir', folder).returncode == 0
    assert run_cli('journal', 'audit', '--data-dir', folder).returncode == 0


def oldest(folder, stream):
    return min((folder / stream).glob('0*.seg'))


def check_lost_beginning(folder, stream, first):
    offsets = 'offsets 0 to %d are lost' % (first - 1)
    verify = run_cli('journal', 'verify', '--data-dir', folder, '--json', check=False)
    found = [line for line in json_lines(verify.stdout) if 'finding' in line]
    assert verify.returncode == 1
    assert [(f['stream'], f['segment'], f['finding'], f['first_offset'], f['lost']) for f in found] == [
        (stream, '%020d.seg' % first, 'missing', 0, first)]
    cat = run_cli('journal', 'cat', '--data-dir', folder, '--stream', stream, check=False)
    assert cat.returncode == 1 and offsets in cat.stderr and '%020d.seg at byte 0' % first in cat.stderr
    assert run_cli('journal', 'cat', '--data-dir', folder, '--stream', stream, '--from', first).stderr == ''
    listing = run_cli('journal', 'ls', '--data-dir', folder, check=False)
    assert listing.returncode == 1 and offsets in listing.stderr and stream in listing.stderr
    audit = run_cli('journal', 'audit', '--full', '--data-dir', folder, '--json', check=False)
    missed = stream in ('ingest', 'results', 'dead-letters')
    assert (audit.returncode == 1, 'stream %s: its first file begins at offset %d' % (stream, first) in audit.stderr) == (missed, missed)


@pytest.mark.parametrize('stream', STREAMS)
def test_the_oldest_of_a_stream_is_gone(used, connect, stream):
    folder = used.data_dir
    path = oldest(folder, stream)
    path.rename(folder / 'away')
    first = int(oldest(folder, stream).stem)
    check_lost_beginning(folder, stream, first)
    used.start()
    used.wait_settled()
    write_to_all(used, connect)
    used.stop()
    assert 'stream %s: its first file begins at offset %d' % (stream, first) in used.stderr()
    check_lost_beginning(folder, stream, first)
    (folder / 'away').rename(path)
    said = len(used.stderr())
    used.start()
    used.stop()
    assert 'first file begins' not in used.stderr()[said:]
    for command in (('verify',), ('audit', '--full'), ('ls',)):
        assert run_cli('journal', *command, '--data-dir', folder).stderr == ''


def test_what_trim_removes_is_not_missed(used):
    folder = used.data_dir
    for stream in STREAMS:
        second = sorted((folder / stream).glob('0*.seg'))[1]
        run_cli('journal', 'trim', '--data-dir', folder, '--stream', stream, '--before', int(second.stem), '--force')
        assert oldest(folder, stream) == second
    assert run_cli('journal', 'verify', '--data-dir', folder).stderr == ''
    assert run_cli('journal', 'ls', '--data-dir', folder).stderr == ''
    used.start()
    used.stop()
    assert 'first file begins' not in used.stderr()
    oldest(folder, 'bus').unlink()  # and what goes behind that is
    verify = run_cli('journal', 'verify', '--data-dir', folder, check=False)
    assert verify.returncode == 1 and 'begins at offset %d' % int(oldest(folder, 'bus').stem) in verify.stdout


def test_a_folder_of_an_older_version_is_read(used, connect):
    """It has no file of ends, and nobody knows where its streams began; it gets one."""
    folder = used.data_dir
    (folder / 'ends').unlink()
    oldest(folder, 'bus').unlink()
    assert run_cli('journal', 'verify', '--data-dir', folder).returncode == 0
    assert run_cli('journal', 'audit', '--data-dir', folder).returncode == 0
    ends = ends_of_streams(folder)
    used.start()
    write_to_all(used, connect)
    used.stop()
    assert all(noted_ends(folder)[stream] > ends[stream] for stream in STREAMS)
    assert run_cli('journal', 'verify', '--data-dir', folder).returncode == 0
