"""journal trim on the folder of a running server: the server does it, at work, and keeps what is needed."""
import json
import random
import socket
import threading
import urllib.error
import urllib.request

import pytest

from holes import ANSWERS, RESULT, TRACE, Hole
from spindle import DEADLINE_S, free_port, json_lines, run_cli, wait_until
from toolbox import Feeder, Toolbox, check_answered

PATH = '/api/v1/journal/trim'
SETTINGS = {'journal.segment_size': '1MiB', 'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2, 'mqtt.listener.time_window': 3600}
STREAMS = ('ingest', 'bus', 'results', 'dead-letters', 'outcomes')


def trim(server, stream, *arguments):
    """(exit status, the JSON object or None, standard error)"""
    done = run_cli('journal', 'trim', '--data-dir', server.data_dir, '--stream', stream, '--json', *arguments, check=False)
    lines = json_lines(done.stdout)
    return done.returncode, lines[0] if lines else None, done.stderr


def segments(server, stream):
    return sorted((server.data_dir / stream).glob('0*.seg'))


def first_offset(server, stream):
    return int(segments(server, stream)[0].stem)


def fill_bus(client, count):
    for first in range(0, count, 50):  # no group is larger than a segment
        client.publish_all([('bus/x', b'%06d' % i + b'x' * 10000) for i in range(first, first + 50)])


def check_folder(server):
    assert run_cli('journal', 'verify', '--data-dir', server.data_dir).returncode == 0
    assert all(terms['holds'] for terms in server.audit().values())


def post(server, body, path=PATH):
    """(status, answer)"""
    request = urllib.request.Request('http://127.0.0.1:%d%s' % (server.http_port, path), data=json.dumps(body).encode(),
                                     headers={'Content-Type': 'application/json'})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.loads(refusal.read())


def test_by_offset_size_and_age_as_the_dry_run_says(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    fill_bus(client, 900)
    paths = segments(server, 'bus')
    assert len(paths) > 7
    border = int(paths[2].stem)
    keys = ['stream', 'dry_run', 'segments', 'bytes', 'first_offset', 'kept_back', 'pending_lost']
    conditions = [('--before', border + 1), ('--keep-size', '3MiB'), ('--older-than', '0s')]
    kept = []
    for condition in conditions:
        before, sizes = segments(server, 'bus'), [path.stat().st_size for path in segments(server, 'bus')]
        status, plan, stderr = trim(server, 'bus', *condition, '--dry-run')
        assert (status, stderr) == (0, '') and segments(server, 'bus') == before and list(plan) == keys
        status, done, stderr = trim(server, 'bus', *condition)
        assert (status, stderr) == (0, '') and done == {**plan, 'dry_run': False} and list(done) == keys
        gone = before[:done['segments']]
        assert gone and segments(server, 'bus') == before[len(gone):]
        assert done['first_offset'] == first_offset(server, 'bus') and done['kept_back'] == done['pending_lost'] == 0
        assert 0 < done['bytes'] <= sum(sizes[:len(gone)])
        kept.append(len(before) - len(gone))
        assert trim(server, 'bus', *condition)[1]['segments'] == 0
    assert kept[0] == len(paths) - 2 and 3 <= kept[1] <= 5 and kept[2] == 1
    assert trim(server, 'bus', '--older-than', '1d', '--before', 10**9)[1]['segments'] == 0
    client.publish('goes/on', b'')
    assert server.journal('bus')[-1]['offset'] == 900 and server.journal('bus')[0]['offset'] == first_offset(server, 'bus')
    assert server.metrics().get_sum('spindle_accepted_total', stream='bus') == 901
    check_folder(server)


def test_as_text_it_names_the_files(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    fill_bus(connect(server), 300)
    paths = segments(server, 'bus')
    command = ['journal', 'trim', '--data-dir', server.data_dir, '--stream', 'bus', '--before', int(paths[2].stem)]
    plan = run_cli(*command, '--dry-run').stdout
    done = run_cli(*command).stdout
    assert done.splitlines()[:-1] == ['removed bus/' + path.name for path in paths[:2]]
    assert 'bus: 2 segments' in done and 'are gone; the first offset is %d' % int(paths[2].stem) in done
    assert plan.replace('would remove', 'removed').replace('would go', 'are gone').replace('would be', 'is') == done


def test_what_has_no_outcome_stays(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    client, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)
    client.publish_all([(Hole().topic('Nonsense'), b'x' * 20000)] * 150)
    server.wait_settled(150)
    hole = Hole()
    client.publish_all(hole.messages((RESULT,)))
    client.publish_all([(Hole().topic('Nonsense'), b'x' * 20000)] * 150)
    wait_until(lambda: server.metrics().streams()['ingest']['pending'] == 1, 'one message waits')
    for arguments in (['--dry-run'], [], ['--older-than', '0s'], ['--keep-size', '0']):
        status, done, stderr = trim(server, 'ingest', '--before', 10**9, *arguments)
        assert status == 1 and done['kept_back'] > 0 and done['pending_lost'] == 0 and done['first_offset'] <= 150
        assert 'without an outcome' in stderr and 'when the server is stopped' in stderr
    assert 0 < first_offset(server, 'ingest') <= 150
    status, done, stderr = trim(server, 'ingest', '--before', 10**9, '--force')
    assert (status, done) == (1, None) and 'running server' in stderr and '--force' in stderr
    status, done, stderr = trim(server, 'dead-letters', '--before', 10**9)
    assert status == 1 and done['kept_back'] == 1 and len(segments(server, 'dead-letters')) == 2 and 'crash' in stderr
    client.publish_all(hole.messages((TRACE,)))
    assert len(subscriber.take(2)) == 2
    server.wait_settled(302)
    assert trim(server, 'ingest', '--before', 10**9)[0] == 0 and len(segments(server, 'ingest')) == 1
    check_folder(server)
    server.kill()
    server.start()
    server.wait_settled(302)
    assert server.metrics().streams()['ingest']['duplicates'] == 0


def trim_without_end(server, stop, failures, removed, seed):
    chance = random.Random(seed)
    while not stop.is_set():
        stream = chance.choice(('ingest', 'bus', 'dead-letters', 'outcomes'))
        condition = chance.choice((('--before', 10**9), ('--older-than', '0s'), ('--keep-size', '1MiB')))
        status, done, stderr = trim(server, stream, *condition, *chance.choice(((), ('--dry-run',))))
        if done is None and not stop.is_set():
            failures.append(stderr)
        if done and not done['dry_run']:
            removed.append((stream, done['segments'], done['first_offset']))


@pytest.mark.parametrize('compression', ['none', 'zstd'])
def test_two_at_once_while_clients_publish(spindle, connect, compression):
    server = spindle(settings={**SETTINGS, 'journal.compression': compression, 'journal.retention_size': '3MiB'}).start()
    senders = [Toolbox(server, 0, seed=1, repeats=0.1), Feeder(server, 1, seed=2)]
    stop, failures, removed = threading.Event(), [], []
    trimmers = [threading.Thread(target=trim_without_end, args=(server, stop, failures, removed, seed), daemon=True) for seed in (1, 2)]
    for thread in senders + trimmers:
        thread.start()
    wait_until(lambda: {stream for stream, count, _ in removed if count} >= {'ingest', 'bus'}, 'segments of both go', 3 * DEADLINE_S)
    wait_until(lambda: sum(count for _, count, _ in removed) >= 12 and server.metrics(), 'and more do', 3 * DEADLINE_S)
    for sender in senders:
        sender.finish()
    stop.set()
    for thread in trimmers:
        thread.join(DEADLINE_S)
    assert not failures, failures[0]
    metrics = server.wait_settled()
    assert metrics.streams()['ingest']['accepted'] + metrics.streams()['bus']['accepted'] == sum(s.acknowledged_count() for s in senders)
    check_folder(server)
    server.stop()
    check_folder(server)
    server.start()
    assert server.wait_settled().streams()['ingest']['accepted'] == metrics.streams()['ingest']['accepted']


def test_a_kill_during_trims_leaves_a_good_folder(spindle):
    port, http_port = free_port(), free_port()
    server = spindle(settings=SETTINGS)
    server.port, server.http_port = port, http_port
    server.start()
    senders = [Toolbox(server, 0, seed=3), Feeder(server, 1, seed=4)]
    for sender in senders:
        sender.start()
    for turn in range(4):
        stop, failures, removed = threading.Event(), [], []
        trimmer = threading.Thread(target=trim_without_end, args=(server, stop, failures, removed, turn), daemon=True)
        trimmer.start()
        wait_until(lambda: sum(count for _, count, _ in removed) >= 2, 'segments go', 3 * DEADLINE_S)
        stop.set()  # what it says from now on is of a server that is gone
        server.kill()
        trimmer.join(DEADLINE_S)
        check_folder(server)
        for stream, _, first in removed:
            assert first_offset(server, stream) >= first, 'what was told to be gone has come back'
        server.start()
    for sender in senders:
        sender.finish()
    server.wait_settled()
    assert server.metrics().get_sum('spindle_dead_lettered_total', stream='ingest', reason='damaged') == 0
    check_folder(server)
    check_answered(server, senders[:1])


def test_a_reader_that_follows_is_not_disturbed(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    client = connect(server)
    fill_bus(client, 500)
    copied = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: copied.append(run_cli('journal', 'cat', '--data-dir', server.data_dir, '--stream', 'bus',
                                                                       '--json', check=False)))
        thread.start()
        trim(server, 'bus', '--keep-size', '1MiB')
        thread.join(DEADLINE_S)
        fill_bus(client, 300)
    for done in copied:
        offsets = [record['offset'] for record in json_lines(done.stdout)]
        assert done.returncode == 0 and done.stderr == '' and offsets == sorted(offsets) and offsets[-1] >= 499


def test_by_http(spindle, connect):
    server = spindle(settings=SETTINGS).start()
    fill_bus(connect(server), 400)
    paths = segments(server, 'bus')
    request = {'stream': 'bus', 'before': int(paths[2].stem), 'older_than': '0s', 'keep_size': 1 << 20}
    status, plan = post(server, {**request, 'dry_run': True})
    assert status == 200 and plan['removed'] == [path.name for path in paths[:2]] and plan['more'] is False
    assert post(server, request) == (200, {**plan, 'dry_run': False})
    assert segments(server, 'bus') == paths[2:]
    for body in ({}, [], {'stream': 'bus'}, {'before': 1}, {'stream': 1, 'before': 1}, {'stream': 'bus', 'before': -1},
                 {'stream': 'bus', 'before': '1'}, {'stream': 'bus', 'keep_size': 1.5}, {'stream': 'bus', 'older_than': 'week'},
                 {'stream': 'bus', 'older_than': True}, {'stream': 'bus', 'before': 1, 'dry_run': 1}, {'stream': 'bus', 'before': 1, 'force': True},
                 {'stream': 'x' * 100, 'before': 1}):
        status, page = post(server, body)
        assert status == 400 and page['error'], body
    assert post(server, {'stream': 'nothing', 'before': 1})[0] == 404
    assert post(server, {'stream': '../bus', 'before': 1})[0] == 404
    assert post(server, request, PATH + '/x')[0] == 404
    status, headers, _ = server.http(PATH)
    assert status == 405 and headers['Allow'] == 'POST'
    assert segments(server, 'bus') == paths[2:]


def test_a_server_that_cannot_be_asked_is_named(spindle, connect):
    for settings, words in (({'http.changes': 'none'}, 'http.changes'), ({'http.enabled': 'false'}, 'http.enabled')):
        server = spindle(settings={**SETTINGS, **settings})
        if 'http.enabled' in settings:  # nobody to ask how it is
            server.settings.pop('http.host')
        server.start()
        for arguments in ([], ['--dry-run']):
            status, done, stderr = trim(server, 'bus', '--before', 10**9, *arguments)
            assert (status, done) == (1, None) and words in stderr
        server.stop()
    server = spindle(settings=SETTINGS).start()
    path = server.data_dir / 'server.json'
    text = path.read_text()
    with socket.socket() as nobody:
        nobody.bind(('127.0.0.1', 0))
        path.write_text(text.replace('"http_port":%d' % server.http_port, '"http_port":%d' % nobody.getsockname()[1]))
        status, done, stderr = trim(server, 'bus', '--before', 10**9)
    assert (status, done) == (1, None) and 'does not answer' in stderr and 'stop it first' in stderr
    path.unlink()
    status, done, stderr = trim(server, 'bus', '--before', 10**9)
    assert (status, done) == (1, None) and 'server.json' in stderr and 'try again' in stderr
    path.write_text(text)
    server.kill()  # what is left of it misleads nobody
    assert trim(server, 'bus', '--before', 10**9, '--dry-run')[0] == 0
    assert trim(server, 'bus', '--before', 10**9)[0] == 0
