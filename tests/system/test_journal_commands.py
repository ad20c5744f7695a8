"""The commands that read the data folder: on damaged and inconsistent copies, with output that cannot be written, without permission."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import pytest

from client import Client
from holes import Hole, negative_curve, stack_curve
from spindle import BINARY, ROOT, Spindle, json_lines, run_cli, wait_until

STREAMS = ['ingest', 'bus', 'results', 'dead-letters']
HEADER = 8192
READER = ROOT / 'docs' / 'examples' / 'read_journal.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A data folder that was used through two starts: 12 holes, 3 dead letters, 5 messages for the bus."""
    server = Spindle(tmp_path_factory.mktemp('used'), settings={'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2})
    curve = stack_curve(feed_mm=0.2)
    for _ in range(2):
        server.start()
        client = Client(server.port)
        holes = [Hole(curve=curve) for _ in range(6)]
        client.publish_all([message for hole in holes for message in hole.messages()])
        client.close()
        server.wait_settled()
        server.stop()
    server.start()
    client = Client(server.port)
    client.publish_all([(Hole().topic('Nonsense'), b'{}')] * 3 + [('for/the/bus', b'x')] * 5)
    client.close()
    server.wait_settled()
    server.stop()
    return server.data_dir


@pytest.fixture
def copy(data, tmp_path):
    shutil.copytree(data, tmp_path / 'copy')
    return tmp_path / 'copy'


def segments(copy, stream):
    return sorted((copy / stream).glob('0*.seg'))


def audit(copy):
    """(exit status, {stream: row}, standard error)"""
    done = run_cli('journal', 'audit', '--data-dir', copy, '--json', check=False)
    rows = {row['stream']: row for row in json_lines(done.stdout)}
    assert list(rows) == STREAMS, 'a row is missing: %s' % done.stdout
    for row in rows.values():
        assert all(0 <= row[term] < 1 << 40 for term in ('accepted', 'completed', 'duplicates', 'dead_lettered', 'pending')), row
    assert '18446744' not in done.stderr
    return done.returncode, rows, done.stderr


def assert_objection(copy, stream, words):
    """The audit says of this stream alone that it does not hold, with these words, and the table does too."""
    status, rows, stderr = audit(copy)
    assert status == 1
    assert [name for name in STREAMS if not rows[name]['holds']] == [stream]
    assert words in rows[stream]['why'] and words in stderr
    table = run_cli('journal', 'audit', '--data-dir', copy, check=False)
    assert table.returncode == 1
    assert [line.split()[0] for line in table.stdout.splitlines() if 'DOES NOT HOLD' in line] == [stream]


def zero(path, count):
    with open(path, 'r+b') as file:
        file.write(bytes(count))


def test_a_whole_folder_holds(copy):
    status, rows, stderr = audit(copy)
    assert status == 0 and stderr == '' and all(row['holds'] and 'why' not in row for row in rows.values())
    assert rows['ingest']['accepted'] == 39 and rows['ingest']['completed'] == 36 and rows['ingest']['dead_lettered'] == 3


def test_a_lost_header_costs_no_record(copy):
    before = run_cli('journal', 'cat', '--data-dir', copy, '--json').stdout
    zero(segments(copy, 'ingest')[0], 4096)
    assert run_cli('journal', 'cat', '--data-dir', copy, '--json').stdout == before
    for segment in segments(copy, 'ingest')[1:]:
        zero(segment, HEADER)
    zero(segments(copy, 'ingest')[0], 4096)
    done = run_cli('journal', 'cat', '--data-dir', copy, '--json', check=False)
    assert done.returncode == 1 and done.stdout == before
    assert 'header' in done.stderr and 'lost' in done.stderr
    assert audit(copy)[0] == 0  # nothing that is counted is lost


def test_lost_records_are_named_with_their_offsets(copy):
    first, second = segments(copy, 'ingest')[:2]
    first.write_bytes(b'')
    done = run_cli('journal', 'cat', '--data-dir', copy, '--json', check=False)
    assert done.returncode == 1
    assert 'offsets 0 to %d are lost' % (int(second.stem) - 1) in done.stderr
    assert json_lines(done.stdout)[0]['offset'] == int(second.stem)


def test_the_audit_of_a_stream_whose_last_segment_is_lost(copy):
    for segment in segments(copy, 'bus'):
        segment.write_bytes(b'')
    assert_objection(copy, 'bus', 'nothing tells how many')


def test_the_audit_of_a_stream_that_ends_before_its_outcomes(copy):
    segments(copy, 'ingest')[-1].unlink()
    assert_objection(copy, 'ingest', 'the outcomes speak of messages up to offset 38, but the stream ends before offset 36')


def test_the_audit_of_a_stream_without_its_beginning(copy):
    """Without the outcomes, that is; else whatever retention has taken had one."""
    first, second = segments(copy, 'ingest')[:2]
    first.unlink()
    status, _, _ = audit(copy)
    assert status == 0
    (copy / 'ends').unlink()  # else the others are missed too
    for stream in ('outcomes', 'results'):
        for segment in segments(copy, stream):
            segment.unlink()
    assert_objection(copy, 'ingest', '%d messages from offset 0 on have no outcome and are not there' % int(second.stem))


def test_the_audit_of_damaged_outcomes(copy):
    with open(segments(copy, 'outcomes')[-1], 'r+b') as file:
        file.seek(HEADER)
        file.write(b'\x55' * 64)  # the checkpoint of the last start
    status, rows, _ = audit(copy)
    assert status == 1 and 'outcomes/' in rows['ingest']['why'] and 'count as pending' in rows['ingest']['why']
    assert rows['ingest']['completed'] == 36  # from the checkpoint before it, and what came between


def find_record(path, offset):
    """(byte, length) of a record, from its header (docs/journal.md)."""
    content = path.read_bytes()
    for at in range(HEADER, len(content) - 48, 8):
        length, topic, _, sources, _, its_offset, _, properties, payload = struct.unpack_from('<IHBBQQQII', content, at)
        if its_offset == offset and length == (48 + topic + properties + payload + 7) // 8 * 8 + 8 * sources and properties:
            return at, length
    raise AssertionError('no record %d in %s' % (offset, path))


def test_damage_to_an_answer_whose_outcome_is_on_disk(spindle, connect):
    """Messages are pending, and the server was killed; all the same nothing is missing from the books."""
    server = spindle(settings={'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2, 'pipeline.workers': 1}).start()
    client = connect(server)
    for i in range(5):
        client.publish_all(Hole().messages())
        wait_until(lambda: server.metrics().streams()['ingest']['completed'] == 3 * (i + 1), 'an answer')
    client.publish_all(Hole().messages()[:2])
    wait_until(lambda: server.metrics().streams()['ingest']['accepted'] == 17, 'two that wait')
    server.kill()
    path = segments(server.data_dir, 'results')[-1]
    at, length = find_record(path, 2)
    with open(path, 'r+b') as file:
        file.seek(at + length - 8 * 3 - 16)
        file.write(b'\xff' * 8)
    done = run_cli('journal', 'verify', '--data-dir', server.data_dir, '--stream', 'results', check=False)
    assert done.returncode == 1 and 'offset 2 is lost' in done.stdout
    status, rows, stderr = audit(server.data_dir)
    assert status == 0 and stderr == '' and rows['ingest']['completed'] == 15 and rows['ingest']['pending'] == 2
    server.start()
    assert 'handled again' not in server.stderr()
    assert server.audit()['ingest']['holds']


def test_the_audit_of_lost_messages(spindle, connect):
    """In the newest segment: of those that have an outcome nothing follows; one that has none is counted as pending, and is not there."""
    server = spindle(settings={'pipeline.grace_s': 0.2}).start()
    client = connect(server)
    client.publish_all([(Hole().topic('Nonsense'), b'{}')] * 3)
    server.wait_settled(3)
    client.publish_all(Hole().messages()[:2])
    wait_until(lambda: server.metrics().streams()['ingest']['accepted'] == 5, 'two that wait')
    server.kill()
    path = segments(server.data_dir, 'ingest')[-1]
    records = [record['offset'] for record in server.journal('ingest')]
    assert records == list(range(5))
    content = path.read_bytes()
    for offset, words in ((1, None), (3, 'counted as pending, but are not there')):
        starts = [i for i in range(HEADER, HEADER + 16384, 8)
                  if struct.unpack_from('<Q', content, i + 16)[0] == offset and content[i + 48:i + 49].isalpha()]
        with open(path, 'r+b') as file:
            file.seek(starts[0] + 48)
            file.write(b'\xff' * 8)
        if words:
            assert_objection(server.data_dir, 'ingest', words)
        else:
            assert audit(server.data_dir)[0] == 0
    server.start()
    wait_until(lambda: server.metrics().streams()['ingest']['dead_lettered'] == 4, 'the lost one is given up')
    assert server.audit()['ingest']['holds']


def test_a_stream_folder_that_is_gone(copy):
    shutil.rmtree(copy / 'results')
    assert_objection(copy, 'results', 'not found')


def test_damage_is_said_at_the_start_with_what_follows_from_it(spindle, connect, data):
    server = spindle()
    shutil.copytree(data, server.data_dir)
    with open(segments(server.data_dir, 'outcomes')[-1], 'r+b') as file:
        file.seek(HEADER)
        file.write(b'\x55' * 64)
    server.start()
    assert server.wait_settled().streams()['ingest']['accepted'] == 39
    assert 'stream outcomes: damage in' in server.stderr() and 'handled again' in server.stderr()


@pytest.mark.parametrize('known, next_offset', [(True, 5), (False, 0)], ids=['known', 'unknown'])
def test_a_stream_whose_only_records_are_lost(spindle, connect, data, known, next_offset):
    """`bus`: the start goes on behind what is known to have been there; where nothing tells, it counts none instead of a guess."""
    server = spindle()
    shutil.copytree(data, server.data_dir)
    for segment in segments(server.data_dir, 'bus'):
        zero(segment, HEADER)
    if not known:
        (server.data_dir / 'ends').unlink()
    server.start()
    assert server.metrics().streams()['bus']['accepted'] == next_offset
    assert 'nothing tells how many' in server.stderr()
    assert ('offsets 0 to 4 are lost' in server.stderr()) == known
    connect(server).publish('for/the/bus', b'new')
    cat = run_cli('journal', 'cat', '--data-dir', server.data_dir, '--stream', 'bus', '--json', check=False)
    assert [(r['offset'], r['payload']) for r in json_lines(cat.stdout)] == [(next_offset, 'new')]
    assert (cat.returncode == 1, 'its first file begins at offset 5' in cat.stderr) == (known, known)


# ---- what is printed ----

COMMANDS = [('journal', 'cat', '--stream', 'ingest'), ('journal', 'cat', '--stream', 'results', '--json'), ('journal', 'audit'),
            ('journal', 'audit', '--json'), ('dead', 'ls'), ('dead', 'ls', '--json')]


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_output_that_cannot_be_written_is_a_failure(copy, command):
    with open('/dev/full', 'wb') as full:
        done = subprocess.run([BINARY, *command, '--data-dir', copy], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == 'spindle %s %s: the output cannot be written: No space left on device\n' % command[:2]


@pytest.mark.parametrize('words', ['check', 'version', 'help', 'grip 20', 'completion bash', 'docs commands'])
def test_any_output_that_cannot_be_written_is_a_failure(words):
    with open('/dev/full', 'w') as nowhere:
        done = subprocess.run([BINARY, *words.split()], stdout=nowhere, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == f'spindle {words.split()[0]}: the output cannot be written: No space left on device\n'


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_a_reader_that_has_had_enough_is_no_failure_to_speak_of(copy, command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([BINARY, *command, '--data-dir', copy], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.stderr == ''


def test_properties_stand_behind_what_was_there_before(spindle, connect, copy):
    server = spindle(settings={'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2}).start()
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = 'text/plain'
    properties.UserProperty = [('priority', 'high'), ('a "b"', '\u00e9'), ('priority', 'again')]
    client = connect(server, version=5)
    client.publish('with/properties', b'x', properties=properties)
    client.publish('without/properties', b'\xff')
    client.publish_all(Hole(curve=stack_curve(feed_mm=0.2)).messages())
    server.wait_settled(3)
    lines = run_cli('journal', 'cat', '--data-dir', server.data_dir, '--stream', 'bus', '--json').stdout.splitlines()
    with_them, without = json_lines('\n'.join(lines))
    assert list(with_them) == ['stream', 'offset', 'time_ns', 'topic', 'payload', 'properties']
    assert with_them['properties'] == [['priority', 'high'], ['a "b"', '\u00e9'], ['priority', 'again']]
    assert list(without) == ['stream', 'offset', 'time_ns', 'topic', 'payload_base64']
    results = json_lines(run_cli('journal', 'cat', '--data-dir', server.data_dir, '--stream', 'results', '--json').stdout)
    assert len(results) == 2
    for record in results:
        [[name, value]] = record['properties']
        assert name == 'message-id' and value
    assert all('properties' not in record for record in json_lines(run_cli('journal', 'cat', '--data-dir', copy, '--stream', 'outcomes',
                                                                           '--json').stdout))


def test_what_a_client_sends_is_no_command_to_the_terminal(spindle, connect):
    """C1 control characters start escape sequences in 8-bit terminals; some readers of lines end one at U+0085, U+2028 and U+2029."""
    evil, shown = 'a\x9b2J\u2028b', 'a\\xc2\\x9b2J\\xe2\\x80\\xa8b'
    server = spindle(settings={'pipeline.grace_s': 0.1}).start()
    client = connect(server)
    client.publish('bus/' + evil, evil.encode())
    dead_topic = 'OPCPUBSUB/box/%s/ResultManagement' % evil
    client.publish(dead_topic, evil.encode())
    server.wait_settled(1)
    for words in (['journal', 'cat', '--stream', 'bus'], ['journal', 'cat', '--stream', 'ingest'], ['dead', 'ls'], ['dead', 'show', '0']):
        text = run_cli(*words, '--data-dir', server.data_dir).stdout
        assert shown in text and not set(text) & set('\x9b\x85\u2028'), words
        text = run_cli(*words, '--data-dir', server.data_dir, '--json').stdout
        assert len(text.splitlines()) == 1 and 'a\\u009b2J\\u2028b' in text, words
        assert json.loads(text)['topic'] in ('bus/' + evil, dead_topic)


def test_results_that_were_withheld_are_shown_as_such_and_stay_so(spindle, connect, tmp_path):
    server = spindle(settings={'mqtt.depth_validation.negative_depth_behavior': 'skip', 'drilling.estimator': 'gradient'}).start()
    negative, good = Hole(curve=negative_curve()), Hole()
    connect(server).publish_all(negative.messages() + good.messages())
    server.wait_settled(6)
    server.stop()
    for folder in (server.data_dir, tmp_path / 'salvaged'):
        shown = ['--data-dir', folder, '--stream', 'results']
        records = json_lines(run_cli('journal', 'cat', *shown, '--json').stdout)
        assert sorted((json.loads(r['payload'])['SourceTimestamp'], r.get('withheld')) for r in records) == \
            [(negative.stamp, True)] * 2 + [(good.stamp, None)] * 2
        lines = run_cli('journal', 'cat', *shown).stdout.splitlines()
        for line, record in zip(lines, records, strict=True):
            assert line.endswith(' ' + record['topic'] + (' (withheld) ' if 'withheld' in record else ' ') + record['payload'])
        read = subprocess.run([sys.executable, READER, folder / 'results'], capture_output=True, text=True, check=True).stdout
        assert [' (withheld) ' in line for line in read.splitlines()] == ['withheld' in record for record in records]
        run_cli('journal', 'audit', '--full', '--data-dir', folder)
        if folder == server.data_dir:
            run_cli('journal', 'verify', '--data-dir', folder, '--salvage', tmp_path / 'salvaged')


def test_an_unknown_reason_is_answered_with_those_there_are(copy):
    done = run_cli('dead', 'ls', '--data-dir', copy, '--reason', 'nonsense', check=False)
    assert done.returncode == 2 and 'unmatched' in done.stderr and 'time window' in done.stderr


# ---- folders that cannot be used ----

def start_and_fail(data_dir, **options):
    """What `spindle run` says when it does not start."""
    done = subprocess.run([BINARY, 'run', '--port', '0', '--http-port', '0', '--data-dir', data_dir], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=20, **options)
    assert done.returncode != 0
    return done.stderr


def test_a_data_folder_that_is_a_file(tmp_path):
    (tmp_path / 'file').write_text('')
    for path in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        stderr = start_and_fail(path)
        assert str(path) in stderr and 'not a folder' in stderr and '--data-dir' in stderr
        for command in (('journal', 'cat'), ('journal', 'audit'), ('dead', 'ls')):
            done = run_cli(*command, '--data-dir', path, check=False)
            assert done.returncode == 2 and str(path) in done.stderr and 'not a folder' in done.stderr


@pytest.fixture
def nobody_can_reach():
    """A folder that every user can reach, and the rights of one who may not write there."""
    if os.geteuid() != 0:
        pytest.skip('another user is needed')
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        binary = pathlib.Path(folder) / 'spindle'
        shutil.copy(BINARY, binary)
        yield pathlib.Path(folder), {'user': 65534, 'group': 65534, 'extra_groups': []}, binary


def test_a_data_folder_without_permission(nobody_can_reach, data):
    folder, nobody, binary = nobody_can_reach
    shutil.copytree(data, folder / 'data')
    run = [binary, 'run', '--port', '0', '--http-port', '0', '--data-dir']
    for path in (folder / 'new', folder / 'data'):
        done = subprocess.run(run + [path], stderr=subprocess.PIPE, text=True, timeout=20, **nobody)
        assert done.returncode == 1 and str(path) in done.stderr and 'no permission' in done.stderr and 'chown' in done.stderr
    subprocess.run(['chmod', '-R', 'a+rX', folder / 'data'], check=True)  # a copy that everybody may read
    trim = [binary, 'journal', 'trim', '--stream', 'ingest', '--before', '36', '--data-dir', folder / 'data']
    done = subprocess.run(trim, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20, **nobody)
    assert done.returncode == 1 and '%s cannot be written: no permission' % (folder / 'data') in done.stderr, done.stderr
    (folder / 'data').chmod(0o700)
    for command in (('journal', 'cat'), ('journal', 'audit'), ('dead', 'ls')):
        done = subprocess.run([binary, *command, '--data-dir', folder / 'data'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=20, **nobody)
        assert done.returncode == 1 and str(folder / 'data') in done.stderr and 'no permission' in done.stderr and 'root' in done.stderr
        if command == ('journal', 'audit'):
            assert len(done.stdout.splitlines()) == 5


def test_a_read_only_file_system(tmp_path, data):
    mount = tmp_path / 'mount'
    mount.mkdir()
    if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', mount], stderr=subprocess.DEVNULL).returncode:
        pytest.skip('mounting needs root')
    try:
        shutil.copytree(data, mount / 'data')
        subprocess.run(['mount', '-o', 'remount,ro', mount], check=True)
        for path in (mount / 'data', mount / 'new'):
            stderr = start_and_fail(path)
            assert str(path) in stderr and 'read-only' in stderr and 'mount it' in stderr
        assert audit(mount / 'data')[0] == 0
    finally:
        subprocess.run(['umount', '-l', mount], check=True)
