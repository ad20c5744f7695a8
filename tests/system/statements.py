#!/usr/bin/env python3
"""The tables of statements in tests/statements as the page docs/mqtt.md: `make docs` writes it, test_statements.py checks both.

A table has comments (#), headings (##), names for tests that are cited often (NAME = TEST), and statements:

    NUMBER server|client|both: what it demands
        ! what happens instead, where it is not kept, or not wholly
        ~ why it does not arise
        TEST; TEST

A TEST is FILE::FUNCTION or FILE::FUNCTION[PARAMETERS], where FILE stands for test_FILE.py or test_mqtt_FILE.py in tests/system, or for
test_FILE.c in tests/unit. Without parameters all of them are meant. Standard library only."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VERSIONS = ('3.1.1', '5.0')

HEAD = """# MQTT, statement by statement

Both standards number what they demand: `[MQTT-3.1.0-1]` and so on, listed in the appendix B of each. This page has all of them, in our words,
with who is bound and the tests that show it. What Spindle offers beside them, and the limits, are in [bus.md](bus.md).

{counts}

- *Not kept* comes first, with what happens instead; most of these are kept in part, and the tests show that part.
- *Does not arise*: the standard leaves a choice, and with the one that was taken there is nothing to keep. The tests show the choice.
- *Client*: binds clients alone. A test there shows what the server does with one that breaks it, or that Spindle keeps it where it is itself the
  client of a broker ([ingest.md](ingest.md)).
- A test without parameters in brackets stands for all that it has. `.py` lies in `tests/system`, `.c` in `tests/unit`.
- The standards print some numbers in two ways; here they are regular: 3.1.1 has MQTT-3.1.2.7, MQTT-3.3.1.-1 and MQTT-3-8.3-4 for
  3.1.2-7, 3.3.1-1 and 3.8.3-4, and 5.0 has MQTT-4.2-1 for 4.2.0-1.

This page is made by `make docs` from the tables in `tests/statements`; a test finds what they cite.
"""


class Statement:
    def __init__(self, version, number, bound, what, heading):
        self.version, self.number, self.bound, self.what, self.heading = version, number, bound, what, heading
        self.instead = self.moot = None
        self.tests = []

    def kind(self):
        return 'not kept' if self.instead else 'client' if self.bound == 'client' else 'moot' if self.moot else 'shown'


def find(test, line):
    """FILE::FUNCTION[PARAMETERS] with the name of the file."""
    name, _, function = test.partition('::')
    for folder, file in (('system', 'test_%s.py'), ('system', 'test_mqtt_%s.py'), ('unit', 'test_%s.c')):
        path = ROOT / 'tests' / folder / (file % name)
        word = re.sub(r'\[.*', '', function)
        if path.is_file() and re.search(r'^def %s\(|cmocka_unit_test\w*\(%s\b' % (word, word), path.read_text(), re.M):
            return '%s::%s' % (path.name, function)
    raise ValueError('%s: there is no such test' % line)


def read(version):
    """The statements of one version, in order."""
    statements, names, heading = [], {}, None
    path = ROOT / 'tests' / 'statements' / ('mqtt-%s.txt' % version)
    for at, line in enumerate(path.read_text().splitlines(), 1):
        place = '%s:%d: %s' % (path.name, at, line.strip())
        found = re.fullmatch(r'([0-9.]+-[0-9]+) (server|client|both): (.+)', line)
        if found:
            statements.append(Statement(version, *found.groups(), heading))
        elif line.startswith('## '):
            heading = line[3:]
        elif line.startswith('    ! '):
            statements[-1].instead = line[6:]
        elif line.startswith('    ~ '):
            statements[-1].moot = line[6:]
        elif line.startswith('    '):
            for test in line.strip().split('; '):
                name, bracket, rest = test.partition('[')
                statements[-1].tests.append(find(names.get(name, name) + bracket + rest, place))
        elif re.fullmatch(r'[a-z-]+ = \S+', line):
            names.update([line.split(' = ')])
        elif line and line[0] != '#':
            raise ValueError('%s: not understood' % place)
    return statements


def row(statement, first):
    tests = '<br>'.join('`%s`' % test for test in statement.tests)
    return '| [MQTT-%s] | %s | %s |' % (statement.number, first, tests)


def make_page():
    tables = {version: read(version) for version in VERSIONS}
    lines = ['| | %s |' % ' | '.join(VERSIONS), '|---|%s' % ('---|' * len(VERSIONS))]
    for title, kinds in (('statements', None), ('shown by tests', ['shown']), ('not kept, or in part', ['not kept']),
                         ('do not arise', ['moot']), ('bind clients alone', ['client'])):
        counts = [sum(kinds is None or s.kind() in kinds for s in tables[version]) for version in VERSIONS]
        lines.append('| %s | %s |' % (title, ' | '.join(map(str, counts))))
    page = [HEAD.format(counts='\n'.join(lines))]
    page.append('## Not kept\n')
    for version in VERSIONS:
        page += ['### Of %s\n' % version, '| statement | demands | what happens | shown by |', '|---|---|---|---|']
        page += [row(s, '%s | %s' % (s.what, s.instead)) for s in tables[version] if s.instead] + ['']
    for version in VERSIONS:
        page.append('## MQTT %s\n' % version)
        heading = None
        for statement in tables[version]:
            if statement.heading != heading:
                heading = statement.heading
                page += ([''] if page[-1].startswith('|') else []) + ['### %s: %s\n' % (version, heading),
                                                                      '| statement | binds | demands | shown by |', '|---|---|---|---|']
            what = statement.what
            what += '. *Not kept*, [above](#of-%s)' % version.replace('.', '') if statement.instead else ''
            what += '. *Does not arise*: %s' % statement.moot if statement.moot else ''
            page.append(row(statement, '%s | %s' % (statement.bound, what)))
        page.append('')
    return '\n'.join(page).rstrip('\n') + '\n'


if __name__ == '__main__':
    print(make_page(), end='')
