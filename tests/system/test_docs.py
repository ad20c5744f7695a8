"""What the pages say is true of the program: links, names, options, the examples."""
import json
import re
import shutil
import subprocess
import sys

import pytest

from holes import ANSWERS, HEADS, RESULT, TRACE
from spindle import ROOT, run_cli

DOCS = ROOT / 'docs'
PAGES = sorted([ROOT / 'README.md', ROOT / 'CHANGELOG.md', *DOCS.rglob('*.md')])
HOLE = DOCS / 'examples' / 'hole'
MADE = {'configuration.md': 'configuration', 'commands.md': 'commands'}  # by `spindle docs`
SECTIONS = 'access|bus|data|journal|pipeline|drilling|http|diagnostics|mqtt'


def text_of(name):
    return (DOCS / name).read_text()


def rows(file, macro):
    """The texts in quotes of each row `macro(...)` of a table in src/."""
    return [re.findall(r'"((?:[^"\\]|\\.)*)"', row) for row in re.findall(r'^%s\((.*)\)$' % macro, (ROOT / 'src' / file).read_text(), re.M)]


def anchor(heading):
    """As GitHub makes them."""
    return re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')


def code(page):
    """What stands between backticks, in one line."""
    return re.findall(r'`([^`\n]+)`', re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S))


def settings():
    """Every path of a setting, its other names, and every section."""
    text = (ROOT / 'src' / 'config' / 'settings.def').read_text()
    paths = set(re.findall(r'^[A-Z]+\(\w+, "((?:%s)\.[a-z_.]+)"' % SECTIONS, text, re.M))
    paths |= set(re.findall(r'^(?:ALIAS|SECTION|IGNORED)\("([a-z_.]+)"', text, re.M))
    assert len(paths) > 80
    return paths


# ---- all pages ----

@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if re.match(r'https?:', target):
            continue
        path, _, fragment = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), '%s leads nowhere' % target
        if fragment:
            anchors = [anchor(h) for h in re.findall(r'^#+ (.*)$', file.read_text(), re.M)]
            assert fragment in anchors, '%s has no such heading' % target


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page):
    known = settings()
    for word in code(page):
        found = re.fullmatch(r'((?:%s)\.[a-z_.]+?)(?:\.\*|: .*)?' % SECTIONS, word)
        if found and not word.endswith(('.md', '.c', '.h')):
            path = found.group(1)
            assert path in known or any(k.startswith(path + '.') for k in known), 'there is no setting `%s`' % word


@pytest.mark.parametrize('page', [page for page in PAGES if page.name not in MADE], ids=lambda page: str(page.relative_to(ROOT)))
def test_metrics_exist(page):
    known = {name for name, *_ in rows('base/metrics.def', 'METRIC')}
    for word in re.findall(r'\b(?:spindle|drilling)_[a-z_]+', page.read_text()):
        name = re.sub(r'_(bucket|count|sum)$', '', word)
        assert name in known or any(k.startswith(word) for k in known), 'there is no metric %s' % word


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page):
    """Every command line in a block of code: its command and its long options."""
    commands = text_of('commands.md')
    known = {name: set(re.findall(r'--[a-z-]+', body)) | {'--help'}
             for name, body in re.findall(r'^## spindle ([a-z ]+)\n(.*?)(?=^## |\Z)', commands, re.M | re.S)}
    for block in re.findall(r'^```(?:sh|yaml)?\n(.*?)^```', page.read_text(), re.M | re.S):
        for line in block.splitlines():
            for call in re.findall(r'(?:^|[;(&|] ?|until |do )(?:build/)?spindle ((?:[^|;&)#]|\\.)*)', line):
                command = next((name for name in sorted(known, key=len, reverse=True) if (call.strip() + ' ').startswith(name + ' ')), None)
                assert command, 'there is no command: spindle %s' % call
                unknown = set(re.findall(r'--[a-z-]+', call)) - known[command]
                assert not unknown, 'spindle %s has no option %s' % (command, unknown)


@pytest.mark.parametrize('page', MADE)
def test_pages_that_the_program_makes_are_made(page):
    assert text_of(page) == run_cli('docs', MADE[page]).stdout, 'run `make docs`'


# ---- tables that must be complete ----

def test_every_reason_has_its_section():
    words = [word for word, _ in rows('queue/reasons.def', 'REASON')]
    assert len(words) >= 12
    assert re.findall(r'^### `(\w+)`$', text_of('dead-letters.md'), re.M) == words


def test_every_metric_is_explained():
    names = [name for name, *_ in rows('base/metrics.def', 'METRIC')]
    assert sorted(re.findall(r'^\| `(\w+)` \| (?:counter|gauge|histogram) \|', text_of('monitoring.md'), re.M)) == sorted(names)


def test_every_alert_is_explained():
    alerts = re.findall(r'- alert: (\w+)', (DOCS / 'examples' / 'alerts.yaml').read_text())
    assert alerts and re.findall(r'^### (Spindle\w+)$', text_of('monitoring.md'), re.M) == alerts


def test_every_old_key_is_explained():
    words = set(code(DOCS / 'migrate.md'))
    for path in settings():
        if not path.startswith('mqtt.') or path.endswith(('.username', '.password')) and 'mqtt.broker.*' in words:
            continue
        parts = path.split('.')
        covers = {path, parts[-1]} | {'.'.join(parts[:i]) + '.*' for i in range(2, len(parts))} | {path + '.*'}
        is_section = any(other.startswith(path + '.') for other in settings())
        assert covers & words or is_section, '`%s` is missing in migrate.md' % path


def test_every_decision_is_listed():
    pages = {page.name for page in (DOCS / 'decisions').glob('*.md')} - {'README.md'}
    assert set(re.findall(r'\]\(([\w-]+\.md)\)', text_of('decisions/README.md'))) == pages


def test_every_page_is_listed():
    pages = {page.name for page in DOCS.glob('*.md')} - {'README.md'}
    for index in ('README.md', '../README.md'):
        assert pages <= set(re.findall(r'\]\((?:docs/)?([\w-]+\.md)\)', text_of(index))), index


# ---- the example ----

def example_messages():
    kinds = {RESULT: 'result', TRACE: 'trace', HEADS: 'heads'}
    return [('OPCPUBSUB/box1/drill7/' + kind, (HOLE / (name + '.json')).read_bytes()) for kind, name in kinds.items()]


def test_the_first_five_minutes(spindle, connect):
    """The README's hole has the README's answers and counts."""
    server = spindle().start()
    subscriber = connect(server)
    subscriber.subscribe(*ANSWERS)
    connect(server).publish_all(example_messages())
    readme = (ROOT / 'README.md').read_text()
    for message in subscriber.take(2):
        assert '\n%s %s\n' % (message.topic, message.payload.decode()) in readme
    server.wait_settled(3)
    audit = run_cli('journal', 'audit', '--data-dir', server.data_dir).stdout
    assert audit.strip() in readme
    connect(server).publish_all(example_messages()[:1])
    assert server.wait_settled(4).streams()['ingest']['duplicates'] == 1
    for topic, _ in example_messages():
        assert topic in readme


def test_a_copy_of_a_running_server_in_the_order_that_is_told(spindle, connect, tmp_path):
    """run.md: outcomes first, messages last."""
    server = spindle().start()
    connect(server).publish_all(example_messages())
    server.wait_settled(3)
    [order] = re.findall(r'for stream in ([a-z -]+); do cp', text_of('run.md'))
    for stream in order.split():
        shutil.copytree(server.data_dir / stream, tmp_path / 'copy' / stream)
    assert sorted(order.split()) == sorted(folder.name for folder in server.data_dir.iterdir() if folder.is_dir())
    other = spindle()
    shutil.move(tmp_path / 'copy', other.data_dir)
    other.start()
    assert other.metrics().streams()['ingest']['completed'] == 3


# ---- the reader in Python ----

def test_the_python_reader_reads_what_the_program_reads(spindle, connect):
    """journal.md: a reader that was written from the description of the format."""
    sys.path.insert(0, str(DOCS / 'examples'))
    from read_journal import read_records
    server = spindle().start()
    client = connect(server)
    client.publish_all(example_messages())
    client.publish('OPCPUBSUB/box1/drill7/Nonsense', b'\xff\x00', qos=1)
    server.wait_settled(4)
    server.stop()
    for stream in ('ingest', 'results', 'dead-letters', 'outcomes'):
        records = [record for segment in sorted((server.data_dir / stream).glob('0*.seg')) for record in read_records(segment)]
        expected = server.journal(stream)
        assert [(r[0], r[1], r[2], r[4]) for r in records] == [(r['offset'], r['time_ns'], r['topic'], r['payload']) for r in expected]
        sources = [source for record in records for source in record[5]]
        assert sources == {'results': [0, 1, 2], 'dead-letters': [3]}.get(stream, [])
    assert json.loads(records_properties(server, read_records))['reason'] == 'unknown_topic'
    done = subprocess.run([sys.executable, DOCS / 'examples' / 'read_journal.py', server.data_dir / 'results'], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2


def records_properties(server, read_records):
    [segment] = (server.data_dir / 'dead-letters').glob('0*.seg')
    [record] = read_records(segment)
    return record[3]
