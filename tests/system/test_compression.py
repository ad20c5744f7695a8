"""journal.compression: closed segments become smaller, through kills, and every command reads them as before."""
import itertools
import shutil
import time

import pytest

from holes import Hole, one_step_curve, stack_curve
from spindle import json_lines, run_cli, wait_until

PLAIN = {'journal.segment_size': '1MiB', 'drilling.estimator': 'gradient', 'pipeline.grace_s': 5, 'mqtt.listener.time_window': 60}
SETTINGS = {**PLAIN, 'journal.compression': 'zstd'}
KILLS = 4


def make_holes(count):
    curves = [stack_curve(feed_mm=0.2), stack_curve(entry_mm=3, feed_mm=0.1), one_step_curve()]
    return [message for i in range(count)
            for message in Hole(box='box', tool='tool%d' % (i % 3), curve=curves[i % len(curves)]).messages()]


def files(folder, stream='ingest'):
    """The segments of a stream, as `journal ls` tells of them."""
    [row] = json_lines(run_cli('journal', 'ls', '--data-dir', folder, '--stream', stream, '--segments', '--json').stdout)
    return [file for file in row['files'] if 'records' in file]


def compressed(folder, stream='ingest'):
    return [file for file in files(folder, stream) if 'raw_bytes' in file]


def wait_compressed(folder, stream='ingest'):
    wait_until(lambda: len(compressed(folder, stream)) >= len(files(folder, stream)) - 1, 'closed segments are compressed')
    return compressed(folder, stream)


def answers(server, prefix=''):
    """{tool: [(topic, payload)]} of results, in order."""
    found = {}
    for record in server.journal('results'):
        if record['topic'].startswith(prefix) and (prefix or not record['topic'].startswith('replay/')):
            topic = record['topic'][len(prefix):]
            found.setdefault(topic.rsplit('/', 1)[0], []).append((topic, record['payload']))
    return found


def replay(source, server, *arguments):
    [report] = json_lines(run_cli('journal', 'replay', '--data-dir', source.data_dir, '--speed', 'max', '--json', *arguments).stdout)
    assert report['end'] == 'complete'
    return report


@pytest.fixture
def used(spindle, connect):
    """A stopped server's folder with compressed segments, and what was sent to it."""
    server = spindle(settings=SETTINGS).start()
    server.messages = make_holes(400)
    client = connect(server)
    for first in range(0, len(server.messages), 100):  # no group is nearly as large as a segment
        client.publish_all(server.messages[first:first + 100])
    server.wait_settled(len(server.messages))
    wait_compressed(server.data_dir)
    server.stop()
    return server


def test_killed_while_it_compresses_it_loses_nothing(spindle, connect):
    server = spindle(settings=SETTINGS)
    sent = []
    for _ in range(KILLS):
        server.start()
        client = connect(server)
        messages = make_holes(160)
        client.publish_all(messages)
        client.close()
        sent += messages
        working = server.data_dir / 'ingest' / 'compressed.seg'
        deadline = time.monotonic() + 2
        while not working.exists() and time.monotonic() < deadline:  # it is there for a moment only, which may be missed
            time.sleep(0.0005)
        server.kill()
    server.start()
    server.wait_settled(len(sent))
    small = wait_compressed(server.data_dir)
    assert len(small) >= KILLS  # a segment that a kill has cut off may hold too little to gain much
    assert sum(file['bytes'] for file in small) * 2 < sum(file['raw_bytes'] for file in small)
    assert [(r['offset'], r['topic'], r['payload']) for r in server.journal('ingest')] == [
        (offset, topic, payload) for offset, (topic, payload) in enumerate(sent)]
    assert run_cli('journal', 'verify', '--data-dir', server.data_dir).returncode == 0
    assert run_cli('journal', 'audit', '--data-dir', server.data_dir, '--full').returncode == 0
    server.stop()
    assert not list(server.data_dir.glob('*/compressed.seg'))


def test_a_replay_of_compressed_segments_gives_the_same_results(used, spindle, connect):
    used.start()
    replay(used, used, '--into', 'pipeline', '--server', '127.0.0.1:%d' % used.port, '--id', 'again')
    used.wait_settled(2 * len(used.messages))
    assert answers(used) and answers(used, 'replay/again/') == answers(used)
    other = spindle(settings=PLAIN).start()
    used.stop()
    replay(used, other, '--into', 'mqtt://127.0.0.1:%d' % other.port, '--to', len(used.messages))
    other.wait_settled(len(used.messages))
    assert answers(other) == answers(used)


def test_without_compression_the_same_folder_is_read_and_written(used, spindle, connect):
    plain = spindle(settings=PLAIN)
    shutil.copytree(used.data_dir, plain.data_dir)
    before = compressed(plain.data_dir)
    plain.start()
    connect(plain).publish_all(make_holes(130))
    plain.wait_settled()
    plain.stop()
    assert compressed(plain.data_dir) == before and len(files(plain.data_dir)) > len(files(used.data_dir))
    assert [r['offset'] for r in plain.journal('ingest')] == list(range(len(used.messages) + 390))


def test_a_damaged_frame_is_named_and_the_rest_is_salvaged(used, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(used.data_dir, folder)
    name = compressed(folder)[1]['name']
    path = folder / 'ingest' / name
    data = bytearray(path.read_bytes())
    data[8192 + 64 + 500] ^= 0x10
    path.write_bytes(data)
    done = run_cli('journal', 'verify', '--data-dir', folder, '--stream', 'ingest', '--json', check=False)
    [finding, row] = json_lines(done.stdout)
    assert done.returncode == 1 and (finding['finding'], finding['segment'], finding['position']) == ('records', name, 8192)
    assert finding['lost'] == row['lost'] > 0
    lost = range(finding['first_offset'], finding['first_offset'] + finding['lost'])
    kept = [offset for offset in range(len(used.messages)) if offset not in lost]
    done = run_cli('journal', 'cat', '--data-dir', folder, '--json', check=False)
    assert done.returncode == 1 and '%s at byte 8192: offsets %d to %d are lost' % (name, lost[0], lost[-1]) in done.stderr
    assert [record['offset'] for record in json_lines(done.stdout)] == kept
    run_cli('journal', 'verify', '--data-dir', folder, '--salvage', tmp_path / 'saved', check=False)
    done = run_cli('journal', 'cat', '--data-dir', tmp_path / 'saved', '--json', check=False)
    assert [record['offset'] for record in json_lines(done.stdout)] == kept


def test_trim_removes_compressed_segments_and_ls_shows_them(used):
    before = files(used.data_dir)
    table = run_cli('journal', 'ls', '--data-dir', used.data_dir, '--stream', 'ingest', '--segments').stdout.splitlines()
    assert ' compressed ' in table[2] and '  1/' in table[2]
    assert ' closed ' in table[1 + len(before)] and '  1/' not in table[1 + len(before)]
    [row] = json_lines(run_cli('journal', 'ls', '--data-dir', used.data_dir, '--stream', 'ingest', '--json').stdout)
    assert row['compressed_segments'] == len(compressed(used.data_dir))
    assert row['bytes'] == sum(file['bytes'] for file in before)
    assert row['raw_bytes'] - row['bytes'] == sum(file['raw_bytes'] - file['bytes'] for file in compressed(used.data_dir)) > row['raw_bytes'] / 4
    run_cli('journal', 'trim', '--data-dir', used.data_dir, '--stream', 'ingest', '--before', before[2]['base_offset'])
    assert files(used.data_dir) == before[2:]
    assert used.journal('ingest')[0]['offset'] == before[2]['base_offset']


def test_a_consumer_that_comes_late_reads_it_from_anywhere(used):
    for first in itertools.islice(range(len(used.messages)), 0, None, 97):
        done = run_cli('journal', 'cat', '--data-dir', used.data_dir, '--json', '--from', first, '--count', 1)
        [record] = json_lines(done.stdout)
        assert (record['offset'], record['topic']) == (first, used.messages[first][0])
