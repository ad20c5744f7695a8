"""journal replay: the same results again, from the same server or another, at any pace, through kills; and out to a broker that is not ours."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import pytest

from client import V5, Client
from holes import HEADS, KEYPOINTS, RESULT, TRACE, Hole, negative_curve, one_step_curve, stack_curve
from spindle import BINARY, DEADLINE_S, die_with_parent, json_lines, run_cli, wait_until

SETTINGS = {'journal.segment_size': '1MiB', 'drilling.estimator': 'gradient', 'pipeline.grace_s': 1, 'mqtt.listener.time_window': 5}
PATIENT = {**SETTINGS, 'pipeline.grace_s': 6, 'mqtt.listener.time_window': 60}  # an interrupted replay may leave heads out for a while


def target(server):
    return '127.0.0.1:%d' % server.port


def replay(source, *arguments, check=True):
    """(exit status, the JSON object, standard error)"""
    done = run_cli('journal', 'replay', '--data-dir', getattr(source, 'data_dir', source), '--json', *arguments, check=check)
    lines = json_lines(done.stdout)
    return done.returncode, lines[0] if lines else None, done.stderr


def into_pipeline(source, server, *arguments, speed='max', **options):
    return replay(source, '--into', 'pipeline', '--server', target(server), '--speed', speed, *arguments, **options)


def answers(server, prefix=''):
    """{tool: [(topic, payload)]} of the results below a prefix, without it, in order."""
    found = {}
    for record in server.journal('results'):
        topic = record['topic']
        if topic.startswith(prefix) and (prefix or not topic.startswith('replay/')):
            topic = topic[len(prefix):]
            found.setdefault('/'.join(topic.split('/')[:3]), []).append((topic, record['payload']))
    return found


def dead(server, prefix=''):
    """Reason and topic of the dead letters below a prefix, without it."""
    return sorted((letter['reason'], letter['topic'][len(prefix):]) for letter in server.dead_letters()
                  if letter['topic'].startswith(prefix) and (prefix or not letter['topic'].startswith('replay/')))


def properties(record):
    return dict(record['properties'])


def mixed_holes(count=30, without_heads=True):
    """Holes of three tools: of several curves, with repeats, some without heads, and messages that cannot be read; none depends on time."""
    curves = [stack_curve(feed_mm=0.2), stack_curve(entry_mm=3, feed_mm=0.2), one_step_curve(), negative_curve()]
    messages = []
    for i in range(count):
        hole = Hole(box='box', tool='tool%d' % (i % 3), curve=curves[i % len(curves)])
        own = hole.messages()
        if without_heads and i % 7 == 3:
            own.pop()
        if i % 5 == 0:
            own.append(own[0])
        if i % 6 == 1:
            own = [own[1], own[0]] + own[2:]
        messages += own
        if i % 10 == 4:
            messages += [(hole.topic(RESULT), b'{"cut'), (hole.topic('Nonsense'), b'x')]
    return messages


@pytest.fixture
def played(spindle, connect):
    """A server with holes of every fate, all settled."""
    server = spindle(settings=SETTINGS).start()
    messages = mixed_holes()
    connect(server).publish_all(messages)
    server.wait_settled(len(messages))
    server.sent = len(messages)
    return server


def check_same(original, other, prefix=''):
    want = answers(original)
    assert want and answers(other, prefix) == want
    assert dead(other, prefix) == dead(original)


class Replaying:
    """A replay in the background."""

    def __init__(self, source, *arguments):
        command = [BINARY, 'journal', 'replay', '--data-dir', source.data_dir, '--json'] + [str(a) for a in arguments]
        self.state = source.data_dir / 'replay.state'
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        preexec_fn=die_with_parent)

    def end(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=3 * DEADLINE_S)
        lines = json_lines(out)
        return self.process.returncode, lines[0] if lines else None, err


def accepted(server):
    return server.metrics().streams()['ingest']['accepted']


# ---- the same results ----

def test_a_day_again_gives_the_same_results_in_the_same_server_and_in_another(played, spindle, connect):
    other = spindle(settings=SETTINGS).start()
    live, modern = connect(played), connect(played, version=V5)
    live.subscribe('OPCPUBSUB/#')
    modern.subscribe('replay/+/OPCPUBSUB/+/+/' + KEYPOINTS)
    _, report, _ = into_pipeline(played, played, '--id', 'day1')
    assert (report['end'], report['id'], report['messages'], report['next']) == ('complete', 'day1', played.sent, played.sent)
    metrics = played.wait_settled(2 * played.sent)
    check_same(played, played, 'replay/day1/')
    terms = metrics.streams()['ingest']
    assert terms['duplicates'] % 2 == 0 and terms['dead_lettered'] % 2 == 0  # the same fate twice
    # Subscribers of live topics see nothing of it; those of MQTT 5 are told of which replay an answer is.
    assert not live.take_rest()
    results = json_lines(run_cli('journal', 'cat', '-d', played.data_dir, '-s', 'results', '--json').stdout)
    marked = [r for r in results if 'replayed' in properties(r)]
    assert len(marked) * 2 == len(results) and all(properties(r)['replayed'] == 'day1' for r in marked)
    ids = [properties(r)['message-id'] for r in results]
    assert len(set(ids)) == len(ids)
    points = [r for r in marked if r['topic'].endswith(KEYPOINTS)]
    told = {(m.topic, m.payload.decode(), dict(m.properties.UserProperty)['replayed']) for m in modern.take(len(points))}
    assert told == {(r['topic'], r['payload'], 'day1') for r in points}
    # Into another server as they were: not even the message ids differ.
    _, report, _ = replay(played, '--into', 'mqtt://' + target(other), '--speed', 'max')
    assert report['messages'] == played.sent and report['replayed_before'] == played.sent
    other.wait_settled(played.sent)
    check_same(played, other)
    copied = json_lines(run_cli('journal', 'cat', '-d', other.data_dir, '-s', 'results', '--json').stdout)
    assert sorted(properties(r)['message-id'] for r in copied) == sorted(set(ids) - {properties(r)['message-id'] for r in marked})


def test_a_replay_is_remembered_as_finished_after_a_restart(played):
    into_pipeline(played, played, '--id', 'one')
    before = played.wait_settled(2 * played.sent).streams()['ingest']
    played.kill()
    played.start()
    results = len(played.journal('results'))
    # The same id again: repeats of what was replayed, not new holes. (Broken messages are refused each time.)
    into_pipeline(played, played, '--id', 'one')
    after = played.wait_settled(3 * played.sent).streams()['ingest']
    assert len(played.journal('results')) == results
    assert after['duplicates'] > before['duplicates'] and after['pending'] == 0


def test_a_replay_beside_live_messages_of_the_same_holes_never_meets_them(played, connect):
    holes = [Hole(box='box', tool='tool%d' % i, curve=stack_curve(feed_mm=0.2)) for i in range(3)]
    publisher = connect(played)
    publisher.publish_all([hole.message(RESULT) for hole in holes])
    into_pipeline(played, played, '--from', played.sent, '--id', 'half')
    publisher.publish_all([('replay/half/' + hole.topic(TRACE), hole.message(TRACE)[1]) for hole in holes])
    played.wait_settled(played.sent + 9)
    assert sum(len(pair) for pair in answers(played, 'replay/half/').values()) == 6
    unmatched = [letter['topic'] for letter in played.dead_letters() if letter['reason'] == 'unmatched']
    assert sorted(unmatched) == sorted(hole.topic(RESULT) for hole in holes)


def test_at_its_own_pace_late_heads_are_late_again(spindle, connect):
    server, other = (spindle(settings=SETTINGS).start() for _ in range(2))
    publisher = connect(server)
    early, late = Hole(box='b', tool='early'), Hole(box='b', tool='late')
    publisher.publish_all(early.messages() + late.messages([RESULT, TRACE]))
    wait_until(lambda: len(server.journal('results')) == 4, 'both holes answered')
    sent_ns = server.journal('ingest')[-1]['time_ns']
    wait_until(lambda: time.time_ns() > sent_ns + 2500000000, 'heads that are late by far')
    publisher.publish(*late.message(HEADS))
    server.wait_settled(6)
    assert [reason for reason, _ in dead(server)] == ['late']
    _, report, _ = replay(server, '--into', 'mqtt://' + target(other), '--speed', '1')
    other.wait_settled(6)
    check_same(server, other)
    records = server.journal('ingest')
    assert report['seconds'] >= (records[-1]['time_ns'] - records[0]['time_ns']) / 1e9
    # As fast as it goes they come in time: what depends on time is another outcome then.
    into_pipeline(server, server, '--id', 'fast')
    server.wait_settled(12)
    assert not dead(server, 'replay/fast/')


# ---- what is sent ----

def test_what_is_sent_is_what_was_selected(played):
    records = played.journal('ingest')

    def would(*arguments):
        _, report, _ = replay(played, '--into', 'pipeline', '--dry-run', *arguments)
        return report['messages'], report['first'], report['last']

    def expected(keep):
        kept = [r['offset'] for r in records if keep(r)]
        return len(kept), kept[0], kept[-1]
    assert would() == expected(lambda r: True)
    assert would('--from', 10, '--to', 20) == (10, 10, 19)
    assert would('--tool', 'box/tool1') == expected(lambda r: r['topic'].startswith('OPCPUBSUB/box/tool1/'))
    assert would('--topic', 'OPCPUBSUB/+/+/' + HEADS) == expected(lambda r: r['topic'].endswith(HEADS))
    assert would('--topic', 'OPCPUBSUB/+/+/' + HEADS, '--tool', 'box/tool2', '--from', 30) == \
        expected(lambda r: r['offset'] >= 30 and r['topic'] == 'OPCPUBSUB/box/tool2/' + HEADS)
    assert would('--to', '-1d')[0] == 0 and would('--from', '-1d')[0] == len(records)
    assert not (played.data_dir / 'replay.state').exists()


def test_results_go_out_with_their_ids(played, spindle, connect):
    other = spindle(settings=SETTINGS).start()
    subscriber = connect(other, version=V5)
    subscriber.subscribe('copy/#')
    results = json_lines(run_cli('journal', 'cat', '-d', played.data_dir, '-s', 'results', '--json').stdout)
    replay(played, '--stream', 'results', '--into', 'mqtt://' + target(other), '--prefix', 'copy', '--speed', 'max')
    came = [(m.topic, m.payload.decode(), [list(pair) for pair in m.properties.UserProperty]) for m in subscriber.take(len(results))]
    assert came == [('copy/' + r['topic'], r['payload'], r['properties']) for r in results]
    other.wait_settled(stream='bus')


def test_results_that_were_withheld_are_not_sent(spindle, connect):
    server = spindle(settings={**SETTINGS, 'mqtt.depth_validation.negative_depth_behavior': 'skip'}).start()
    holes = [Hole(curve=negative_curve()), Hole(), Hole(curve=negative_curve())]
    connect(server).publish_all([message for hole in holes for message in hole.messages()])
    server.wait_settled(9)
    assert [r for r in server.journal('results') if 'withheld' in r] and len(server.journal('results')) == 6
    other = spindle(settings=SETTINGS).start()
    subscriber = connect(other)
    subscriber.subscribe('copy/#')
    _, report, _ = replay(server, '--stream', 'results', '--into', 'mqtt://' + target(other), '--prefix', 'copy', '--speed', 'max')
    assert (report['end'], report['messages'], report['next']) == ('complete', 2, 6)
    came = subscriber.take(2) + subscriber.take_rest()
    assert [json.loads(m.payload)['SourceTimestamp'] for m in came] == [holes[1].stamp] * 2


def test_arguments_that_cannot_be_meant_are_refused(played):
    for arguments, word in [([], '--into is missing'), (['--into', 'kafka://x'], 'expected `pipeline`'), (['--into', 'mqtt://x'], 'HOST:PORT'),
                            (['--into', 'pipeline', '--stream', 'bus'], 'ingest alone'), (['--into', 'pipeline', '--prefix', 'x'], '--prefix'),
                            (['--into', 'pipeline', '--stream', 'dead-letters'], 'dead requeue'),
                            (['--into', 'pipeline', '--stream', 'outcomes'], 'no stream'), (['--into', 'pipeline', '--speed', '0'], '--speed'),
                            (['--into', 'pipeline', '--id', 'a/b'], '--id'), (['--into', 'pipeline', '--tool', 'box'], 'TOOLBOX/TOOL'),
                            (['--into', 'pipeline', '--topic', 'a/#/b'], '--topic'), (['--into', 'pipeline', '--from', 'x'], '--from'),
                            (['--into', 'mqtt://h:1', '--server', 'h:1'], '--server'), (['--into', 'mqtt://h:1', '--prefix', 'a/+'], '--prefix')]:
        status, report, text = replay(played, *arguments, check=False)
        assert status == 2 and report is None and word in text, (arguments, text)


# ---- interrupted ----

def test_a_server_that_is_not_there_is_told_at_once(played):
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        status, report, text = replay(played, '--into', 'mqtt://127.0.0.1:%d' % unused.getsockname()[1], check=False)
    assert status == 1 and report['end'] == 'failed' and report['next'] == 0 and 'refused' in text


def test_an_interrupted_replay_says_where_it_goes_on(played, spindle):
    other = spindle(settings=PATIENT).start()
    arguments = ['--into', 'mqtt://' + target(other), '--speed', '0.001']
    running = Replaying(played, *arguments)
    wait_until(lambda: accepted(other) > 0, 'the first message')
    status, report, _ = running.end(signal.SIGINT)
    assert status == 1 and report['end'] == 'interrupted' and 0 < report['next'] < played.sent and report['next'] == accepted(other)
    # Another replay is not continued by mistake, and not every file is a state.
    assert 'another replay' in replay(played, *arguments, '--from', 1, '--resume', check=False)[2]
    assert 'is of the replay' in replay(played, *arguments, '--id', 'x', '--resume', check=False)[2]
    (played.folder / 'junk').write_text('junk')
    assert 'no state' in replay(played, *arguments, '--resume', '--state', played.folder / 'junk', check=False)[2]
    _, rest, _ = replay(played, *arguments[:2], '--speed', 'max', '--resume')
    assert rest['resumed'] and rest['from'] == report['next'] and rest['messages'] == played.sent - report['next']
    other.wait_settled(played.sent)
    assert accepted(other) == played.sent  # acknowledged once, sent once
    check_same(played, other)
    # Complete is complete.
    _, again, _ = replay(played, *arguments, '--resume')
    assert again['end'] == 'complete' and again['sent'] == 0 and accepted(other) == played.sent


def test_kills_of_the_replay_and_of_the_server_leave_nothing_out(spindle, connect):
    server, other = (spindle(settings=PATIENT).start() for _ in range(2))
    messages = mixed_holes(300, without_heads=False)
    connect(server).publish_all(messages)
    server.wait_settled(len(messages))
    span_s = (server.journal('ingest')[-1]['time_ns'] - server.journal('ingest')[0]['time_ns']) / 1e9
    arguments = ['--into', 'mqtt://' + target(other), '--speed', '%.3f' % max(span_s / 5, 0.001)]  # five seconds

    def part():
        """A replay that is under way."""
        before = accepted(other)
        running = Replaying(server, *arguments, '--resume')
        wait_until(lambda: accepted(other) > before + len(messages) // 6, 'a part of the messages')
        return running
    for _ in range(2):
        part().end(signal.SIGKILL)
    running = part()
    other.kill()
    other.start()
    status, report, text = running.end()
    assert status == 0 and report['end'] == 'complete' and report['next'] == len(messages), text
    other.wait_settled(len(messages))
    assert answers(other) == answers(server)
    assert set(dead(other)) == set(dead(server))  # what cannot be read is refused as often as it comes


def test_what_retention_took_before_a_resume_is_named(played, tmp_path, spindle, connect):
    other = spindle(settings=SETTINGS).start()
    played.stop()
    played.start()  # a start begins a segment
    connect(played).publish_all(Hole(curve=stack_curve(feed_mm=0.2)).messages())
    played.wait_settled(played.sent + 3)
    played.stop()
    copy = tmp_path / 'copy'
    shutil.copytree(played.data_dir, copy)
    first, second = sorted((copy / 'ingest').glob('0*.seg'))[:2]
    arguments = ['--into', 'mqtt://' + target(other), '--speed', 'max']
    replay(copy, *arguments, '--to', 5)
    state = (copy / 'replay.state').read_text().replace('until 5', 'until %d' % (played.sent + 3))
    (copy / 'replay.state').write_text(state)
    first.unlink()
    status, report, text = replay(copy, *arguments, '--to', 5, '--resume', check=False)
    assert status == 1 and report['end'] == 'complete' and report['messages'] == 3
    assert 'offsets 5 to %d were removed by retention' % (int(second.stem) - 1) in text
    other.wait_settled()


def test_a_copy_that_cannot_be_written_needs_another_place_for_the_state(played, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(played.data_dir, copy)
    state = tmp_path / 'elsewhere'
    status, _, text = into_pipeline(copy, played, '--state', tmp_path / 'missing' / 'state', check=False)
    assert status == 1 and '--state names another file' in text
    _, report, _ = into_pipeline(copy, played, '--state', state, '--id', 'copied')
    assert report['end'] == 'complete' and state.exists() and not (copy / 'replay.state').exists()
    played.wait_settled(2 * played.sent)
    check_same(played, played, 'replay/copied/')


# ---- a broker that is not ours ----

@pytest.fixture
def mosquitto(tmp_path):
    """The port of a running mosquitto."""
    program = shutil.which('mosquitto') or '/usr/sbin/mosquitto'
    if not pathlib.Path(program).exists():
        pytest.skip('mosquitto is not installed')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    (tmp_path / 'mosquitto.conf').write_text('listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 20\n' % port)
    process = subprocess.Popen([program, '-c', tmp_path / 'mosquitto.conf'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               preexec_fn=die_with_parent)

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(('127.0.0.1', port)) == 0
    try:
        wait_until(listens, 'mosquitto')
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_stream_goes_out_to_another_broker_in_order(played, mosquitto):
    records = played.journal('ingest')
    client = Client(mosquitto)
    try:
        client.subscribe('old/#')
        _, report, _ = replay(played, '--into', 'mqtt://127.0.0.1:%d' % mosquitto, '--prefix', 'old/', '--speed', 'max')
        assert report['messages'] == len(records)
        assert [(m.topic, m.payload) for m in client.take(len(records))] == [('old/' + r['topic'], r['payload']) for r in records]
    finally:
        client.close()
