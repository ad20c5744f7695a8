"""A file system that is really full: senders are held back, nothing that was acknowledged is lost, and it goes on when there is space."""
import os
import signal
import subprocess
import threading
import uuid

import pytest

from spindle import DEADLINE_S, Spindle, wait_until

PAYLOAD = b'x' * 50000


@pytest.fixture
def small_disk(tmp_path):
    """A folder with 24 MiB of space and a ballast file of 4 MiB in it."""
    folder = tmp_path / 'small'
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', str(folder)],
                                                   stderr=subprocess.DEVNULL).returncode == 0
    if not mounted:
        pytest.skip('mounting a small file system needs root')
    (folder / 'ballast').write_bytes(bytes(4 << 20))
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


class Filler:
    """Publishes until it is stopped; notes every payload that was acknowledged."""

    def __init__(self, client):
        self.client, self.acknowledged, self.stopping = client, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            payload = uuid.uuid4().hex.encode() + PAYLOAD
            token = self.client.post('fill/up', payload)
            while not self.stopping.is_set() and not token.is_published():
                self.stopping.wait(0.005)
            if token.is_published():
                self.acknowledged.append(payload[:32].decode())

    def stop(self):
        self.stopping.set()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def full(small_disk, connect):
    """A server whose disk is full, and who filled it."""
    server = Spindle(small_disk, settings={'journal.segment_size': '1MiB'}).start()
    filler = Filler(connect(server))
    wait_until(lambda: server.metrics().get_sum('spindle_journal_stalled') == 1, 'a full disk is noticed')
    yield server, filler
    filler.stopping.set()
    server.kill()


def kept(server):
    return {record['payload'][:32].decode() for record in server.journal('bus')}


def test_a_full_disk_holds_senders_back_until_there_is_space(full, small_disk):
    server, filler = full
    answer = server.http('/readyz')
    assert answer[0] == 503 and 'space' in str(answer)
    before = len(filler.acknowledged)
    (small_disk / 'ballast').unlink()
    wait_until(lambda: len(filler.acknowledged) > before + 20, 'it goes on')
    filler.stop()
    assert set(filler.acknowledged) <= kept(server)
    assert 'writing goes on' in server.stderr()  # what it said before found no space either


def test_a_full_disk_does_not_keep_it_from_ending(full):
    server, filler = full
    server.signal(signal.SIGTERM)
    wait_until(lambda: 'stopping' in server.readiness()[1], 'it says that it stops')  # it waits some seconds for space
    assert server.readiness()[0] == 503 and server.http('/healthz')[0] == 200
    assert server.wait() == 0
    filler.stop()
    assert set(filler.acknowledged) <= kept(server)
