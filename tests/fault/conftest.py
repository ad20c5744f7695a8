"""Fixtures of the fault tests: those of the system tests, and what makes a machine fail.

    FAULT_SEED     the random choices of a run; printed at its start, so that a failing one can be repeated as far as time allows
    FAULT_KILLS    how often test_kills.py kills (300)
    FAULT_DAMAGES  damaged copies of each kind that test_damage.py looks at (12)
"""
import contextlib
import importlib.util
import os
import pathlib
import random
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SYSTEM = HERE.parent / 'system'
sys.path[:0] = [str(HERE), str(SYSTEM)]

specification = importlib.util.spec_from_file_location('system_fixtures', SYSTEM / 'conftest.py')
system_fixtures = importlib.util.module_from_spec(specification)
specification.loader.exec_module(system_fixtures)
pytest_sessionstart = system_fixtures.pytest_sessionstart
pytest_runtest_makereport = system_fixtures.pytest_runtest_makereport
connect = system_fixtures.connect

import faults  # noqa: E402
from toolbox import Feeder, Toolbox  # noqa: E402

SEED = int(os.environ.get('FAULT_SEED') or random.SystemRandom().randrange(1 << 32))


def pytest_report_header(config):
    return 'FAULT_SEED=%d' % SEED


@pytest.fixture
def chance(request):
    """Random numbers that depend on the seed and on the test alone."""
    return random.Random('%d %s' % (SEED, request.node.name))


@pytest.fixture
def say(request):
    """say(text) shows the progress of a long test."""
    capture = request.config.pluginmanager.getplugin('capturemanager')

    def show(text):
        with capture.global_and_fixture_disabled():
            print('\n    %s' % text, end='', flush=True)
    return show


@pytest.fixture
def spindle(tmp_path, request):
    """spindle(folder=None, settings=None, ...) makes a server that is not started yet. One that still runs at the end is stopped in order,
    and its journal is recounted."""
    servers = []

    def make(folder=None, **options):
        if folder is None:
            folder = tmp_path / ('server%d' % len(servers))
            folder.mkdir()
        servers.append(faults.Server(folder, tmp_path / ('stderr%d.txt' % len(servers)), **options))
        return servers[-1]
    yield make
    system_fixtures.show_stderr(request, servers)
    for server in servers:
        system_fixtures.finish(server)


@pytest.fixture
def load(request, chance, spindle):
    """load(server, boxes, feeders, **options of Toolbox) starts senders, each with its own seed; they end with the test."""
    senders = []

    def start(server, boxes=3, feeders=1, feeder_rate=60, size_max=20000, **options):
        options = {'rate': 25, 'repeats': 0.15, 'late_heads': 0.1, **options}
        begun = [Toolbox(server, len(senders) + i, seed=chance.random(), **options) for i in range(boxes)]
        begun += [Feeder(server, len(senders) + i, seed=chance.random(), rate=feeder_rate, size_max=size_max) for i in range(feeders)]
        for sender in begun:
            sender.start()
        senders.extend(begun)
        return begun
    yield start
    for sender in senders:
        sender.give_up()
    for sender in senders:
        sender.join(10)


@pytest.fixture
def disk(tmp_path):
    """disk(kind, size) mounts a small file system of its own, 'tmpfs' or 'ext4' on a file; skips where that is not allowed."""
    with contextlib.ExitStack() as stack:
        def make(kind, size_mib):
            if os.geteuid() != 0:
                pytest.skip('mounting a small file system needs root')
            made = faults.Disk(tmp_path, kind, size_mib)
            why = made.mount()
            if why:
                pytest.skip('a small %s cannot be mounted here: %s' % (kind, why))
            stack.callback(made.destroy)
            return made
        yield make
