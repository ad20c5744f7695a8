"""Damaged copies of a real journal: flipped bits, zeroed pages, cut, missing and exchanged files. Nothing crashes, what is lost is named with
its file and byte, and nothing is shown that was not sent."""
import base64
import os
import re
import shutil

import pytest

from faults import run_journal
from spindle import json_lines, wait_until
from toolbox import check_gapless, total_acknowledged

DAMAGES = int(os.environ.get('FAULT_DAMAGES') or 12)  # of each kind
STREAMS = ['ingest', 'bus', 'results', 'dead-letters', 'outcomes']
HEADER_BYTES, PAGE_BYTES = 4096, 4096
NAMED = re.compile(r'(\d{20}\.seg) at byte (\d+)')
SANITIZER = re.compile(rb'Sanitizer|runtime error:')


def records_of(folder, stream, must_be_whole=True):
    """({offset: record}, what was said) of a stream, as `journal cat` shows it."""
    done = run_journal('journal', 'cat', '--data-dir', folder, '--stream', stream, '--json')
    assert not SANITIZER.search(done.stderr), done.stderr
    said = done.stderr.decode()
    records = {}
    previous = -1
    for record in json_lines(done.stdout.decode()):
        assert record['offset'] > previous, 'offset %d after %d' % (record['offset'], previous)
        previous = record['offset']
        payload = record['payload'].encode() if 'payload' in record else base64.b64decode(record['payload_base64'])
        records[previous] = (record['time_ns'], record['topic'], payload)
    assert done.returncode in (0, 1) and bool(said) == (done.returncode == 1), (done.returncode, said)
    assert not must_be_whole or done.returncode == 0, said
    return records, said


class Original:
    """A journal folder of several segments in each stream, from a server that was killed once and stopped at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.records = {stream: records_of(folder, stream)[0] for stream in STREAMS}
        self.segments = {stream: sorted((folder / stream).glob('0*.seg')) for stream in STREAMS}

    def copy(self, folder):
        shutil.copytree(self.folder, folder)
        return folder

    def span(self, path):
        """The offsets of a segment, as a range."""
        segments = self.segments[path.parent.name]
        first = int(path.stem)
        index = [int(segment.stem) for segment in segments].index(first)
        last = max(self.records[path.parent.name], default=-1) + 1
        return range(first, int(segments[index + 1].stem) if index + 1 < len(segments) else last)

    def is_last(self, path):
        return path.name == self.segments[path.parent.name][-1].name


@pytest.fixture
def original(spindle, load):
    server = spindle().start()
    senders = load(server, rate=60, feeder_rate=150, size_max=60000)
    wait_until(lambda: total_acknowledged(senders) > 150, 'load')
    server.kill()
    server.start()
    wait_until(lambda: total_acknowledged(senders) > 400 and len(list((server.data_dir / 'bus').glob('0*.seg'))) >= 3, 'segments')
    for sender in senders:
        sender.finish()
    server.wait_settled()
    server.stop()
    made = Original(server.data_dir)
    for stream in STREAMS:
        check_gapless([{'offset': offset} for offset in made.records[stream]], stream)
    return made


def check_reading(original, copy, damaged, whole_tail=True, started=''):
    """What is shown was sent; what is missing lies in the damaged files and was named. Returns what was said. `started` is what a server
    said that ran on the copy: it may have given lost outcomes and answers again, so only what was sent is compared record by record; and
    it puts a file aside in which nothing can be read, and names it."""
    all_said = ''
    for stream in STREAMS[:2] if started else STREAMS:
        shown, said = records_of(copy, stream, must_be_whole=False)
        all_said += said
        whole = original.records[stream]
        for offset, record in shown.items():
            assert offset in whole and whole[offset] == record, 'invented: %s offset %d of topic %s' % (stream, offset, record[1])
        missing = sorted(whole.keys() - shown.keys())
        mine = [path for path in damaged if path.parent.name == stream]
        spans = [original.span(path) for path in mine]
        strays = [offset for offset in missing if not any(offset in span for span in spans)]
        assert not strays, '%s: offsets %s are missing, but not damaged; %s' % (stream, strays[:5], said)
        for path, span in zip(mine, spans):
            lost = [offset for offset in missing if offset in span]
            if lost and (whole_tail or not original.is_last(path)):
                assert NAMED.search(said + started), '%s: offsets %d to %d are missing without a word' % (path, lost[0], lost[-1])
    return all_said


def check_use(original, copy, spindle, damaged, whole_tail=True):
    """The commands, and a server, on a damaged copy."""
    said = check_reading(original, copy, damaged, whole_tail)
    audit = run_journal('journal', 'audit', '--data-dir', copy, '--json')
    assert not SANITIZER.search(audit.stderr) and audit.returncode in (0, 1), audit
    assert audit.returncode == 0 or audit.stderr or b'"holds":false' in audit.stdout, audit
    dead = run_journal('dead', 'ls', '--data-dir', copy, '--json')
    assert dead.returncode in (0, 1), dead
    server = spindle(folder=copy.parent)
    assert server.data_dir == copy
    try:
        server.start()
    except AssertionError:
        # It refuses: then it says why, and what to do.
        last = server.stderr().splitlines()[-1]
        assert ' error ' in last and str(copy) in server.stderr(), last
        shutil.rmtree(copy.parent)
        return said
    server.metrics()
    server.stop()
    server.check_quiet()
    check_reading(original, copy, damaged, whole_tail, started=server.stderr())
    for stream in ('results', 'dead-letters'):
        known = {record[1:] for record in original.records[stream].values()}
        assert all(record[1:] in known for record in records_of(copy, stream, must_be_whole=False)[0].values())
    shutil.rmtree(copy.parent)
    return said


def pick(original, chance, streams=STREAMS, keep_last=False):
    """A segment with records in it, as a path relative to the folder."""
    candidates = [path for stream in streams for path in original.segments[stream]
                  if len(original.span(path)) and not (keep_last and original.is_last(path))]
    path = chance.choice(candidates)
    return path.relative_to(original.folder)


def each_copy(original, tmp_path, count):
    for number in range(count):
        yield original.copy(tmp_path / ('copy%d' % number) / 'data')


def overwrite(path, position, content):
    with open(path, 'r+b') as file:
        file.seek(position)
        file.write(content)


@pytest.mark.timeout(600)
def test_flipped_bits(original, spindle, tmp_path, chance):
    for copy in each_copy(original, tmp_path, DAMAGES):
        path = copy / pick(original, chance)
        position = chance.randrange(path.stat().st_size)
        byte = path.read_bytes()[position]
        overwrite(path, position, bytes([byte ^ (1 << chance.randrange(8))]))
        said = check_use(original, copy, spindle, [path])
        for name, byte_text in NAMED.findall(said):
            assert name == path.name and int(byte_text) <= position


@pytest.mark.timeout(600)
def test_a_zeroed_page(original, spindle, tmp_path, chance):
    for copy in each_copy(original, tmp_path, DAMAGES):
        path = copy / pick(original, chance)
        size = path.stat().st_size
        position = chance.randrange(size) // PAGE_BYTES * PAGE_BYTES
        overwrite(path, position, bytes(min(PAGE_BYTES, size - position)))
        # A page that takes the end of the last file with it is what a crash leaves.
        check_use(original, copy, spindle, [path], whole_tail=size - position > PAGE_BYTES)


@pytest.mark.timeout(600)
def test_a_file_that_was_cut(original, spindle, tmp_path, chance):
    for copy in each_copy(original, tmp_path, DAMAGES):
        path = copy / pick(original, chance)
        os.truncate(path, chance.randrange(path.stat().st_size))
        check_use(original, copy, spindle, [path], whole_tail=False)


@pytest.mark.timeout(600)
def test_a_missing_file(original, spindle, tmp_path, chance):
    """It is missed, the oldest too: retention notes what it takes. Not the newest, of which nobody else may know."""
    for copy in each_copy(original, tmp_path, DAMAGES):
        path = copy / pick(original, chance)
        path.unlink()
        said = check_use(original, copy, spindle, [path], whole_tail=False)
        if not original.is_last(path):
            assert NAMED.search(said), said


@pytest.mark.timeout(600)
def test_exchanged_files(original, spindle, tmp_path, chance):
    for copy in each_copy(original, tmp_path, DAMAGES):
        first = copy / pick(original, chance)
        others = [path for path in (copy / pick(original, chance) for _ in range(50)) if path != first]
        second = others[0]
        aside = copy / 'aside'
        first.rename(aside)
        second.rename(first)
        aside.rename(second)
        said = check_use(original, copy, spindle, [first, second])
        assert first.name in said or second.name in said, said


def test_a_file_of_another_stream(original, spindle, tmp_path):
    """Its name fits, and all of it is whole, but it was put into the wrong folder: none of its records belong to the stream."""
    copy = original.copy(tmp_path / 'copy' / 'data')
    name = '%020d.seg' % 0
    shutil.copy(copy / 'bus' / name, copy / 'ingest' / name)
    said = check_use(original, copy, spindle, [copy / 'ingest' / name])
    assert name + ' at byte 0' in said, said
