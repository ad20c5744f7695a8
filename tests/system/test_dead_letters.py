"""Dead letters: listed, shown, put back, dropped; by the command beside a running server and without one, by HTTP, and across kills."""
import json
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from client import V5, Client
from holes import HEADS, RESULT, ROOT, TRACE, Hole
from spindle import BINARY, json_lines, run_cli, wait_until

API = '/api/v1/dead-letters'
SETTINGS = {'mqtt.listener.time_window': 0.3, 'pipeline.grace_s': 0.1}


def dead(server, *words, check=True):
    """(exit status, lines of JSON, standard error)"""
    done = run_cli('dead', words[0], '--data-dir', server.data_dir, *words[1:], '--json', check=check)
    return done.returncode, json_lines(done.stdout), done.stderr


def listed(server, *words):
    return dead(server, 'ls', *words)[1]


def post(server, action, body, headers=None, raw=None):
    """(status, object)"""
    request = urllib.request.Request('http://127.0.0.1:%d%s/%s' % (server.http_port, API, action), method='POST',
                                     data=json.dumps(body).encode() if raw is None else raw,
                                     headers={'Content-Type': 'application/json', **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.loads(refusal.read())


def get(server, path):
    status, _, text = server.http(path)
    return status, json.loads(text)


def publish(server, messages):
    client = Client(server.port)
    client.publish_all(messages)
    client.close()


def wait_answers(server, count):
    """Results come in pairs: key points and depths."""
    wait_until(lambda: server.audit()['results']['accepted'] >= 2 * count, lambda: '%d answers' % count)


def assert_open(server, count):
    assert len(listed(server)) == count
    if server.running():
        assert server.metrics().get_sum('spindle_dead_letters_open') == count


@pytest.fixture
def unmatched(spindle):
    """A server with a dead result and a dead trace of one hole, given up separately."""
    server = spindle(settings=SETTINGS).start()
    hole = Hole()
    for kind in (RESULT, TRACE):
        publish(server, [hole.message(kind)])
        wait_until(lambda: server.wait_settled(), lambda: 'settled')
    assert [letter['reason'] for letter in listed(server)] == ['unmatched'] * 2
    return server, hole


def test_an_unmatched_hole_is_answered_after_both_are_put_back(unmatched):
    server, hole = unmatched
    status, rows, _ = dead(server, 'requeue', '--reason', 'unmatched')
    assert status == 0 and rows == [{'dry_run': False, 'matched': 2, 'requeued': 2, 'refused': 0, 'more': False, 'end': 2}]
    wait_answers(server, 1)
    metrics = server.wait_settled(4)
    assert metrics.streams()['ingest']['completed'] == 2
    assert_open(server, 0)
    assert [letter['state'] for letter in listed(server, '--all')] == ['requeued'] * 2
    records = server.journal('ingest')
    assert [r['topic'] for r in records] == [hole.topic(RESULT), hole.topic(TRACE)] * 2
    assert [r['payload'] for r in records[2:]] == [r['payload'] for r in records[:2]]
    assert all('requeued' not in r for r in records[:2])
    assert [r['requeued']['attempts'] for r in records[2:]] == [2, 2]
    assert [r['requeued']['first_offset'] for r in records[2:]] == [0, 1]
    assert records[2]['requeued']['reason'] == 'unmatched' and records[2]['requeued']['dead_letter'] == 0
    # nothing of it is forgotten by a restart, and nothing happens again
    server.stop()
    server.start()
    assert_open(server, 0)
    assert server.wait_settled().streams()['ingest']['accepted'] == 4


def test_a_stopped_servers_folder_is_opened_and_the_next_start_goes_on(unmatched):
    server, _ = unmatched
    server.stop()
    assert not (server.data_dir / 'server.json').exists()
    assert dead(server, 'requeue', '--offset', '0')[1][0]['requeued'] == 1
    assert [(letter['offset'], letter['state']) for letter in listed(server, '--all')] == [(0, 'requeued'), (1, 'open')]
    assert server.audit()['ingest']['accepted'] == 3 and server.audit()['ingest']['pending'] == 1
    assert dead(server, 'purge', '--offset', '1')[1][0]['purged'] == 1
    assert [letter['state'] for letter in listed(server, '--all')] == ['requeued', 'purged']
    server.start()
    server.wait_settled(3)
    letters = listed(server)
    assert [(letter['offset'], letter['attempts'], letter['previous_reason']) for letter in letters] == [(2, 2, 'unmatched')]
    assert letters[0]['source']['offset'] == 2 and letters[0]['first']['offset'] == 0


def test_a_message_keeps_its_own_properties(spindle):
    """Through a dead letter and back, and when what was put back is replayed."""
    server = spindle().start()
    client = Client(server.port, version=V5)
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [('who', 'me'), ('who', 'you')]
    client.publish(Hole().topic('Nonsense'), b'x', properties=properties)
    client.close()
    server.wait_settled(1)
    own = [['who', 'me'], ['who', 'you']]
    assert listed(server)[0]['properties'] == own
    dead(server, 'requeue', '--all')
    server.wait_settled(2)
    assert [letter['properties'] for letter in listed(server, '--all')] == [own, own]
    assert [record['properties'] for record in server.journal('ingest')] == [own, own]
    run_cli('journal', 'replay', '--data-dir', server.data_dir, '--from', '1', '--speed', 'max', '--into', 'pipeline', '--server', '127.0.0.1:%d' % server.port)
    metrics = server.wait_settled(3)
    assert server.journal('ingest')[2]['properties'] == own and 'requeued' not in server.journal('ingest')[2]
    assert metrics.streams()['ingest']['dead_lettered'] == 3


def test_poison_ends_in_the_stream_each_time_and_never_by_itself(spindle):
    server = spindle(settings={'dead_letters.attempts_max': 3}).start()
    publish(server, [(Hole().topic('Nonsense'), b'poison')])
    for attempt in (1, 2, 3):
        server.wait_settled(attempt)
        letters = listed(server)
        assert [(letter['attempts'], letter['reason'], letter['payload']) for letter in letters] == [(attempt, 'unknown_topic', 'poison')]
        if attempt < 3:
            assert dead(server, 'requeue', '--all')[1][0]['requeued'] == 1
    status, rows, stderr = dead(server, 'requeue', '--all', check=False)
    assert status == 1 and rows[0]['refused'] == 1 and rows[0]['requeued'] == 0 and '--force' in stderr
    assert server.audit()['ingest']['accepted'] == 3
    assert dead(server, 'requeue', '--all', '--force')[1][0]['requeued'] == 1
    server.wait_settled(4)
    assert [letter['attempts'] for letter in listed(server)] == [4]
    assert [letter['attempts'] for letter in listed(server, '--all')] == [1, 2, 3, 4]
    terms = server.audit()['ingest']
    assert terms['dead_lettered'] == 4 and terms['pending'] == 0


def test_what_was_refused_for_its_content_is_not_its_own_duplicate(spindle):
    """A broken result answers its hole with an error. Mended and put back with the others it is answered; alone it waits and is shown."""
    server = spindle(settings={**SETTINGS, 'mqtt.data_ids.result_id': 'NoSuchName'}).start()
    hole = Hole()
    publish(server, hole.messages((RESULT, TRACE)))
    wait_answers(server, 1)
    server.wait_settled(2)
    assert [letter['reason'] for letter in listed(server)] == ['bad_value']
    server.stop()
    del server.settings['mqtt.data_ids.result_id']
    server.start()
    assert dead(server, 'requeue', '--all')[1][0]['requeued'] == 1
    server.wait_settled(3)
    letters = listed(server)
    assert [(letter['reason'], letter['attempts'], letter['previous_reason']) for letter in letters] == [('unmatched', 2, 'bad_value')]
    assert server.audit()['ingest']['duplicates'] == 0


def test_late_heads_can_meet_a_hole_that_is_put_back(spindle):
    server = spindle(settings=SETTINGS).start()
    hole = Hole()
    publish(server, hole.messages((RESULT, TRACE)))
    wait_answers(server, 1)
    publish(server, [hole.message(HEADS)])
    server.wait_settled(3)
    assert [letter['reason'] for letter in listed(server)] == ['late']
    assert dead(server, 'requeue', '--reason', 'late')[1][0]['requeued'] == 1
    server.wait_settled(4)
    assert [(letter['reason'], letter['previous_reason']) for letter in listed(server)] == [('unmatched', 'late')]


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """A stopped server's folder with dead letters of two tools and two reasons."""
    from spindle import Spindle
    server = Spindle(tmp_path_factory.mktemp('many'), settings=SETTINGS).start()
    publish(server, [('/'.join((ROOT, 'box', tool, 'Nonsense')), b'x') for tool in ('a', 'b', 'a', 'b')])
    server.wait_settled(4)
    publish(server, [('/'.join((ROOT, 'box', 'a', RESULT)), b'{')])
    server.wait_settled(5)
    yield server
    if server.running():
        server.stop()


@pytest.mark.parametrize('words, offsets', [
    ([], [0, 1, 2, 3, 4]),
    (['--reason', 'not_json'], [4]),
    (['--tool', 'box/a'], [0, 2, 4]),
    (['--tool', 'box/a', '--reason', 'unknown_topic'], [0, 2]),
    (['--tool', 'ox/a'], []),
    (['--offset', '1'], [1]),
    (['--offset', '0,3-'], [0, 3, 4]),
    (['--offset', '1-2,9'], [1, 2]),
    (['--since', '-1h'], [0, 1, 2, 3, 4]),
    (['--until', '-1h'], []),
    (['--since', '2400-01-01T00:00:00Z'], []),
])
def test_filters(many, words, offsets):
    assert [letter['offset'] for letter in listed(many, *words)] == offsets
    done = run_cli('dead', 'requeue', '--data-dir', many.data_dir, '--dry-run', *words, *([] if words else ['--all']), check=False)
    assert [int(line.split()[0]) for line in done.stdout.splitlines()[:-1] if not line.startswith(' ')] == offsets
    assert 'would be requeued' in done.stdout or not offsets


@pytest.mark.parametrize('words, complaint', [
    (['requeue'], '--all'),
    (['purge'], '--all'),
    (['ls', '--reason', 'unmached'], 'unmatched'),
    (['ls', '--tool', 'box'], 'toolbox/tool'),
    (['ls', '--tool', 'box/a/b'], 'toolbox/tool'),
    (['ls', '--since', '7'], 'time'),
    (['ls', '--until', 'yesterday'], '-10m'),
    (['ls', '--offset', '3-1'], 'offsets'),
    (['ls', '--offset', '1,'], 'offsets'),
    (['show', '1-2'], 'offset'),
])
def test_arguments_that_make_no_sense(many, words, complaint):
    done = run_cli('dead', words[0], '--data-dir', many.data_dir, *words[1:], check=False)
    assert done.returncode == 2 and complaint in done.stderr and not done.stdout


def test_show(many):
    text = run_cli('dead', 'show', '4', '--data-dir', many.data_dir).stdout
    assert 'not_json' in text and ROOT + '/box/a/' + RESULT in text and text.rstrip().endswith('{')
    assert run_cli('dead', 'show', '4', '--raw', '--data-dir', many.data_dir).stdout == '{'
    assert dead(many, 'show', '4')[1][0]['topic'] == ROOT + '/box/a/' + RESULT
    done = run_cli('dead', 'show', '99', '--data-dir', many.data_dir, check=False)
    assert done.returncode == 1 and '99' in done.stderr


def test_nothing_is_changed_where_nothing_matches(many):
    before = many.audit()
    assert dead(many, 'purge', '--reason', 'late')[1][0]['purged'] == 0
    status, rows, stderr = dead(many, 'requeue', '--offset', '77', check=False)
    assert status == 1 and rows[0]['matched'] == 0 and 'none of these' in stderr
    assert many.audit() == before
    done = run_cli('dead', 'ls', '--data-dir', many.data_dir.parent / 'nowhere', check=False)
    assert done.returncode == 2


def test_by_http(spindle):
    server = spindle(settings=SETTINGS).start()
    publish(server, [('/'.join((ROOT, 'box', tool, 'Nonsense')), b'x') for tool in ('a', 'b', 'a')])
    server.wait_settled(3)
    assert '/box/a/Nonsense (1 byte)\n' in run_cli('dead', 'ls', '--data-dir', server.data_dir).stdout
    status, page = get(server, API + '?tool=box/a&limit=1')
    assert status == 200 and [letter['offset'] for letter in page['dead_letters']] == [0] and page['next'] == 1
    status, page = get(server, API + '?tool=box/a&from=1')
    assert [letter['offset'] for letter in page['dead_letters']] == [2] and page['next'] is None
    assert page['dead_letters'][0]['payload_bytes'] == 1 and 'payload' not in page['dead_letters'][0]
    assert get(server, API + '/1')[1]['payload'] == 'x'
    assert get(server, API + '/9')[0] == 404 and get(server, API + '/x')[0] == 404
    assert get(server, API + '?reason=nonsense')[0] == 400 and get(server, API + '?limit=0')[0] == 400
    assert get(server, API + '/requeue')[0] == 405
    assert post(server, 'requeue', {'tool': 'box/a', 'dry_run': True}) == (
        200, {'dry_run': True, 'matched': 2, 'requeued': 0, 'refused': 0, 'more': False, 'end': 3})
    status, done = post(server, 'requeue', {'tool': 'box/a', 'limit': 1})
    assert status == 200 and done['requeued'] == 1 and done['more'] and done['next'] == 1
    status, done = post(server, 'requeue', {'tool': 'box/a', 'from': done['next'], 'end': done['end']})
    assert done['requeued'] == 1 and not done['more']
    server.wait_settled(5)
    assert post(server, 'purge', {'offset': 1})[1]['purged'] == 1
    assert get(server, API + '/1')[1]['state'] == 'purged' and get(server, API + '/0')[1]['state'] == 'requeued'
    assert [letter['state'] for letter in get(server, API + '?all=true')[1]['dead_letters']] == [
        'requeued', 'purged', 'requeued', 'open', 'open'] == [letter['state'] for letter in listed(server, '--all')]
    assert [letter['state'] for letter in get(server, API + '?all=true&from=1&limit=1')[1]['dead_letters']] == ['purged']
    assert get(server, API + '?all=false') == get(server, API)
    assert [letter['attempts'] for letter in get(server, API)[1]['dead_letters']] == [2, 2]
    assert post(server, 'purge', {'all': True})[1]['purged'] == 2
    assert_open(server, 0)


def test_by_http_what_is_refused(spindle):
    server = spindle(settings={'http.changes': 'loopback'}).start()
    host = '127.0.0.1:%d' % server.http_port
    for body in ({}, {'reason': 'x'}, {'reason': 1}, {'all': 1}, {'tool': ''}, {'limit': 0}, {'nonsense': 1}, {'offset': -1}, []):
        status, page = post(server, 'requeue', body)
        assert status == 400 and page['error'], body
    for raw in (b'', b'{', b'\xff', b'{"all":true,"all":true}'):
        assert post(server, 'purge', None, raw=raw)[0] == 400
    everything = {'all': True}
    assert post(server, 'purge', everything, {'Content-Type': 'text/plain'})[0] == 415
    assert post(server, 'purge', everything, {'Origin': 'http://evil.example'})[0] == 403
    assert post(server, 'purge', everything, {'Origin': 'null'})[0] == 403
    assert post(server, 'purge', everything, {'Origin': 'http://evil.example', 'Host': 'evil.example'})[0] == 403
    assert post(server, 'purge', everything, {'Origin': 'http://' + host})[0] == 200
    assert post(server, 'purge', None, raw=b' ' * 100000)[0] == 413
    assert post(server, 'nonsense', everything)[0] in (404, 405)
    closed = spindle(settings={'http.changes': 'none'}).start()
    publish(closed, [(Hole().topic('Nonsense'), b'x')])
    closed.wait_settled(1)
    assert post(closed, 'purge', everything)[0] == 403
    status, _, stderr = dead(closed, 'purge', '--all', check=False)
    assert status == 1 and 'http.changes' in stderr
    assert_open(closed, 1)
    bus_only = spindle(settings={'drilling.enabled': 'false'}).start()
    assert post(bus_only, 'requeue', everything)[0] == 409


def request(server, method, path, content_type=None):
    """(status, header Allow, error)"""
    headers = {'Content-Type': content_type} if content_type else {}
    asked = urllib.request.Request('http://127.0.0.1:%d%s' % (server.http_port, path), method=method, headers=headers,
                                   data=b'{}' if method == 'POST' else None)
    try:
        with urllib.request.urlopen(asked, timeout=20) as response:
            return response.status, None, None
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers.get('Allow'), json.loads(refusal.read())['error']


def test_by_http_what_is_asked_wrongly_is_explained(spindle):
    server = spindle().start()
    for path in ('/requeue', '/purge'):
        for method in ('GET', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'):
            assert request(server, method, API + path) == (405, 'POST', 'only POST is answered here')
    for path in ('', '/0'):
        for method in ('POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'):
            assert request(server, method, API + path) == (405, 'GET, HEAD', 'only GET and HEAD are answered here')
    assert request(server, 'POST', API + '/purge', 'text/plain')[0] == 415
    assert request(server, 'GET', API + '?limti=3') == (
        400, None, 'unknown parameter `limti`; there are reason, tool, since, until, offset, all, from, limit')
    assert request(server, 'GET', API + '/0?all=true') == (400, None, 'unknown parameter `all`; there are none here')
    assert request(server, 'POST', API + '/purge?all=true', 'application/json')[2] == 'unknown parameter `all`; there are none here'
    assert request(server, 'GET', API + '?all=yes')[2] == 'all: expected true or false'
    for path in ('/nonsense', API + '/0/1', API + 's'):
        status, _, error = request(server, 'GET', path)
        assert status == 404 and all(known in error for known in ('/metrics', API, API + '/requeue', API + '/purge', API + '/{offset}'))
    assert request(server, 'POST', API + '/0/1')[0] == request(server, 'DELETE', '/nonsense')[0] == 404
    for body, error in (({'reason': 5}, 'reason: expected a text'), ({'tool': True}, 'tool: expected a text'),
                        ({'offset': -1}, 'offset: expected a whole number from 0, or a text such as "3,8-12"'),
                        ({'since': [1]}, 'since: expected a text such as "-10m" or "2026-11-21T10:34:43Z", or nanoseconds since 1970')):
        assert post(server, 'purge', body)[1]['error'] == error


def test_a_file_that_a_kill_left_behind_misleads_nobody(spindle):
    server = spindle().start()
    publish(server, [(Hole().topic('Nonsense'), b'x')])
    server.wait_settled(1)
    server.kill()
    assert json.loads((server.data_dir / 'server.json').read_text())['http_port'] == server.http_port
    assert dead(server, 'purge', '--all')[1][0]['purged'] == 1
    assert_open(server, 0)


COUNT = 3000


def assert_each_once(server):
    """Every message was put back exactly once: of each, the second life and no third."""
    lives = {}
    for record in server.journal('ingest'):
        lives.setdefault(record['payload'], []).append(record.get('requeued', {}).get('attempts', 1))
    assert len(lives) == COUNT
    assert all(sorted(numbers) == [1, 2] for numbers in lives.values())


def nonsense(server):
    publish(server, [('/'.join((ROOT, 'box', 'a', 'Nonsense')), b'%d' % number) for number in range(COUNT)])
    server.wait_settled(COUNT)


def requeue_again_and_again(server, deadline_s=30):
    """Puts back what is still in its first life, until nothing is."""
    end = time.monotonic() + deadline_s
    while any(letter['attempts'] == 1 for letter in listed(server)):
        dead(server, 'requeue', '--offset', '0-%d' % (COUNT - 1), check=False)
        assert time.monotonic() < end


@pytest.mark.parametrize('trial', range(3))
def test_the_server_is_killed_while_it_puts_many_back(spindle, trial):
    server = spindle().start()
    nonsense(server)
    command = subprocess.Popen([BINARY, 'dead', 'requeue', '--all', '--data-dir', server.data_dir], stderr=subprocess.PIPE)
    wait_until(lambda: server.audit()['ingest']['accepted'] > COUNT + 300 * trial, lambda: 'some were put back')
    server.kill()
    command.communicate(timeout=60)
    server.start()
    server.wait_settled()
    requeue_again_and_again(server)
    server.wait_settled(2 * COUNT)
    server.stop()
    assert_each_once(server)


@pytest.mark.parametrize('trial', range(3))
def test_the_command_is_killed_while_it_puts_many_back(spindle, trial):
    server = spindle().start()
    nonsense(server)
    server.stop()
    command = subprocess.Popen([BINARY, 'dead', 'requeue', '--all', '--data-dir', server.data_dir], stdout=subprocess.DEVNULL)
    wait_until(lambda: server.audit()['ingest']['accepted'] > COUNT + 300 * trial, lambda: 'some were put back')
    command.kill()
    command.wait(60)
    if trial == 1:
        requeue_again_and_again(server)
    server.start()
    server.wait_settled()
    requeue_again_and_again(server)
    server.wait_settled(2 * COUNT)
    server.stop()
    assert_each_once(server)
