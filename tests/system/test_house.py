"""The tools around the code: they find what they are there to find."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

from spindle import ROOT


def run(*command, **options):
    return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, **options)


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


# ---- layers ----

@pytest.mark.parametrize('files, breach', [
    ({'src/base/a.c': '#include "mqtt/packet.h"\n'}, 'src/base/a.c:1: base may not include mqtt/packet.h'),
    ({'src/mqtt/a.h': '\n#  include "journal/journal.h"\n'}, 'src/mqtt/a.h:2: mqtt may not include journal/journal.h'),
    ({'src/pipeline/a.c': '#include "drilling/stage.h"\n'}, 'pipeline may not include drilling'),
    ({'src/drilling/a.cpp': '#include "cli/server.h"\n'}, 'drilling may not include cli'),
    ({'src/attic/a.c': '#include "base/error.h"\n'}, 'module attic is not in the table'),
    ({'src/bus/a.c': '#include <uv.h>\n', 'src/bus/b.c': '#include <uv.h>\n'}, 'src/bus/b.c:1: <uv.h> is already included by src/bus/a.c'),
    ({'src/bus/room/a.c': '#include "drilling/stage.h"\n'}, 'src/bus/room/a.c:1: bus may not include drilling/stage.h'),
    ({'src/bus/a.c': '#include "cli/journal/tool.h"\n'}, 'src/bus/a.c:1: bus may not include cli/journal/tool.h'),
    ({'src/bus/a.c': '#include <uv.h>\n', 'src/bus/room/b.c': '#include <uv.h>\n'}, 'src/bus/room/b.c:1: <uv.h> is already included by src/bus/a.c'),
    ({'src/journal/a.h': '', 'src/cli/journal/a.h': '', 'src/cli/b.c': '#include "journal/a.h"\n'},
     'src/cli/b.c:1: src/cli/journal/a.h stands in the way of src/journal/a.h'),
])
def test_layers_names_each_breach(tmp_path, files, breach):
    write(tmp_path, files)
    done = run(ROOT / 'tools' / 'layers', tmp_path)
    assert done.returncode == 1 and breach in done.stdout


def test_layers_accepts_what_is_allowed(tmp_path):
    write(tmp_path, {
        'src/base/error.h': '', 'src/base/errors.def': '',
        'src/base/a.c': '#include "base/error.h"\n#include "errors.def"\n#include <sys/socket.h>\n#include <stdio.h>\n',
        'src/bus/a.c': '#include <uv.h>\n#include "mqtt/packet.h"\n',
        'src/cli/a.c': '#include "bus/bus.h"\n#include <uv.h>\n',
        'src/journal/a.h': '', 'src/cli/journal/b.h': '',
        'src/cli/journal/a.c': '#include "cli/journal/b.h"\n#include "journal/a.h"\n#include "b.h"\n#include "mqtt/packet.h"\n',
        'src/load/a.cpp': '#include "mqtt/packet.h"\n#include <string>\n'})
    done = run(ROOT / 'tools' / 'layers', tmp_path)
    assert done.returncode == 0, done.stdout


# ---- packages ----

@pytest.fixture
def package_tool():
    """A copy of the tool with a list of its own, in a folder that every user can read."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / 'tools').mkdir()
    shutil.copy(ROOT / 'tools' / 'packages', folder / 'tools')
    (folder / 'packages.txt').write_text('# comment\nbuild no-such-package-a\ntest  no-such-package-b\ntest  no-such-package-a\nnone  dpkg\n')
    yield folder / 'tools' / 'packages'
    shutil.rmtree(folder)


def test_missing_packages_are_named_where_nothing_can_be_installed(package_tool):
    as_nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'] if os.geteuid() == 0 else []
    done = run(*as_nobody, package_tool, 'build', 'test', 'other')
    assert done.returncode == 1 and 'apt-get install no-such-package-a no-such-package-b\n' in done.stdout


def test_nothing_is_said_where_nothing_is_missing(package_tool):
    for purposes in (['none'], ['other'], []):
        done = run(package_tool, *purposes)
        assert (done.returncode, done.stdout) == (0, '')


# ---- the Makefile and the runner ----

def test_make_help_lists_the_targets():
    listed = set(re.findall(r'^  make (\S+)', run('make', '-C', ROOT, 'help').stdout, re.MULTILINE))
    assert listed >= {'help', 'deps', 'build', 'demo', 'test', 'check', 'asan', 'tsan', 'fuzz', 'bench', 'layers', 'format', 'install', 'clean'}


def test_a_thread_that_a_test_leaves_does_not_hold_the_end(tmp_path):
    write(tmp_path, {'test_left.py': "import threading\n\n\ndef test_left():\n    threading.Thread(target=threading.Event().wait, name='forgotten').start()\n"})
    done = run(sys.executable, '-m', 'pytest', '-q', '-p', 'conftest', '-p', 'no:cacheprovider', '--rootdir', tmp_path, '--junitxml',
               tmp_path / 'report.xml', tmp_path / 'test_left.py', env=dict(os.environ, PYTHONPATH=str(ROOT / 'tests' / 'system')))
    assert done.returncode == 1 and '1 passed' in done.stdout and done.stdout.endswith('threads that tests left behind: forgotten\n')
    assert 'tests="1"' in (tmp_path / 'report.xml').read_text()


def test_the_runner_ends_with_one_line_of_counts(tmp_path):
    done = run(ROOT / 'tests' / 'run', '--only', 'house')
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == '1 passed, 0 failed'
    done = run(ROOT / 'tests' / 'run', '--only', 'unit', '--variant', 'no-such-variant')
    assert done.returncode == 1 and re.fullmatch(r'0 passed, [1-9]\d* failed', done.stdout.splitlines()[-1])
