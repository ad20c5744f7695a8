"""The data folder is taken away under a running server: it finds out with the next group, acknowledges nothing of it, and stops."""
import shutil

import pytest

from faults import ABORTED
from spindle import wait_until
from toolbox import check_answered, check_kept, is_acknowledged, total_acknowledged


def under_load(server, load):
    senders = load(server)
    wait_until(lambda: total_acknowledged(senders) > 100, 'load')
    return senders


def newest_segment(folder):
    return max(path for path in folder.iterdir() if path.stem.isdigit())


def test_the_folder_is_moved_away(spindle, load):
    server = spindle().start()
    senders = under_load(server, load)
    away = server.folder / 'away'
    server.data_dir.rename(away)
    server.expect_end(ABORTED, str(server.data_dir), 'moved', 'not acknowledged', 'Put the data folder back')
    assert not server.data_dir.exists()  # nothing was begun anew behind the operator's back
    away.rename(server.data_dir)
    server.start()
    for sender in senders:
        sender.finish()
    server.wait_settled()
    server.stop()
    check_kept(server, senders)
    check_answered(server, senders[:-1])


@pytest.mark.parametrize('what', ['data', 'ingest', 'bus', 'segment'])
def test_it_is_deleted(spindle, load, connect, what):
    """All of it, a stream, or only the segment that is being written. What is posted after that is never acknowledged."""
    server = spindle().start()
    senders = under_load(server, load)
    clients = [connect(server) for _ in range(4)]
    if what == 'segment':
        newest_segment(server.data_dir / 'bus').unlink()
    else:
        shutil.rmtree(server.data_dir if what == 'data' else server.data_dir / what)
    topic = 'OPCPUBSUB/box/tool/ResultManagement' if what == 'ingest' else 'any/topic'
    tokens = [client.post(topic, b'%d' % i) for client in clients for i in range(50)]
    server.expect_end(ABORTED, str(server.data_dir), 'deleted', 'not acknowledged')
    for client in clients:
        client.wait_disconnected()
    assert not any(is_acknowledged(token) for token in tokens)
    for sender in senders:
        sender.give_up()
    shutil.rmtree(server.data_dir, ignore_errors=True)  # there is nothing whole to recount


def test_an_idle_server_finds_out_with_the_next_message(spindle, connect):
    server = spindle().start()
    client = connect(server)
    client.publish('a/topic', b'before')
    shutil.rmtree(server.data_dir)
    assert server.http('/healthz')[0] == 200
    token = client.post('a/topic', b'after')
    server.expect_end(ABORTED, 'deleted')
    client.wait_disconnected()
    assert not is_acknowledged(token)


def test_a_stream_is_missing_at_the_start(spindle, load):
    """The messages are gone: it says so, gives them up, and does not go on as if nothing had been. What is put back is there again."""
    server = spindle().start()
    senders = under_load(server, load)
    server.kill()
    for sender in senders:
        sender.give_up()
    ingest, away = server.data_dir / 'ingest', server.folder / 'ingest'
    ingest.rename(away)
    server.start()
    assert 'stream ingest: it had come to offset' in server.stderr() and 'put them back' in server.stderr()
    terms = server.wait_settled().streams()['ingest']
    assert terms['accepted'] > 0 and terms['pending'] == 0
    server.stop()
    shutil.rmtree(ingest)
    away.rename(ingest)
    server.start()
    server.stop()
    check_kept(server, senders)
