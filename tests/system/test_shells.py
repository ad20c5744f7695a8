"""What `spindle completion` and `spindle docs man` print, as the shells and the manual's formatters take it."""
import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from spindle import BINARY, DEADLINE_S, ROOT, run_cli

CASES = [  # what is typed, what must be offered, what must not
    (['spindle', 'ru'], {'run'}, {'journal'}),
    (['spindle', ''], {'run', 'check', 'journal', 'dead', 'simulate', 'bench', 'completion', 'version', 'help'}, {'docs', 'cat'}),
    (['spindle', 'journal', ''], {'cat', 'audit'}, {'run', 'check'}),
    (['spindle', 'dead', 'ls', '--js'], {'--json'}, {'--data-dir'}),
    (['spindle', 'run', '--po'], {'--port'}, {'--http-port'}),
    (['spindle', 'run', '--set', 'drilling.est'], {'drilling.estimator='}, {'bus.port='}),
    (['spindle', 'simulate', '--protocol', ''], {'3.1.1', '5.0'}, {'--rate'}),
    (['spindle', 'bench', 'fan'], {'fanout'}, {'rate'}),
    (['spindle', 'completion', 'f'], {'fish'}, {'bash'}),
    (['spindle', 'check', '-c', 'f'], {'file.yaml', 'folder/'}, {'other'}),
]
BASH = """
compopt() { :; }
source ./script
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_spindle
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell, folder):
    (folder / 'file.yaml').touch()
    (folder / 'other').touch()
    (folder / 'folder').mkdir(exist_ok=True)
    (folder / 'script').write_text(run_cli('completion', shell).stdout)


def needs(program):
    if not shutil.which(program):
        pytest.skip('%s is not installed' % program)


def run_shell(folder, *command):
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=DEADLINE_S, env=dict(os.environ, HOME=str(folder)))
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize('words, offered, not_offered', CASES + [
    (['spindle', 'help', ''], {'run', 'journal'}, {'docs'}), (['spindle', 'help', 'journal', ''], {'cat', 'audit'}, {'--json'})])
def test_bash_completes(tmp_path, words, offered, not_offered):
    script('bash', tmp_path)
    found = set(run_shell(tmp_path, 'bash', '-c', BASH, 'bash', *words).splitlines())
    offered = {word.rstrip('/') for word in offered}
    assert offered <= found and not found & not_offered, found


@pytest.mark.parametrize('words, offered, not_offered', CASES)
def test_fish_completes(tmp_path, words, offered, not_offered):
    needs('fish')
    script('fish', tmp_path)
    text = run_shell(tmp_path, 'fish', '--no-config', '-c', "source ./script; complete -C '%s'" % ' '.join(words))
    found = {line.split('\t')[0] for line in text.splitlines()}
    assert offered <= found and not found & not_offered, found


@pytest.mark.parametrize('words, offered, not_offered', CASES)
def test_zsh_completes(tmp_path, words, offered, not_offered):
    """Typed on a terminal; Control-X lists the choices, after which zsh prints the line again."""
    needs('zsh')
    script('zsh', tmp_path)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(shutil.which('zsh'), ['zsh', '-f', '-i'],
                  dict(os.environ, TERM='dumb', COLUMNS='250', LINES='200', HOME=str(tmp_path), ZDOTDIR=str(tmp_path)))
    seen = ''

    def read_until(done):
        nonlocal seen
        seen, end = '', time.monotonic() + DEADLINE_S
        while not done(seen) and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 65536).decode('utf-8', 'replace')
        return seen
    line = ' '.join(words)
    try:
        os.write(terminal, b"PROMPT='' LISTMAX=1000; autoload -U compinit; compinit -u -D; source ./script; bindkey '^X' list-choices; "
                           b"stty -echo; print -r -- RE''ADY\n")
        assert 'READY' in read_until(lambda text: 'READY' in text)
        os.write(terminal, line.encode() + b'\x18')
        text = read_until(lambda text: text.count(line.strip()) > 1)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    found = set(re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', text[text.index(line.strip()) + len(line.strip()):text.rindex(line.strip())]).split())
    assert offered <= found and not found & not_offered, text


def test_the_manual_page_is_one(tmp_path):
    page = tmp_path / 'spindle.1'
    page.write_text(run_cli('docs', 'man').stdout)
    text = page.read_text()
    assert all(section in text for section in ('.SH NAME', '.SH SYNOPSIS', '.SH COMMANDS', '.SH EXIT STATUS', '.SH ENVIRONMENT', '.SH FILES'))
    if shutil.which('mandoc'):
        done = subprocess.run(['mandoc', '-Tlint', '-Werror', page], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


COMMANDS = re.findall(r'^COMMAND\(\w+, "([a-z ]+)", VISIBLE', (ROOT / 'src' / 'cli' / 'commands.def').read_text(), re.MULTILINE)


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_explains_itself_and_refuses_nonsense(command):
    """Exit status 0 with help on standard output; 2 with a mistake, which is named on standard error."""
    for flag in ('--help', '-h'):
        done = run_cli(*command.split(), flag)
        assert done.stdout.startswith('Usage: spindle ' + command) or 'spindle ' + command in done.stdout
        assert not done.stderr
    done = run_cli(*command.split(), '--no-such-option', check=False)
    assert done.returncode == 2 and '--no-such-option' in done.stderr and not done.stdout


def test_exit_statuses_are_documented():
    text = run_cli('docs', 'commands').stdout
    assert 'Exit status: 0 when all is well, 2 when the command line or the configuration' in text
    assert run_cli('check', '--set', 'bus.port=x', check=False).returncode == 2
    assert run_cli('run', '--port', 0, '--http-port', 0, '--data-dir', BINARY, check=False).returncode == 1
    for command in ('run', 'journal audit', 'dead ls', 'simulate', 'bench'):
        assert 'Exit status 1: ' in text.split('## spindle ' + command + '\n')[1].split('\n## ')[0]


@pytest.mark.parametrize('env, coloured', [({}, True), ({'NO_COLOR': '1'}, False), ({'TERM': 'dumb'}, False)])
def test_colour_is_for_terminals_that_want_it(env, coloured):
    main, terminal = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != 'NO_COLOR'}
    with subprocess.Popen([BINARY, '--help'], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
                          env={**clean, 'TERM': 'xterm', **env}) as process:
        os.close(terminal)
        text = b''
        try:
            while True:
                text += os.read(main, 65536)
        except OSError:  # the other side was closed
            pass
        assert process.wait(DEADLINE_S) == 0
    os.close(main)
    assert b'spindle' in text and (b'\x1b[' in text) == coloured
