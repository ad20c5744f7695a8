"""A file system that is really full: senders are held back, nothing that was acknowledged is lost, and it goes on when there is space."""
import os
import subprocess
import threading
import uuid

import pytest

from spindle import Spindle, wait_until

PAYLOAD = b'x' * 50000
SMALL = {'journal.segment_size': '1MiB'}


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


def fill(connect, server, acknowledged):
    """Publishes until the server takes no more; notes every payload that was acknowledged. Returns the thread and its stop."""
    client = connect(server)
    stop = threading.Event()

    def send():
        while not stop.is_set():
            payload = uuid.uuid4().hex.encode() + PAYLOAD
            token = client.post('fill/up', payload)
            while not stop.is_set() and not token.is_published():
                stop.wait(0.005)
            if token.is_published():
                acknowledged.append(payload[:32].decode())

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: server.metrics().get_sum('spindle_journal_stalled') == 1, 'a full disk is noticed')
    return thread, stop


def kept(server):
    return {record['payload'][:32].decode() for record in server.journal('bus')}


def test_a_full_disk_holds_senders_back_until_there_is_space(small_disk, connect):
    server = Spindle(small_disk, settings=SMALL).start()
    try:
        acknowledged = []
        thread, stop = fill(connect, server, acknowledged)
        status, body = server.http('/readyz')
        assert status == 503 and b'space' in body
        before = len(acknowledged)
        (small_disk / 'ballast').unlink()
        wait_until(lambda: len(acknowledged) > before + 20, 'it goes on')
        stop.set()
        thread.join()
        assert set(acknowledged) <= kept(server)
        assert 'there is space again; free some' in server.stderr()
    finally:
        server.kill()


def test_a_full_disk_does_not_keep_it_from_ending(small_disk, connect):
    server = Spindle(small_disk, settings=SMALL).start()
    acknowledged = []
    thread, stop = fill(connect, server, acknowledged)
    assert server.stop() == 0
    stop.set()
    thread.join()
    assert set(acknowledged) <= kept(server)
