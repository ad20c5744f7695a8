"""The tables of the standards' statements are whole, what they cite exists, and docs/mqtt.md is made from them."""
import re
import subprocess
import sys

import pytest

import statements
from spindle import ROOT

# How many statements the appendix B of each standard has, by section.
SECTIONS = {
    '3.1.1': {'1.5.3': 3, '2.2.2': 2, '2.3.1': 7, '3.1.0': 2, '3.1.2': 24, '3.1.3': 11, '3.1.4': 5, '3.2.0': 1, '3.2.2': 6, '3.3.1': 12,
              '3.3.2': 3, '3.3.4': 1, '3.3.5': 2, '3.6.1': 1, '3.8.1': 1, '3.8.3': 4, '3.8.4': 6, '3.9.3': 2, '3.10.1': 1, '3.10.3': 2,
              '3.10.4': 6, '3.12.4': 1, '3.14.1': 1, '3.14.4': 3, '4.1.0': 2, '4.3.1': 1, '4.3.2': 2, '4.3.3': 2, '4.4.0': 1, '4.5.0': 2,
              '4.6.0': 6, '4.7.1': 3, '4.7.2': 1, '4.7.3': 4, '4.8.0': 2, '6.0.0': 4, '7.0.0': 2, '7.1.1': 1, '7.1.2': 1},
    '5.0': {'1.5.4': 3, '1.5.5': 1, '1.5.7': 1, '2.1.3': 1, '2.2.1': 5, '2.2.2': 1, '3.1.0': 2, '3.1.2': 30, '3.1.3': 12, '3.1.4': 6,
            '3.2.0': 2, '3.2.2': 22, '3.3.1': 13, '3.3.2': 20, '3.3.4': 10, '3.4.2': 3, '3.5.2': 3, '3.6.1': 1, '3.6.2': 3, '3.7.2': 3,
            '3.8.1': 1, '3.8.3': 5, '3.8.4': 8, '3.9.2': 2, '3.9.3': 2, '3.10.1': 1, '3.10.3': 2, '3.10.4': 6, '3.11.2': 2, '3.11.3': 2,
            '3.12.4': 1, '3.14.0': 1, '3.14.1': 1, '3.14.2': 4, '3.14.4': 3, '3.15.1': 1, '3.15.2': 3, '4.1.0': 2, '4.2.0': 1, '4.3.1': 1,
            '4.3.2': 5, '4.3.3': 13, '4.4.0': 2, '4.5.0': 2, '4.6.0': 6, '4.7.0': 1, '4.7.1': 2, '4.7.2': 1, '4.7.3': 4, '4.8.2': 6,
            '4.9.0': 3, '4.12.0': 7, '4.12.1': 2, '4.13.1': 1, '4.13.2': 1, '6.0.0': 4},
}
TOTALS = {'3.1.1': 141, '5.0': 251}


@pytest.fixture(scope='module')
def collected():
    """All tests of tests/system, as pytest names them."""
    done = subprocess.run([sys.executable, '-m', 'pytest', '--collect-only', '-q', ROOT / 'tests' / 'system'], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    return {line for line in done.stdout.splitlines() if '::' in line}


@pytest.mark.parametrize('version', statements.VERSIONS)
def test_every_statement_is_there_once_and_in_order(version):
    numbers = [s.number for s in statements.read(version)]
    expected = ['%s-%d' % (section, i) for section, count in SECTIONS[version].items()
                for i in range(2 if (version, section) == ('5.0', '2.2.1') else 1, count + (2 if (version, section) == ('5.0', '2.2.1') else 1))]
    assert numbers == expected and len(numbers) == TOTALS[version]


@pytest.mark.parametrize('version', statements.VERSIONS)
def test_every_statement_is_shown_or_says_why_not(version):
    for statement in statements.read(version):
        assert statement.tests or statement.bound == 'client' or statement.instead or statement.moot, statement.number
        assert not (statement.instead and statement.moot), statement.number
        assert not statement.instead or statement.tests, 'what happens in place of %s is not shown' % statement.number


@pytest.mark.parametrize('version', statements.VERSIONS)
def test_every_test_that_is_cited_exists(collected, version):
    plain = {re.sub(r'\[.*', '', name) for name in collected}
    for statement in statements.read(version):
        for test in statement.tests:
            known = test.endswith('.c') or '.c::' in test or test in collected or ('[' not in test and test in plain)
            assert known, '%s: there is no test %s' % (statement.number, test)


def test_a_test_that_is_missing_is_noticed():
    with pytest.raises(ValueError, match='no such test'):
        statements.find('connect::test_of_nothing', 'here')


def test_the_page_is_made_from_the_tables():
    assert (ROOT / 'docs' / 'mqtt.md').read_text() == statements.make_page(), 'run `make docs`'
