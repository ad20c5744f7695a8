"""Fixtures of the system tests: servers that are checked when they stop, clients that are closed, data that may be absent."""
import os
import pathlib
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from client import Client  # noqa: E402
from spindle import BINARY, ROOT, Spindle  # noqa: E402

SHARED = pathlib.Path(os.environ.get('SPINDLE_SHARED', ROOT.parent / 'shared'))


def pytest_sessionstart(session):
    if not BINARY.exists():
        pytest.exit('%s is not built; run make' % BINARY, returncode=3)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    session.config.exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """A thread that a test left behind would keep the interpreter from ending; when everything is reported, nothing waits for it."""
    if hasattr(config, 'workerinput'):
        return  # of several processes: the first one ends them
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    if left:
        print('threads that tests left behind: ' + ', '.join(left), flush=True)
        os._exit(getattr(config, 'exit_status', 0) or 1)


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Fixtures can ask whether their test failed."""
    outcome = yield
    setattr(item, 'report_' + call.when, outcome.get_result())


def finish(server):
    """Stops what still runs, in order, and recounts its journal: every test ends with this."""
    try:
        if server.running():
            server.metrics()
            server.stop()
        server.check_quiet()
        if server.data_dir.is_dir():
            for stream, terms in server.audit().items():
                assert terms['holds'], 'the audit of %s does not hold: %s' % (stream, terms)
    finally:
        server.kill()


def show_stderr(request, servers):
    report = getattr(request.node, 'report_call', None)
    if report is not None and report.failed:
        for server in servers:
            print('--- standard error of the server in %s\n%s' % (server.folder, server.stderr()[-8000:]))


@pytest.fixture
def spindle(tmp_path, request):
    """spindle(*arguments, env=None, settings=None) makes a Spindle that is not started yet, each in a folder of its own."""
    servers = []

    def make(*arguments, env=None, settings=None):
        folder = tmp_path / ('server%d' % len(servers))
        folder.mkdir()
        servers.append(Spindle(folder, *arguments, env=env, settings=settings))
        return servers[-1]
    yield make
    show_stderr(request, servers)
    for server in servers:
        finish(server)


@pytest.fixture(scope='module')
def shared_server(tmp_path_factory):
    """shared_server(settings=None) starts a server that all tests of a module use, each with names of its own."""
    servers = []

    def make(settings=None):
        servers.append(Spindle(tmp_path_factory.mktemp('shared'), settings=settings).start())
        return servers[-1]
    yield make
    for server in servers:
        finish(server)


@pytest.fixture
def connect(request):
    """connect(server, ...) gives a connected Client, closed at the end of the test."""
    clients = []

    def make(server, *arguments, **options):
        clients.append(Client(server.port, *arguments, **options))
        return clients[-1]
    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope='session')
def shared_data():
    """The folder of real curves and messages beside the checkout; skips where it is absent."""
    folder = SHARED / 'data'
    if not (folder / 'expected_keypoints.jsonl').is_file():
        pytest.skip('no real curves in %s (SPINDLE_SHARED names their folder)' % folder)
    return folder
