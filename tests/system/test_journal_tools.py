"""journal ls, verify (with --salvage), trim, prove, and what cat and audit tell beyond the basics: beside a running server, on a stopped one's
folder, and on copies that were damaged on purpose."""
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest

from client import Client
from holes import Hole, stack_curve
from sessions import Visit
from spindle import BINARY, DEADLINE_S, Spindle, json_lines, run_cli, wait_until

STREAMS = ['ingest', 'bus', 'results', 'dead-letters', 'outcomes', 'retained', 'brokers', 'sessions']
HEADER = 8192
SETTINGS = {'journal.segment_size': '1MiB', 'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2}


def fill(server, client, holes=4, bus=900):
    """Messages of every fate, over several segments: answered, repeated, dead-lettered; and others for the bus."""
    messages = [m for hole in [Hole(curve=stack_curve(feed_mm=0.2)) for _ in range(holes)] for m in hole.messages()]
    client.publish_all(messages + messages[:3])
    client.publish_all([(Hole().topic('Nonsense'), b'%06d' % i + b'x' * 2000) for i in range(700)])
    for i in range(20):
        client.publish('state/%d' % (i % 5), b'%d' % i, retain=True)
    client.publish_all([('bus/%d/value' % (i % 3), b'%06d' % i + b'y' * 1500) for i in range(bus)])
    server.wait_settled()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The folder of a server that was killed once, and stopped in order at the end."""
    server = Spindle(tmp_path_factory.mktemp('used'), settings=SETTINGS).start()
    client = Client(server.port)
    fill(server, client)
    client.close()
    server.kill()
    server.start()
    client = Client(server.port)
    fill(server, client)
    client.close()
    server.stop()
    return server.data_dir


@pytest.fixture
def copy(data, tmp_path):
    shutil.copytree(data, tmp_path / 'copy')
    return tmp_path / 'copy'


def tool(command, folder, *arguments):
    """(exit status, JSON objects, standard error)"""
    done = run_cli(*command.split(), '--data-dir', folder, '--json', *arguments, check=False)
    return done.returncode, json_lines(done.stdout), done.stderr


def verify(folder, *arguments):
    """(exit status, findings, {stream: row})"""
    status, lines, _ = tool('journal verify', folder, *arguments)
    return status, [line for line in lines if 'finding' in line], {line['stream']: line for line in lines if 'ok' in line}


def segments(folder, stream):
    return sorted((folder / stream).glob('0*.seg'))


def records(folder, stream):
    return json_lines(run_cli('journal', 'cat', '--data-dir', folder, '--stream', stream, '--json', check=False).stdout)


def flip(path, position):
    with open(path, 'r+b') as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x10]))


def state(folder):
    """Names, sizes and times of change of all files."""
    return {str(f.relative_to(folder)): (f.stat().st_size, f.stat().st_mtime_ns) for f in folder.rglob('*') if f.is_file()}


def restart(spindle, folder):
    """A server on that folder, once everything is settled."""
    server = spindle(settings=SETTINGS)
    shutil.move(folder, server.data_dir)
    server.start()
    server.wait_settled()
    return server


# ---- ls ----

def test_ls_tells_what_lies_there(copy):
    status, rows, stderr = tool('journal ls', copy, '--segments')
    assert (status, stderr) == (0, '') and [row['stream'] for row in rows] == STREAMS
    for row in rows:
        kept = records(copy, row['stream']) if row['stream'] != 'outcomes' else None
        files = [f for f in row['files'] if 'records' in f]
        assert [f['name'] for f in files] == [p.name for p in segments(copy, row['stream'])]
        assert row['segments'] == len(files) and row['bytes'] == sum(p.stat().st_size for p in segments(copy, row['stream']))
        assert sum(f['records'] for f in files) == row['next_offset'] - row['first_offset']
        newest = 'closed' if row['next_offset'] else 'active'  # the server was stopped in order; one to which nothing was written
        assert {f['state'] for f in files} == {newest}
        assert {f['state'] for f in row['files']} - {newest} <= {'prepared'}
        if kept:
            assert (kept[0]['offset'], kept[-1]['offset'] + 1) == (row['first_offset'], row['next_offset'])
            assert (kept[0]['time_ns'], kept[-1]['time_ns']) == (row['oldest_ns'], row['newest_ns'])
            assert all(f['created_ns'] <= kept[f['base_offset']]['time_ns'] + 60e9 for f in files if f['records'])
    ingest = rows[0]
    assert (ingest['cursor'], ingest['lag'], ingest['pending']) == (ingest['next_offset'], 0, 0)
    assert 'cursor' not in rows[1]
    table = run_cli('journal', 'ls', '--data-dir', copy, '--stream', 'bus', '--segments').stdout.splitlines()
    assert table[0].split()[0] == 'stream' and table[1].split()[0] == 'bus' and table[2].split()[0] == segments(copy, 'bus')[0].name


def test_ls_beside_a_running_server(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    hole = Hole()
    connect(server).publish_all([hole.messages()[0], ('x', b'y')])
    _, rows, _ = tool('journal ls', server.data_dir, '--segments')
    assert (rows[0]['next_offset'], rows[0]['cursor'], rows[0]['lag'], rows[0]['pending']) == (1, 0, 1, 1)
    assert [f['state'] for f in rows[1]['files'] if 'records' in f] == ['active']
    server.metrics()


def test_ls_where_there_is_nothing(tmp_path):
    status, rows, stderr = tool('journal ls', tmp_path)
    assert (status, rows) == (2, []) and 'no stream' in stderr
    assert tool('journal ls', tmp_path / 'nowhere')[0] == 2


# ---- verify ----

def test_verify_of_a_whole_folder(copy):
    before = state(copy)
    status, findings, rows = verify(copy)
    assert (status, findings) == (0, []) and set(rows) == set(STREAMS)
    for stream, row in rows.items():
        assert row['ok'] and row['records'] == row['next_offset'] - row['first_offset'] and row['lost'] == 0
    assert state(copy) == before


def test_verify_beside_a_running_server_under_load(spindle, connect):
    """What is being written is no damage."""
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    fill(server, client, holes=1)
    tokens = []
    for round in range(6):
        tokens += [client.post('bus/load', b'z' * 3000) for _ in range(300)]
        tokens += [client.post(Hole().topic('Nonsense'), b'z' * 300) for _ in range(300)]
        status, findings, _ = verify(server.data_dir)
        assert (status, [f for f in findings if f['damage']]) == (0, [])
    for token in tokens:
        token.wait_for_publish(DEADLINE_S)
    server.wait_settled()


def written(path):
    """Bytes of a segment up to its last record. Behind it lies what was zeroed ahead, much of it when a large group did not fit."""
    return len(path.read_bytes().rstrip(b'\0'))


def damaged(copy, stream, index, position):
    """Flips a bit, and returns the finding, which must be the only one, with the offsets that are missing since."""
    before = [r['offset'] for r in records(copy, stream)]
    flip(segments(copy, stream)[index], position)
    status, findings, rows = verify(copy)
    assert status == 1 and len(findings) == 1
    [finding] = findings
    assert finding['stream'] == stream and finding['segment'] == segments(copy, stream)[index].name and finding['damage']
    assert not rows[stream]['ok'] and rows[stream]['damages'] == 1 and rows[stream]['lost'] == finding['lost']
    after = [r['offset'] for r in records(copy, stream)]
    assert rows[stream]['records'] == len(after)
    return finding, sorted(set(before) - set(after))


@pytest.mark.parametrize('index', [0, 1, -1])
@pytest.mark.parametrize('stream', ['ingest', 'bus', 'dead-letters'])
def test_a_flipped_bit_costs_one_record_and_is_named(copy, stream, index):
    position = HEADER + (written(segments(copy, stream)[index]) - HEADER) // 2
    finding, missing = damaged(copy, stream, index, position)
    assert finding['finding'] == 'records' and missing == [finding['first_offset']] and finding['lost'] == 1
    assert finding['position'] <= position < finding['position'] + finding['length']
    said = run_cli('journal', 'verify', '--data-dir', copy, '--stream', stream, check=False)
    assert ': 1 damage, 1 record lost\n' in said.stdout


def test_one_copy_of_a_header(copy):
    finding, missing = damaged(copy, 'ingest', 1, 100)
    assert (finding['finding'], finding['position'], finding['lost'], missing) == ('header-copy', 0, 0, [])
    flip(segments(copy, 'ingest')[1], 4096 + 100)
    _, findings, rows = verify(copy)
    assert [f['finding'] for f in findings] == ['header'] and rows['ingest']['lost'] == 0


def set_versions(path, version, foreign=False):
    """Writes the version into both copies of the header; `foreign`: that of a made-up later one, whose sum stands elsewhere."""
    for start in (0, 4096):
        with open(path, 'r+b') as file:
            file.seek(start + 8)
            file.write(struct.pack('<I', version))
            if foreign:
                file.seek(start + 200)
                file.write(b'new')


def test_a_damaged_version_costs_a_header_and_no_more(copy, tmp_path, spindle):
    before = records(copy, 'ingest')
    set_versions(segments(copy, 'ingest')[1], 9)
    status, findings, rows = verify(copy)
    assert status == 1 and [f['finding'] for f in findings] == ['header'] and rows['ingest']['lost'] == 0 and set(rows) == set(STREAMS)
    assert records(copy, 'ingest') == before
    assert run_cli('journal', 'audit', '--data-dir', copy).returncode == 0
    salvaged = tmp_path / 'salvaged'
    assert run_cli('journal', 'verify', '--data-dir', copy, '--salvage', salvaged, check=False).returncode == 1
    assert [(r['offset'], r['payload']) for r in records(salvaged, 'ingest')] == [(r['offset'], r['payload']) for r in before]
    server = restart(spindle, copy)
    assert records(server.data_dir, 'ingest') == before


@pytest.mark.parametrize('index', [1, -1])
def test_a_later_version_is_refused_and_named(copy, tmp_path, spindle, index):
    set_versions(segments(copy, 'ingest')[index], 5, foreign=True)
    before = state(copy)
    words = 'unknown format version'
    status, _, rows = verify(copy)
    assert status == 1 and set(rows) == set(STREAMS) and words in rows['ingest']['error'] and not rows['ingest']['ok']
    assert all(row['ok'] and 'error' not in row for stream, row in rows.items() if stream != 'ingest')
    listing = run_cli('journal', 'ls', '--data-dir', copy, '--json', check=False)
    rows = {row['stream']: row for row in json_lines(listing.stdout)}
    assert set(rows) == set(STREAMS) and ('error' in rows['ingest']) == (index == -1) == (listing.returncode == 1)
    audit = run_cli('journal', 'audit', '--data-dir', copy, '--json', check=False)
    rows = {row['stream']: row for row in json_lines(audit.stdout)}
    assert audit.returncode == 1 and words in rows['ingest']['why'] and rows['bus']['holds']
    cat = run_cli('journal', 'cat', '--data-dir', copy, check=False)
    assert cat.returncode == 1 and words in cat.stderr
    salvage = run_cli('journal', 'verify', '--data-dir', copy, '--salvage', tmp_path / 'salvaged', check=False)
    assert salvage.returncode == 1 and words in salvage.stderr and 'starts on it' not in salvage.stdout
    server = spindle()
    shutil.copytree(copy, server.data_dir)
    with pytest.raises(AssertionError):
        server.start()
    assert words in server.stderr() and 'another version' in server.stderr()
    assert state(copy) == before
    shutil.rmtree(server.data_dir)


def test_a_missing_segment_and_a_cut_one(copy):
    paths = segments(copy, 'bus')
    lost = range(int(paths[1].stem), int(paths[2].stem))
    paths[1].unlink()
    os.truncate(paths[0], written(paths[0]) // 4)
    status, findings, rows = verify(copy)
    assert status == 1 and [f['finding'] for f in findings] == ['missing']
    [finding] = findings
    assert finding['segment'] == paths[0].name and finding['first_offset'] < lost[0]
    assert finding['first_offset'] + finding['lost'] == lost[-1] + 1
    assert len(records(copy, 'bus')) == rows['bus']['records'] == rows['bus']['next_offset'] - finding['lost']


def test_a_torn_end_is_no_damage(copy):
    """The last segment of a server that was killed while it wrote: the file ends within a record."""
    path = segments(copy, 'bus')[-1]
    os.truncate(path, path.stat().st_size - 48 - 100)  # the seal, and a piece of the last record
    status, findings, rows = verify(copy)  # it had been written: somebody has cut the file
    assert status == 1 and [(f['finding'], f['damage'], f['lost']) for f in findings] == [('torn', False, 0), ('missing', True, 1)]
    (copy / 'ends').unlink()
    status, findings, rows = verify(copy)
    assert status == 0 and rows['bus']['ok']
    [finding] = findings
    assert (finding['finding'], finding['damage'], finding['lost']) == ('torn', False, 0)
    assert finding['position'] + finding['length'] == path.stat().st_size
    done = run_cli('journal', 'verify', '--data-dir', copy)
    assert 'note: bus/%s' % path.name in done.stdout and 'not' not in done.stderr


def test_a_segment_of_another_stream(copy):
    ours, other = segments(copy, 'bus')[0], segments(copy, 'ingest')[0]
    shutil.copy(other, ours)
    status, findings, _ = verify(copy, '--stream', 'bus')
    assert status == 1 and findings[0]['finding'] == 'foreign'


def test_outcomes_of_messages_that_do_not_exist(copy):
    last = segments(copy, 'ingest')[-1]
    first_lost = int(last.stem)
    last.unlink()
    status, findings, rows = verify(copy)
    assert status == 1 and [(f['stream'], f['finding'], f['first_offset']) for f in findings] == [('ingest', 'missing', first_lost)]
    (copy / 'ends').unlink()  # then only the others tell
    status, findings, rows = verify(copy)
    assert status == 1 and {f['finding'] for f in findings} == {'content'}
    assert {f['stream'] for f in findings} == {'outcomes', 'dead-letters', 'results'} - ({'results'} if rows['results']['ok'] else set())
    assert all(re.search(r'speaks of offset \d+ of ingest, which ends before offset %d' % first_lost, f['text']) for f in findings)


def test_many_damages_do_not_stop_it(copy):
    path = max(segments(copy, 'bus')[:-1], key=written)
    for position in range(HEADER + 700, written(path), 9973):
        flip(path, position)
    status, findings, rows = verify(copy)
    assert status == 1 and len(findings) > 30
    assert rows['bus']['lost'] == sum(f['lost'] for f in findings)
    assert rows['bus']['records'] + rows['bus']['lost'] == rows['bus']['next_offset']
    assert rows['bus']['records'] == len(records(copy, 'bus'))


# ---- salvage ----

def salvaged(copy, tmp_path):
    """Salvages the copy; every record that could be read is in the new folder as it was."""
    to = tmp_path / 'salvaged'
    before = state(copy)
    status, lines, _ = tool('journal verify', copy, '--salvage', to)
    assert state(copy) == before
    assert lines[-1]['salvage'] == str(to)
    for stream in ('ingest', 'bus', 'results', 'dead-letters'):
        assert records(to, stream) == records(copy, stream)
    assert lines[-1]['records'] == sum(line['records'] for line in lines if 'ok' in line)
    return status, to


def test_salvage_of_a_whole_folder(copy, tmp_path, spindle):
    status, to = salvaged(copy, tmp_path)
    assert status == 0 and verify(to)[0] == 0
    expected = tool('journal audit', copy)[1]
    assert tool('journal audit', to)[1] == expected
    server = restart(spindle, to)
    terms = server.metrics().streams()['ingest']
    assert {term: expected[0][term] for term in terms} == terms
    server.stop()
    assert verify(server.data_dir)[0] == 0


def test_salvage_of_a_damaged_folder_gives_up_what_is_lost_and_nothing_else(copy, tmp_path, spindle, connect):
    paths = segments(copy, 'ingest')
    for position in range(HEADER + 500, paths[0].stat().st_size, 99991):
        flip(paths[0], position)
    segments(copy, 'bus')[1].unlink()
    for position in range(HEADER + 50, 9000, 300):
        flip(segments(copy, 'outcomes')[0], position)
    status, to = salvaged(copy, tmp_path)
    assert status == 1
    _, findings, _ = verify(to)
    assert {f['finding'] for f in findings} == {'missing'}  # what is lost stays a gap that is told of
    server = restart(spindle, to)
    before = tool('journal audit', server.data_dir)[1][0]
    assert before['holds'] and before['pending'] == 0
    hole = Hole()
    connect(server).publish_all(hole.messages())
    assert server.wait_settled(before['accepted'] + 3).streams()['ingest']['completed'] == before['completed'] + 3
    server.stop()


@pytest.mark.parametrize('stream', STREAMS[:-2])  # nothing is written to the last two where there is no other broker, nor a session
def test_salvage_when_the_end_is_lost_never_gives_an_offset_twice(copy, tmp_path, spindle, connect, stream):
    end = tool('journal ls', copy, '--stream', stream)[1][0]['next_offset']
    segments(copy, stream)[-1].unlink()
    status, to = salvaged(copy, tmp_path)
    assert status == 1
    server = restart(spindle, to)
    kept = {record['offset'] for record in records(server.data_dir, stream) if record['offset'] < end}
    assert kept <= {record['offset'] for record in records(copy, stream)}
    client = connect(server)
    client.publish_all(Hole().messages() + [('a/bus', b'new'), (Hole().topic('Nonsense'), b'new')])
    client.publish('state/new', b'new', retain=True)
    wait_until(lambda: records(server.data_dir, stream)[-1]['offset'] >= end, 'a new record in ' + stream)
    server.wait_settled()
    assert next(record['offset'] for record in records(server.data_dir, stream) if record['offset'] not in kept) == end
    assert server.audit()['ingest']['holds']


def test_salvage_of_messages_of_which_only_outcomes_tell(copy, tmp_path):
    end = tool('journal ls', copy, '--stream', 'ingest')[1][0]['next_offset']
    segments(copy, 'ingest')[-1].unlink()
    (copy / 'ends').unlink()
    _, to = salvaged(copy, tmp_path)
    assert tool('journal ls', to, '--stream', 'ingest')[1][0]['next_offset'] == end


def test_salvage_of_a_stream_whose_folder_is_gone(copy, tmp_path):
    shutil.rmtree(copy / 'bus')
    status, findings, rows = verify(copy, '--salvage', tmp_path / 'to')
    lost = rows['bus']['lost']
    assert status == 1 and [(f['stream'], f['finding'], f['first_offset']) for f in findings] == [('bus', 'missing', 0)] and lost > 0
    assert tool('journal ls', tmp_path / 'to', '--stream', 'bus')[1][0]['next_offset'] == lost


def test_salvage_into_a_place_that_cannot_be_written(copy, tmp_path):
    (tmp_path / 'file').touch()
    for place, words in (('file/below', 'something on this path is a file'), ('above/below', 'the folder above it does not exist')):
        done = run_cli('journal', 'verify', '--data-dir', copy, '--salvage', tmp_path / place, check=False)
        assert done.returncode == 1 and 'cannot be made' in done.stderr and words in done.stderr


def test_salvage_refuses_a_folder_that_is_not_empty(copy, tmp_path):
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken' / 'file').touch()
    status, lines, stderr = tool('journal verify', copy, '--salvage', tmp_path / 'taken')
    assert (status, lines) == (2, []) and 'not empty' in stderr
    assert tool('journal verify', copy, '--stream', 'bus', '--salvage', tmp_path / 'c')[0] == 2


def test_salvage_refuses_a_folder_within_the_data_folder(copy, tmp_path):
    """However it is written: what is salvaged would lie among what is read, and in the way of the server."""
    (copy / 'empty').mkdir()
    (tmp_path / 'link').symlink_to(copy)
    (tmp_path / 'far').mkdir()
    bus = tmp_path / 'elsewhere'  # a stream on another disk
    (copy / 'bus').rename(bus)
    (copy / 'bus').symlink_to(bus)
    before = sorted(copy.rglob('*'))
    for to in (copy, f'{copy}/', copy / '.', copy / 'new', f'{copy}/new//', copy / 'empty', copy / 'bus' / 'new', tmp_path / 'link',
               tmp_path / 'link' / 'new', tmp_path / 'far' / '..' / copy.name / 'new', copy / 'empty' / '..', bus / 'new'):
        status, lines, stderr = tool('journal verify', copy, '--salvage', to)
        assert (status, lines) == (2, []) and f'--salvage: {to} is the data folder' in stderr, (to, stderr)
    assert tool('journal verify', tmp_path / 'link', '--salvage', copy / 'new')[0] == 2
    assert sorted(copy.rglob('*')) == before and not (bus / 'new').exists()
    beside = str(copy) + '-salvaged'  # its name begins with that of the data folder
    assert tool('journal verify', copy, '--salvage', beside)[0] == 0
    assert tool('journal verify', copy, '--salvage', copy / '..' / 'beside')[0] == 0


# ---- trim ----

def test_trim_removes_whole_segments_from_the_oldest(copy):
    paths = segments(copy, 'bus')
    border = int(paths[2].stem)
    before = state(copy)
    status, [plan], _ = tool('journal trim', copy, '--stream', 'bus', '--before', border + 1, '--dry-run')
    assert status == 0 and state(copy) == before
    assert plan == {'stream': 'bus', 'dry_run': True, 'segments': 2, 'bytes': sum(p.stat().st_size for p in paths[:2]),
                    'first_offset': border, 'kept_back': 0, 'pending_lost': 0}
    status, [done], _ = tool('journal trim', copy, '--stream', 'bus', '--before', border + 1)
    assert status == 0 and done == {**plan, 'dry_run': False}
    assert segments(copy, 'bus') == paths[2:] and records(copy, 'bus')[0]['offset'] == border
    assert verify(copy)[0] == 0


def test_trim_by_size_and_age_leaves_the_newest(copy, spindle, connect):
    sizes = [p.stat().st_size for p in segments(copy, 'bus')]
    tool('journal trim', copy, '--stream', 'bus', '--keep-size', sizes[-1] + sizes[-2] + 1)
    assert len(segments(copy, 'bus')) == 3
    assert tool('journal trim', copy, '--stream', 'bus', '--older-than', '1d')[1][0]['segments'] == 0
    assert tool('journal trim', copy, '--stream', 'bus', '--older-than', '0s')[1][0]['segments'] == 2
    [last] = segments(copy, 'bus')
    next_offset = tool('journal ls', copy, '--stream', 'bus')[1][0]['next_offset']
    tool('journal trim', copy, '--stream', 'dead-letters', '--older-than', '0s')
    tool('journal trim', copy, '--stream', 'ingest', '--older-than', '0s')
    tool('journal trim', copy, '--stream', 'outcomes', '--older-than', '0s')
    assert verify(copy)[0] == 0 and tool('journal audit', copy)[0] == 0
    server = restart(spindle, copy)
    connect(server).publish('goes/on', b'')
    assert server.journal('bus')[-1]['offset'] == next_offset


def test_trim_by_size_counts_what_was_written_and_not_what_was_prepared(spindle, connect):
    """Of a server that was killed the newest segment is zeros for the most part."""
    server = spindle(settings={'journal.segment_size': '4MiB'}).start()
    connect(server).publish_all([('kept', b'%06d' % i + bytes(1000)) for i in range(3000)])
    for _ in range(2):
        server.kill()
        server.start()
    server.kill()
    assert tool('journal trim', server.data_dir, '--stream', 'bus', '--keep-size', '2MiB')[0] == 0
    assert len(server.journal('bus')) == 3000


def test_trim_keeps_what_has_no_outcome_unless_forced(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    fill(server, client, holes=1, bus=0)
    waiting = Hole()
    client.publish_all([waiting.messages()[0]])
    client.publish_all([(Hole().topic('Nonsense'), b'x' * 2000)] * 1500)
    wait_until(lambda: server.metrics().streams()['ingest']['pending'] == 1, 'one message waits')
    server.kill()
    [pending] = tool('journal audit', server.data_dir, '--pending')[1][0]['pending_offsets']
    status, [done], stderr = tool('journal trim', server.data_dir, '--stream', 'ingest', '--before', 10**9)
    assert status == 1 and done['kept_back'] > 0 and done['pending_lost'] == 0 and 'without an outcome' in stderr
    assert done['first_offset'] <= pending['first']
    assert server.journal('ingest')[0]['offset'] == done['first_offset']
    status, [done], stderr = tool('journal trim', server.data_dir, '--stream', 'ingest', '--before', 10**9, '--force')
    assert status == 0 and done['pending_lost'] == 1 and done['first_offset'] > pending['first']
    assert '1 messages without an outcome are lost' in stderr and 'damaged' in stderr
    server.start()
    server.wait_settled()
    assert server.metrics().get_sum('spindle_dead_lettered_total', stream='ingest', reason='damaged') == 1


@pytest.mark.parametrize('arguments, words', [
    (['--before', '1'], '--stream is missing'),
    (['--stream', 'bus'], 'nothing says what is to go'),
    (['--stream', 'bus', '--older-than', 'week'], 'expected an age such as'),
    (['--stream', 'nothing', '--before', '1'], 'no stream `nothing`')])
def test_trim_says_what_is_missing(copy, arguments, words):
    status, _, stderr = tool('journal trim', copy, *arguments)
    assert status == 2 and words in stderr


# ---- audit ----

def test_audit_names_what_is_pending(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    holes = [Hole(), Hole()]
    client.publish_all([(holes[0].topic('Nonsense'), b'{}')])
    client.publish_all([m for hole in holes for m in hole.messages()[:1]] + [holes[1].messages()[2]])
    wait_until(lambda: server.metrics().streams()['ingest']['pending'] == 3, 'three wait')
    for end in (lambda: None, server.kill):
        end()
        status, rows, _ = tool('journal audit', server.data_dir, '--pending')
        assert status == 0
        assert list(rows[0]) == ['stream', 'accepted', 'completed', 'duplicates', 'dead_lettered', 'pending', 'holds', 'pending_offsets']
        kept = {r['offset']: r for r in records(server.data_dir, 'ingest')}
        named = [offset for row in rows[0]['pending_offsets'] for offset in range(row['first'], row['last'] + 1)]
        assert named == [1, 2, 3] and sum(row['count'] for row in rows[0]['pending_offsets']) == 3
        for row in rows[0]['pending_offsets']:
            assert row['topic'] == kept[row['first']]['topic'] and row['time_ns'] == kept[row['first']]['time_ns']
            assert 0 <= row['age_s'] < 600
    text = run_cli('journal', 'audit', '--data-dir', server.data_dir, '--pending').stdout
    assert re.search(r'^ +pending 1, since .* s: ' + re.escape(holes[0].messages()[0][0]) + '$', text, re.M)


def test_audit_recounts_everything(copy):
    status, rows, stderr = tool('journal audit', copy, '--full')
    assert (status, stderr) == (0, '')
    recount = rows[0]['recount']
    assert recount == {'from': 0, 'disagreements': 0, **{term: rows[0][term] for term in ('completed', 'duplicates', 'dead_lettered')}}
    assert recount['completed'] and recount['duplicates'] and recount['dead_lettered']


def test_audit_recounts_beside_a_running_server(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    for _ in range(8):
        tokens = [client.post(Hole().topic('Nonsense'), b'z' * 300) for _ in range(300)]
        status, rows, stderr = tool('journal audit', server.data_dir, '--full')
        assert (status, rows[0]['recount']['disagreements']) == (0, 0), stderr
    for token in tokens:
        token.wait_for_publish(DEADLINE_S)
    server.wait_settled()


def test_audit_finds_a_dead_letter_that_is_gone(copy):
    path = segments(copy, 'dead-letters')[1]
    flip(path, HEADER + (path.stat().st_size - HEADER) // 2)
    status, rows, stderr = tool('journal audit', copy, '--full')
    assert status == 1 and rows[0]['recount']['disagreements'] == 1 and not rows[0]['holds']
    assert re.search(r'offset \d+ is dead-lettered as unknown_topic, but there is no dead letter of it', stderr)


# ---- cat ----

def cat(folder, *arguments):
    return run_cli('journal', 'cat', '--data-dir', folder, *arguments, text=False).stdout


def test_cat_selects_by_topic_offset_and_time(copy):
    everything = records(copy, 'bus')
    some = json_lines(cat(copy, '--stream', 'bus', '--json', '--topic', 'bus/1/+', '--from', 100, '--to', 200))
    assert some == [r for r in everything if 100 <= r['offset'] < 200 and r['topic'] == 'bus/1/value'] and some
    middle, late = everything[len(everything) // 3]['time_ns'], everything[2 * len(everything) // 3]['time_ns']

    def stamp(time_ns):
        return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time_ns // 10**9)) + '.%09dZ' % (time_ns % 10**9)
    between = json_lines(cat(copy, '--stream', 'bus', '--json', '--from', stamp(middle), '--to', stamp(late)))
    assert between == [r for r in everything if middle <= r['time_ns'] < late] and between
    assert len(json_lines(cat(copy, '--stream', 'bus', '--json', '--from', '-2w'))) == len(everything)
    assert cat(copy, '--stream', 'bus', '--from', '-0s') == b''
    assert cat(copy, '--stream', 'bus', '--to', '1999-12-31') == b''
    assert len(cat(copy, '--stream', 'bus', '--topic', 'bus/2/value', '--count', 3).splitlines()) == 3


def test_cat_gives_payloads_raw(spindle, connect):
    server = spindle().start()
    payload = bytes(range(256)) * 10
    connect(server).publish_all([('raw', payload), ('raw', b'\n'), ('other', b'-')])
    assert cat(server.data_dir, '--stream', 'bus', '--raw', '--topic', 'raw') == payload + b'\n'


@pytest.mark.parametrize('arguments, words', [
    (['--from', 'yesterday'], '--from: expected an offset, a time'), (['--to', '2026-13-01'], '--to: expected'),
    (['--topic', 'a/#/b'], 'no MQTT topic filter'), (['--raw', '--json'], 'exclude'), (['--to', '5', '--follow'], 'exclude')])
def test_cat_refuses(copy, arguments, words):
    done = run_cli('journal', 'cat', '--data-dir', copy, *arguments, check=False)
    assert done.returncode == 2 and words in done.stderr and done.stdout == ''


@pytest.mark.parametrize('name', ['../copy/bus', 'bus/', '.', 'nonsense', 'Bus'])
def test_what_is_no_stream_is_refused_with_those_there_are(copy, name):
    done = run_cli('journal', 'cat', '--data-dir', copy, '--stream', name, check=False)
    assert done.returncode == 2 and done.stdout == ''
    assert 'no stream `%s`' % name in done.stderr and 'there are ingest, bus, results, dead-letters, outcomes, retained, brokers' in done.stderr


def test_cat_follows(spindle, connect):
    """Across the segments of a server, its end and its next start."""
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    client.publish('follow/me', b'0')
    process = subprocess.Popen([BINARY, 'journal', 'cat', '--data-dir', server.data_dir, '--stream', 'bus', '--follow', '--topic', 'follow/#',
                                '--json'], stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a background job has it ignored
    try:
        assert json.loads(process.stdout.readline())['payload'] == '0'
        for number in range(1, 4):
            client.publish_all([('other', b'x' * 50000)] * 30)
            client.publish('follow/me', b'%d' % number)
            assert json.loads(process.stdout.readline())['payload'] == str(number)
            server.kill() if number == 1 else server.stop()
            server.start()
            client = connect(server)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == -signal.SIGINT
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# ---- prove ----

@pytest.mark.timeout(180)
def test_prove_counts_and_cleans_up(tmp_path):
    folder = tmp_path / 'made'
    status, [result], stderr = tool('journal prove', folder, '--trials', 3, '--rate', 2000)
    assert (status, stderr) == (0, ''), stderr
    assert result['trials'] == 3 and result['acknowledged'] > 100 and result['lost'] == result['invented'] == result['damages'] == 0
    assert result['books_balance'] and result['folder'] is None and result['problem'] is None
    assert 0 < result['sync_s']['p50'] <= result['sync_s']['p99'] <= result['sync_s']['max'] * 1.1
    assert result['syncs'] > 0 and result['messages_per_sync'] > 0 and 0 < result['recovery_s']['p50'] < DEADLINE_S
    assert not folder.exists()
    done = run_cli('journal', 'prove', '--data-dir', tmp_path, '--trials', 1, '--rate', 2000, '--connections', 1)
    assert re.search(r'^0 of \d+ acknowledged messages lost$', done.stdout.splitlines()[-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(180)
def test_prove_finds_a_loss_and_keeps_the_folder(tmp_path):
    """Somebody takes messages away behind the server's back: cut at the kill, when nobody writes."""
    process = subprocess.Popen([BINARY, 'journal', 'prove', '--data-dir', tmp_path, '--trials', '1000', '--rate', '2000'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: list(tmp_path.glob('spindle-prove-*/data/bus/0*.seg')), 'it has begun')
        [bus] = tmp_path.glob('spindle-prove-*/data/bus')

        def lose():
            files = sorted(bus.glob('0*.seg'))
            if len(files) > 1:  # a start has closed the first; it holds acknowledged messages
                os.truncate(files[0], HEADER)
            return len(files) > 1
        wait_until(lose, 'a first kill')
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert re.search(r'^[1-9]\d* of \d+ acknowledged messages lost$', stdout.splitlines()[-1])
    assert 'the folder is kept: %s' % bus.parent.parent in stderr
    assert pathlib.Path(bus).is_dir()


def test_prove_where_nothing_can_be_written(tmp_path):
    (tmp_path / 'file').touch()
    status, lines, stderr = tool('journal prove', tmp_path / 'file' / 'below')
    assert (status, lines) == (1, []) and 'cannot make' in stderr and 'something on this path is a file' in stderr
    status, lines, stderr = tool('journal prove', tmp_path / 'above' / 'below')
    assert (status, lines) == (1, []) and 'the folder above it does not exist' in stderr
    status, lines, stderr = tool('journal prove', tmp_path / 'file')
    assert (status, lines) == (1, []) and 'no folder can be made' in stderr


def test_verify_finds_no_damage_in_what_sessions_have_published(spindle):
    """A record of a message from a session says where it came from; that is no offset of another stream."""
    server = spindle().start()
    with Visit(server, b'p', expiry=1000) as visit:
        for qos in (1, 2):
            visit.put(b'bus/x', b'x', qos)
            visit.put(b'OPCPUBSUB/nobody/knows/this', b'x', qos)
        visit.leave()
    server.stop()
    done = run_cli('journal', 'verify', '--data-dir', server.data_dir, check=False)
    assert done.returncode == 0, done.stdout
