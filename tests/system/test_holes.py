"""The main job: the three messages of a hole in, both result messages out, whatever the messages look like."""
import json
import random

import pytest

from holes import ANSWERS, DEPTHS, HEADS, KEYPOINTS, RESULT, ROOT, TRACE, Hole, answer, negative_curve, one_step_curve, stack_curve
from client import V5
from spindle import wait_until

# Short waits for tests that need them to pass; long ones for tests in which nothing may run out.
PATIENT = {'drilling.estimator': 'gradient', 'pipeline.grace_s': 0.2, 'mqtt.listener.time_window': 60, 'drilling.algo_version': '0.2.6'}
HASTY = {**PATIENT, 'mqtt.listener.time_window': 0.5}
TOO_FEW_STEPS = 'Not enough steps to estimate depth'


class Bench:
    """A running server with one publisher, and one subscriber to all answers."""

    def __init__(self, server, connect):
        self.server = server
        self.publisher = connect(server)
        self.subscriber = connect(server)
        self.subscriber.subscribe(*ANSWERS)
        self.accepted = 0

    def send(self, *messages):
        self.publisher.publish_all(messages)
        self.accepted += len(messages)

    def settle(self):
        """Waits until everything that was sent has its outcome; returns (answers that came, as (topic, payload), metrics)."""
        metrics = self.server.wait_settled(self.accepted)
        return [(m.topic, m.payload) for m in self.subscriber.take_rest()], metrics

    def answers_of(self, *holes):
        """Both answers of each hole, parsed: [(key points message, depths message)]; checks that nothing else came."""
        answers, _ = self.settle()
        by_topic = {}
        for topic, payload in answers:
            by_topic.setdefault(topic, []).append(payload)
        found = []
        for hole in holes:
            pair = []
            for kind in (KEYPOINTS, DEPTHS):
                payload = by_topic[hole.topic(kind)].pop(0)
                parsed = json.loads(payload)
                assert json.dumps(parsed).encode() == payload, 'not as Python writes it: %r' % payload
                pair.append(parsed)
            found.append(tuple(pair))
        assert not any(by_topic.values()), 'unexpected answers: %s' % by_topic
        return found

    def dead(self):
        """Dead letters as (reason, topic)."""
        return sorted((letter['reason'], letter['topic']) for letter in self.server.dead_letters())


@pytest.fixture
def bench(spindle, connect):
    def make(settings=None, **options):
        return Bench(spindle(settings=settings or PATIENT, **options).start(), connect)
    return make


def check_estimate(hole, pair, head_id='same', entry_mm=5.0, transition_mm=12.0, exit_mm=20.0):
    """Both messages of an estimated hole: their bytes, their numbers against the truth and each other."""
    keypoints, depths = pair
    head = hole.head_id if head_id == 'same' else head_id
    values = keypoints['Value']
    assert json.dumps(keypoints).encode() == answer(hole, values, head, '0.2.6')
    assert json.dumps(depths).encode() == answer(hole, [values[1] - values[0], values[2] - values[1]], head, '0.2.6')
    for value, truth in zip(values, (entry_mm, transition_mm, exit_mm)):
        assert abs(value - truth) < 2.0, values


def check_error(hole, pair, text, head_id='same'):
    head = hole.head_id if head_id == 'same' else head_id
    keypoints, depths = pair
    for parsed, prefix in ((keypoints, 'Error in keypoint estimation: '), (depths, 'Error in depth estimation: ')):
        assert json.dumps(parsed).encode() == answer(hole, parsed['Value'], head, error=True)
        assert parsed['Value'].startswith(prefix) and text in parsed['Value'], parsed


# ---- holes as they should be ----

def test_one_hole(bench):
    b = bench()
    hole = Hole()
    b.send(*hole.messages())
    [pair] = b.answers_of(hole)
    check_estimate(hole, pair)
    metrics = b.server.metrics()
    assert metrics.streams()['ingest'] == {'accepted': 3, 'completed': 3, 'duplicates': 0, 'dead_lettered': 0, 'pending': 0}
    for kind in ('result', 'trace', 'heads'):
        assert metrics.get_sum('drilling_messages_received_total', message_type=kind) == 1
    assert metrics.get_sum('drilling_processing_duration_seconds_count') == 1
    assert [r['topic'] for r in b.server.journal('results')] == [hole.topic(KEYPOINTS), hole.topic(DEPTHS)]


def test_every_hole_of_a_shuffled_set_is_answered(bench):
    """Tools drill at the same time, and their messages arrive in any order."""
    b = bench()
    holes = [Hole(box='box%d' % (i % 3), tool='tool%d' % (i % 20), curve=stack_curve(entry_mm=4 + i % 3, transition_mm=11 + i % 2))
             for i in range(100)]
    messages = [message for hole in holes for message in hole.messages()]
    random.Random(7).shuffle(messages)
    b.send(*messages)
    answers, metrics = b.settle()
    assert len(answers) == 200
    by_hole = {}
    for topic, payload in answers:
        parsed = json.loads(payload)
        by_hole.setdefault((topic.rsplit('/', 1)[0], parsed['SourceTimestamp']), {})[topic.rsplit('/', 1)[1]] = parsed
    for hole in holes:
        pair = by_hole[ROOT + '/' + hole.key, hole.stamp]
        curve = hole.curve
        truth = [-curve['position'][next(i for i, t in enumerate(curve['torque']) if t > at)] for at in (0, 2)]
        check_estimate(hole, (pair[KEYPOINTS], pair[DEPTHS]), entry_mm=truth[0], transition_mm=truth[1])
    assert metrics.streams()['ingest']['completed'] == 300


def test_holes_of_one_tool_are_answered_in_order(bench):
    b = bench()
    holes = [Hole(tool='one') for _ in range(50)]
    for hole in holes:
        b.send(*hole.messages())
    answers, _ = b.settle()
    stamps = [json.loads(payload)['SourceTimestamp'] for topic, payload in answers if topic.endswith(KEYPOINTS)]
    assert stamps == [hole.stamp for hole in holes]


VARIATIONS = {
    'before 2025-06, without suffix': dict(suffix=''),
    'numbers as identifiers': dict(result_id=440, machine_id=23120040),
    'trace names the id as text, result as number': dict(result_id=441, trace_result_id='441'),
    'messages as an array': dict(messages_as_array=True),
    'a stamp with fraction and offset': dict(stamp='2026-03-01T10:20:30.125+02:00'),
    'names beyond ASCII': dict(machine_id='Bohrger\u00e4t \u2116 7 \U0001f529', head_id='t\u00eate "1"\\2'),
    'a tool with blanks': dict(tool='E0025 C639-A4HL LG'),
    'another box': dict(box='toolbox-b'),
    'identifiers beyond 32 bits': dict(result_id='9007199254740993'),
}


@pytest.mark.parametrize('fields', VARIATIONS.values(), ids=list(VARIATIONS))
def test_variations_of_the_envelope(bench, fields):
    b = bench()
    hole = Hole(**fields)
    b.send(*hole.messages())
    check_estimate(hole, b.answers_of(hole)[0])


def test_any_way_of_writing_json(bench):
    b = bench()
    styles = [dict(indent=4), dict(separators=(',', ':')), dict(ensure_ascii=False), dict(sort_keys=True)]
    holes = [Hole(machine_id='\u00e9') for _ in styles]
    for hole, style in zip(holes, styles):
        b.send(*hole.messages(**style))
    for hole, pair in zip(holes, b.answers_of(*holes)):
        check_estimate(hole, pair)


def test_steps_as_floats(bench):
    b = bench()
    hole = Hole()
    hole.curve['step'] = [float(s) for s in hole.curve['step']]
    b.send(*hole.messages())
    check_estimate(hole, b.answers_of(hole)[0])


def test_qos_0_is_answered_too(bench):
    b = bench()
    hole = Hole()
    for topic, payload in hole.messages():
        b.publisher.publish(topic, payload, qos=0)
    b.accepted += 3
    check_estimate(hole, b.answers_of(hole)[0])


# ---- heads ----

@pytest.mark.parametrize('head_id, published', [(None, None), ('', None), ('  ', None), (' E1 ', 'E1'), (41, '41'), (['E2', 'E3'], 'E2'),
                                                ([], None)])
def test_head_ids(bench, head_id, published):
    b = bench()
    hole = Hole(head_id=head_id)
    b.send(*hole.messages())
    check_estimate(hole, b.answers_of(hole)[0], head_id=published)


def test_a_hole_without_heads_is_answered_after_the_grace(bench):
    b = bench()
    hole = Hole()
    b.send(*hole.messages((RESULT, TRACE)))
    check_estimate(hole, b.answers_of(hole)[0], head_id=None)


def test_a_hole_waits_for_its_heads_during_the_grace(bench):
    b = bench({**PATIENT, 'pipeline.grace_s': 30})
    hole = Hole()
    b.send(*hole.messages((TRACE, RESULT)))
    wait_until(lambda: b.server.metrics().streams()['ingest']['accepted'] == 2, 'both accepted')
    assert b.subscriber.take_rest() == []
    b.send(hole.message(HEADS))
    check_estimate(hole, b.answers_of(hole)[0])


def test_heads_after_the_grace_are_late_and_belong_to_no_other_hole(bench):
    b = bench()
    first, second = Hole(tool='same'), Hole(tool='same', head_id='another head')
    b.send(*first.messages((RESULT, TRACE)))
    check_estimate(first, b.answers_of(first)[0], head_id=None)
    b.send(first.message(HEADS))
    b.send(*second.messages((RESULT, TRACE)))
    check_estimate(second, b.answers_of(second)[0], head_id=None)
    assert b.dead() == [('late', first.topic(HEADS))]


# ---- duplicates ----

@pytest.mark.parametrize('policy', ['ignore', 'replace', 'error'])
@pytest.mark.parametrize('when', ['open', 'answered'])
def test_a_repeat_is_answered_once(bench, policy, when):
    b = bench({**PATIENT, 'mqtt.listener.duplicate_handling': policy, 'pipeline.grace_s': 0.2 if when == 'answered' else 30})
    hole = Hole()
    result, trace, heads = hole.messages()
    if when == 'answered':
        b.send(result, trace, heads)
        b.server.wait_settled(b.accepted)
        b.send(result, trace, heads)
        repeats = ['result', 'trace', 'heads']
    else:
        b.send(result, result, trace, trace, heads)
        repeats = ['result', 'trace']
    check_estimate(hole, b.answers_of(hole)[0])
    shown = policy == 'error'
    assert b.server.metrics().streams()['ingest'] == {
        'accepted': 3 + len(repeats), 'completed': 3, 'duplicates': 0 if shown else len(repeats),
        'dead_lettered': len(repeats) if shown else 0, 'pending': 0}
    assert b.dead() == (sorted(('duplicate', hole.topic({'result': RESULT, 'trace': TRACE, 'heads': HEADS}[kind])) for kind in repeats)
                        if shown else [])


@pytest.mark.parametrize('policy, machine_id', [('ignore', 'first'), ('replace', 'second'), ('error', 'first')])
def test_a_second_message_with_other_content(bench, policy, machine_id):
    """While its hole is open: dropped, taken instead of the first, or made a dead letter."""
    b = bench({**PATIENT, 'mqtt.listener.duplicate_handling': policy, 'pipeline.grace_s': 30})
    hole = Hole(machine_id='first')
    b.send(hole.message(RESULT))
    hole.machine_id = 'second'
    b.send(hole.message(RESULT), hole.message(TRACE), hole.message(HEADS))
    hole.machine_id = machine_id
    check_estimate(hole, b.answers_of(hole)[0])
    terms = b.server.metrics().streams()['ingest']
    assert terms['completed'] == 3
    if policy == 'error':
        assert b.dead() == [('duplicate', hole.topic(RESULT))]
    else:
        assert terms['duplicates'] == 1


# ---- what does not belong together ----

MISMATCH = 'ResultId 5 of the result is not the StepResultId 6 of the trace'


def check_mismatch(b, hole, head_id='same'):
    check_error(hole, b.answers_of(hole)[0], MISMATCH, head_id=head_id)
    metrics = b.server.metrics()
    assert metrics.get_sum('drilling_cross_check_mismatches_total', field='result_id') == 1
    assert metrics.get_sum('drilling_holes_total', outcome='error') == 1
    assert b.dead() == []


@pytest.mark.parametrize('correlation', ['exact', 'time_window'])
def test_identifiers_that_disagree_are_answered_with_an_error(bench, correlation):
    b = bench({**HASTY, 'drilling.correlation': correlation})
    hole = Hole(result_id='5', trace_result_id='6', cycle_counter=5)
    b.send(*hole.messages())
    check_mismatch(b, hole)


@pytest.mark.parametrize('policy', ['ignore', 'replace', 'error'])
def test_identifiers_that_disagree_are_answered_once_across_a_restart(bench, connect, policy):
    """What was waiting is answered after the restart; what was answered is known by both numbers after the next."""
    b = bench({**PATIENT, 'mqtt.listener.duplicate_handling': policy})
    hole = Hole(result_id='5', trace_result_id='6')
    b.send(*hole.messages((RESULT, TRACE)))
    b.server.stop()
    b.server.settings['mqtt.listener.time_window'] = 0.5
    b.server.start()
    b.server.wait_settled(2)
    assert [json.loads(record['payload'])['Error'] for record in b.server.journal('results')] == [True, True]
    b.server.stop()
    b.server.start()
    again = Bench(b.server, connect)
    again.accepted = 2
    again.send(*hole.messages((RESULT, TRACE)))
    answers, metrics = again.settle()
    assert answers == []
    terms = metrics.streams()['ingest']
    assert terms['completed'] == 2
    assert terms['dead_lettered' if policy == 'error' else 'duplicates'] == 2


def restarted(b, connect):
    b.server.stop()
    b.server.start()
    again = Bench(b.server, connect)
    again.accepted = b.accepted
    return again


def test_heads_without_an_id_are_known_as_repeats_after_a_restart(bench, connect):
    """The answer does not show that they were there."""
    b = bench()
    hole, without = Hole(head_id=None), Hole()
    b.send(*hole.messages(), *without.messages((RESULT, TRACE)))
    b.settle()
    again = restarted(b, connect)
    again.send(hole.message(HEADS))
    answers, metrics = again.settle()
    assert answers == [] and metrics.streams()['ingest']['duplicates'] == 1
    again.send(without.message(HEADS))
    again.settle()
    assert [letter['reason'] for letter in again.server.dead_letters()] == ['late']


WITHHOLDING = [({'mqtt.depth_validation.negative_depth_behavior': 'skip'}, negative_curve()),
               ({'drilling.compatibility': 'silent'}, stack_curve(feed_mm=8.0))]


def check_withheld(server, *holes):
    """The stream `results` holds both answers of each hole and nothing else, all of them withheld."""
    records = server.journal('results')
    assert all(record['withheld'] is True for record in records)
    assert sorted(record['topic'] for record in records) == sorted(hole.topic(kind) for hole in holes for kind in (KEYPOINTS, DEPTHS))
    assert {json.loads(record['payload'])['SourceTimestamp'] for record in records} == {hole.stamp for hole in holes}


@pytest.mark.parametrize('settings, curve', WITHHOLDING, ids=['skip', 'silent'])
def test_holes_whose_answer_is_withheld_are_known_across_kills(bench, connect, settings, curve):
    """Whole or in parts, before and after a kill, and also when their answer would be published by now."""
    b = bench({**HASTY, **settings})
    hole, without = Hole(curve=curve), Hole(curve=curve)
    b.send(*hole.messages(), *without.messages((RESULT, TRACE)))
    b.settle()
    b.send(*hole.messages())
    answers, metrics = b.settle()
    terms = {'accepted': 8, 'completed': 5, 'duplicates': 3, 'dead_lettered': 0, 'pending': 0}
    assert answers == [] and metrics.streams()['ingest'] == terms
    check_withheld(b.server, hole, without)
    for life in range(3):
        b.server.kill()
        if life == 2:
            for name in settings:
                del b.server.settings[name]
        b.server.start()
        again = Bench(b.server, connect)
        again.accepted = terms['accepted']
        for messages in (hole.messages(), [hole.message(TRACE)], [hole.message(HEADS)], without.messages((TRACE, RESULT)),
                         [without.message(HEADS)]):
            again.send(*messages)
            answers, metrics = again.settle()
            assert answers == []
        terms = {**terms, 'accepted': terms['accepted'] + 8, 'duplicates': terms['duplicates'] + 7, 'dead_lettered': life + 1}
        assert metrics.streams()['ingest'] == terms
        assert again.dead() == [('late', without.topic(HEADS))] * (life + 1)
        check_withheld(b.server, hole, without)
        assert metrics.get_sum('drilling_holes_total') == 0
        assert all(line['holds'] for line in b.server.audit().values())


def test_a_hole_with_a_broken_message_is_known_after_a_kill_though_its_answer_was_withheld(bench, connect):
    b = bench({**HASTY, 'drilling.compatibility': 'silent'})
    hole = Hole()
    topic, payload = hole.message(TRACE)
    b.send(hole.message(RESULT), (topic, payload[:len(payload) // 2]), hole.message(HEADS))
    answers, _ = b.settle()
    assert answers == []
    check_withheld(b.server, hole)
    b.server.kill()
    b.server.start()
    again = Bench(b.server, connect)
    again.accepted = b.accepted
    again.send(hole.message(RESULT), hole.message(HEADS))
    answers, metrics = again.settle()
    assert answers == [] and metrics.streams()['ingest']['duplicates'] == 2
    check_withheld(b.server, hole)


def test_of_three_sets_with_one_stamp_those_that_agree_are_joined(bench):
    b = bench(HASTY)
    stamp = '2026-01-01T00:00:00Z'
    whole = Hole(tool='same', stamp=stamp, result_id='4')
    odd = Hole(tool='same', stamp=stamp, result_id='5', trace_result_id='6')
    b.send(odd.message(TRACE), whole.message(RESULT), odd.message(RESULT), whole.message(TRACE))
    answers, metrics = b.settle()
    keypoints = {json.loads(p)['ResultId']: json.loads(p) for t, p in answers if t.endswith(KEYPOINTS)}
    assert len(answers) == 4 and sorted(keypoints) == ['4', '5']
    assert 'Error' not in keypoints['4'] and MISMATCH in keypoints['5']['Value']
    assert metrics.streams()['ingest']['completed'] == 4


def test_a_hole_is_not_overtaken_by_the_next_of_its_tool(bench):
    """The first has no heads and is waited for; the next is complete at once; another tool does not wait."""
    b = bench({**PATIENT, 'pipeline.grace_s': 1})
    first, second, third, other = Hole(tool='one'), Hole(tool='one'), Hole(tool='one'), Hole(tool='two')
    b.send(*first.messages((RESULT, TRACE)), *second.messages(), *third.messages((HEADS, TRACE, RESULT)), *other.messages())
    answers, _ = b.settle()
    stamps = [json.loads(payload)['SourceTimestamp'] for topic, payload in answers if topic.endswith(KEYPOINTS)]
    assert stamps == [other.stamp, first.stamp, second.stamp, third.stamp]


def test_what_can_be_counted_is_shown_from_the_start(bench):
    metrics = bench().server.metrics()
    for outcome in ('estimated', 'too_few_steps', 'error', 'skipped', 'unpublished'):
        assert metrics['drilling_holes_total', (('outcome', outcome),)] == 0
    queues = {name: {dict(labels)['queue_name'] for (metric, labels) in metrics if metric == name}
              for name in ('drilling_queue_depth', 'drilling_queue_capacity')}
    assert queues['drilling_queue_depth'] == queues['drilling_queue_capacity'] == {'ingest', 'lanes', 'waiting'}


def test_a_tool_whose_name_leaves_no_room_for_an_answer(bench):
    b = bench()
    longest = 65535 - len(ROOT) - 3 - len('box') - len(DEPTHS)
    fits, too_long = Hole(box='box', tool='t' * longest), Hole(box='box', tool='t' * (longest + 1))
    b.send(*fits.messages(), *too_long.messages())
    check_estimate(fits, b.answers_of(fits)[0])
    assert [reason for reason, _ in b.dead()] == ['too_large'] * 3


def test_a_head_that_counts_otherwise_is_joined_and_counted(bench):
    b = bench()
    hole = Hole(result_id='7', cycle_counter=9)
    b.send(*hole.messages())
    check_estimate(hole, b.answers_of(hole)[0])
    assert b.server.metrics().get_sum('drilling_cross_check_mismatches_total', field='life_time_cycle_counter') == 1


def test_two_holes_with_one_stamp_are_told_apart_by_their_ids(bench):
    b = bench()
    one = Hole(tool='same', stamp='2026-01-01T00:00:00Z', result_id='100', head_id='H0')
    two = Hole(tool='same', stamp='2026-01-01T00:00:00Z', result_id='101', head_id='H1', curve=stack_curve(entry_mm=7))
    messages = [two.message(HEADS), one.message(RESULT), two.message(RESULT), two.message(TRACE), one.message(TRACE), one.message(HEADS)]
    b.send(*messages)
    answers, _ = b.settle()
    keypoints = {json.loads(p)['ResultId']: json.loads(p)['Value'] for t, p in answers if t.endswith(KEYPOINTS)}
    assert sorted(keypoints) == ['100', '101'] and len(answers) == 4
    assert keypoints['101'][0] > keypoints['100'][0] + 0.5
    assert {json.loads(p)['ResultId']: json.loads(p)['HeadId'] for _, p in answers} == {'100': 'H0', '101': 'H1'}


@pytest.mark.parametrize('kinds', [(RESULT,), (TRACE,), (HEADS,), (RESULT, HEADS), (TRACE, HEADS)], ids=lambda k: '+'.join(k))
def test_what_stays_alone_becomes_a_dead_letter(bench, kinds):
    b = bench(HASTY)
    lonely, whole = Hole(tool='same'), Hole(tool='same')
    b.send(*lonely.messages(kinds))
    b.send(*whole.messages())
    check_estimate(whole, b.answers_of(whole)[0])
    assert b.dead() == sorted(('unmatched', lonely.topic(kind)) for kind in kinds)


def test_stamps_of_other_tools_do_not_match(bench):
    b = bench(HASTY)
    one, other = Hole(), Hole()
    other.stamp, other.result_id = one.stamp, one.result_id
    b.send(one.message(RESULT), other.message(TRACE))
    answers, _ = b.settle()
    assert answers == []
    assert [reason for reason, _ in b.dead()] == ['unmatched', 'unmatched']


# ---- malformed input: one dead letter each, nothing else changes ----

def mangle(hole, kind, change):
    """The message with `change` applied to its parsed form."""
    topic, payload = hole.message(kind)
    parsed = json.loads(payload)
    parsed = change(parsed) or parsed
    return topic, json.dumps(parsed).encode()


def set_value(path, value):
    """Replaces the Value of every payload key that contains `path`."""
    def change(parsed):
        for key, entry in parsed['Messages']['Payload'].items():
            if path in key:
                entry['Value'] = value
    return change


def drop_stamps(parsed):
    for entry in parsed['Messages']['Payload'].values():
        del entry['SourceTimestamp']


# Without a readable stamp: they belong to no hole. name -> (kind, payload from a hole, reasons)
UNREADABLE = {
    'cut JSON': (TRACE, lambda h: h.message(TRACE)[1][:-100], {'not_json'}),
    'empty': (RESULT, lambda h: b'', {'not_json'}),
    'zeros': (RESULT, lambda h: bytes(100), {'not_json'}),
    'text': (RESULT, lambda h: b'hello', {'not_json'}),
    'JSON and more behind': (RESULT, lambda h: h.message(RESULT)[1] + b'{}', {'not_json'}),
    'not UTF-8': (RESULT, lambda h: h.message(RESULT)[1].replace(b'"OK"', b'"\xff\xfe"'), {'not_utf8', 'not_json'}),
    'UTF-16': (RESULT, lambda h: h.message(RESULT)[1].decode().encode('utf-16'), {'not_utf8', 'not_json'}),
    'a number': (RESULT, lambda h: b'42', {'bad_structure'}),
    'null': (TRACE, lambda h: b'null', {'bad_structure'}),
    'an array': (TRACE, lambda h: b'[]', {'bad_structure'}),
    'an empty object': (HEADS, lambda h: b'{}', {'bad_structure'}),
    'Messages is text': (RESULT, lambda h: b'{"Messages": "x"}', {'bad_structure'}),
    'Messages is an empty array': (RESULT, lambda h: b'{"Messages": []}', {'bad_structure'}),
    'Payload is missing': (RESULT, lambda h: b'{"Messages": {}}', {'bad_structure'}),
    'Payload is null': (RESULT, lambda h: b'{"Messages": {"Payload": null}}', {'bad_structure'}),
    'Payload is empty': (RESULT, lambda h: b'{"Messages": {"Payload": {}}}', {'bad_structure'}),
    'no SourceTimestamp': (RESULT, lambda h: mangle(h, RESULT, drop_stamps)[1], {'bad_structure'}),
    'a stamp that is a number': (TRACE, lambda h: h.message(TRACE)[1].replace(b'"%s"' % h.stamp.encode(), b'17'), {'bad_structure', 'bad_value'}),
    'very deep': (RESULT, lambda h: b'[' * 100000 + b']' * 100000, {'not_json', 'bad_structure'}),
}


@pytest.mark.parametrize('name', UNREADABLE)
def test_unreadable_messages_are_one_dead_letter(bench, name):
    kind, make, reasons = UNREADABLE[name]
    b = bench()
    bad, good = Hole(tool='same'), Hole(tool='same')
    payload = make(bad)
    before = good.messages()
    b.send(before[0], (bad.topic(kind), payload), before[1], before[2])
    check_estimate(good, b.answers_of(good)[0])
    [letter] = b.server.dead_letters()
    assert letter['topic'] == bad.topic(kind) and letter['reason'] in reasons and letter['error']
    assert b.server.metrics().streams()['ingest'] == {'accepted': 4, 'completed': 3, 'duplicates': 0, 'dead_lettered': 1, 'pending': 0}
    assert b.server.metrics().get_sum('spindle_dead_lettered_total', stream='ingest', reason=letter['reason']) == 1


# With a readable stamp: the hole is known and gets its answer, an error. name -> (kind, change)
UNUSABLE = {
    'positions as text': (TRACE, set_value('PositionTrace.StepTraceContent', ['a', 'b'])),
    'torque is null': (TRACE, set_value('IntensityTorqueTrace.StepTraceContent', None)),
    'torque has a null': (TRACE, set_value('IntensityTorqueTrace.StepTraceContent', [None] * 240)),
    'arrays of unequal length': (TRACE, set_value('IntensityTorqueTrace.StepTraceContent', [1.0, 2.0])),
    'a number that is not finite': (TRACE, set_value('PositionTrace.StepTraceContent', [1e400] * 240)),
    'steps with fractions': (TRACE, set_value('StepNumberTrace.StepTraceContent', [1.5] * 240)),
    'step numbers as text': (RESULT, set_value('StepResultValues.StepNumber', 'x')),
    'ResultId is an object': (RESULT, set_value('ResultMetaData.ResultId', {'a': 1})),
    'empty currents of another length': (RESULT, set_value('IntensityTorqueEmpty', [0.1, 0.2, 0.3, 0.4, 0.5])),
}


@pytest.mark.parametrize('name', UNUSABLE)
def test_unusable_messages_are_one_dead_letter_and_an_error(bench, name):
    kind, change = UNUSABLE[name]
    b = bench(HASTY)
    bad, good = Hole(tool='same'), Hole(tool='same')
    message = mangle(bad, kind, change)
    others = [bad.message(k) for k in (RESULT, TRACE, HEADS) if k != kind]
    b.send(message, *others)
    b.send(*good.messages())
    answers, metrics = b.settle()
    mine = [json.loads(p) for t, p in answers if json.loads(p)['SourceTimestamp'] == bad.stamp]
    assert len(mine) == 2 and all(m['Error'] is True for m in mine), mine
    assert len(answers) == 4
    [letter] = b.server.dead_letters()
    assert (letter['topic'], letter['reason']) == (bad.topic(kind), 'bad_value') and letter['error']
    assert metrics.streams()['ingest']['completed'] == 5


@pytest.mark.parametrize('suffix', ['AssetManagement/Head', 'ResultManagement/Traces', 'ResultManagement/trace', 'ResultManagement/Trace/',
                                    'Other', 'ResultManagement/Trace/More'])
def test_unknown_topics_are_dead_letters(bench, suffix):
    b = bench()
    hole = Hole()
    b.send((hole.topic(suffix), hole.message(HEADS)[1]), *hole.messages((RESULT, TRACE)))
    check_estimate(hole, b.answers_of(hole)[0], head_id=None)
    assert b.dead() == [('unknown_topic', hole.topic(suffix))]


def test_other_assets_are_completed_and_ignored(bench):
    b = bench()
    hole = Hole()
    b.send(*[(hole.topic('AssetManagement/' + asset), b'{}') for asset in ('Controllers', 'CuttingTools', 'Servos', 'Tools')])
    b.send(*hole.messages())
    check_estimate(hole, b.answers_of(hole)[0])
    assert b.server.metrics().streams()['ingest']['completed'] == 7
    assert b.dead() == []


def test_a_huge_trace_is_estimated(bench):
    """100,000 samples: more than ten times the longest that was ever recorded."""
    b = bench()
    hole = Hole(curve=stack_curve(feed_mm=24 / 100000))
    b.send(*hole.messages())
    check_estimate(hole, b.answers_of(hole)[0])


# ---- answers that are not estimates ----

def test_too_few_steps(bench):
    b = bench({**PATIENT, 'drilling.estimator': 'production'})
    hole = Hole(curve=one_step_curve())
    b.send(*hole.messages())
    [pair] = b.answers_of(hole)
    check_error(hole, pair, TOO_FEW_STEPS)
    assert pair[0]['Value'] == 'Error in keypoint estimation: ' + TOO_FEW_STEPS


def test_a_curve_that_cannot_be_estimated_is_answered_with_an_error(bench):
    b = bench()
    hole = Hole()
    hole.curve = {name: column[:5] + column[-5:] for name, column in hole.curve.items()}
    b.send(*hole.messages())
    check_error(hole, b.answers_of(hole)[0], '')
    assert b.server.metrics().streams()['ingest']['completed'] == 3


def test_silent_compatibility_swallows_what_the_replaced_system_swallowed(bench):
    b = bench({**PATIENT, 'drilling.compatibility': 'silent'})
    failing, steps, good = Hole(), Hole(curve=one_step_curve()), Hole()
    failing.curve = {name: column[:5] + column[-5:] for name, column in failing.curve.items()}
    for hole in (failing, steps, good):
        b.send(*hole.messages())
    answers, metrics = b.settle()
    stamps = {json.loads(p)['SourceTimestamp'] for _, p in answers}
    assert failing.stamp not in stamps and good.stamp in stamps
    assert metrics.streams()['ingest']['completed'] == 9


@pytest.mark.parametrize('behaviour', ['publish', 'skip', 'warning'])
def test_negative_depths(bench, behaviour):
    b = bench({**PATIENT, 'mqtt.depth_validation.negative_depth_behavior': behaviour})
    negative, positive = Hole(curve=negative_curve()), Hole()
    b.send(*negative.messages())
    b.send(*positive.messages())
    answers, metrics = b.settle()
    mine = {t.rsplit('/', 1)[1]: json.loads(p) for t, p in answers if json.loads(p)['SourceTimestamp'] == negative.stamp}
    if behaviour == 'skip':
        assert mine == {}
    else:
        values = mine[KEYPOINTS]['Value']
        assert values[2] < values[1], 'the curve of this test must give a negative depth'
        warning = 'Negative depth values detected' if behaviour == 'warning' else None
        assert json.dumps(mine[KEYPOINTS]).encode() == answer(negative, values, algo_version='0.2.6', warning=warning)
        depths = [values[1] - values[0], values[2] - values[1]]
        assert json.dumps(mine[DEPTHS]).encode() == answer(negative, depths, algo_version='0.2.6', warning=warning)
    assert len(answers) == (2 if behaviour == 'skip' else 4)
    assert metrics.get_sum('drilling_negative_depths_total') == 1
    assert metrics.streams()['ingest']['completed'] == 6


def test_sequences_of_negative_depths_are_counted(bench):
    b = bench({**PATIENT, 'mqtt.depth_validation.sequential_threshold': 3})
    for i in range(3):
        assert b.server.metrics().get_sum('drilling_negative_depth_sequences_total') == 0
        b.send(*Hole(tool='air', curve=negative_curve()).messages())
        b.server.wait_settled(b.accepted)
    assert b.server.metrics().get_sum('drilling_negative_depth_sequences_total') == 1


# ---- other roots and names ----

def test_root_and_names_follow_the_configuration(bench, connect):
    b = bench({**PATIENT, 'mqtt.listener.root': 'site/a', 'mqtt.listener.heads': 'AssetManagement/Head', 'mqtt.estimation.keypoints': 'kp',
               'mqtt.estimation.depth_estimation': 'depth'})
    b.subscriber.subscribe('site/a/+/+/kp', 'site/a/+/+/depth')
    hole = Hole()
    place = 'site/a/%s/' % hole.key
    b.send(*[(place + suffix, payload) for suffix, (_, payload) in zip((RESULT, TRACE, 'AssetManagement/Head'), hole.messages())])
    answers, _ = b.settle()
    assert [topic for topic, _ in answers] == [place + 'kp', place + 'depth']
    check_estimate(hole, tuple(json.loads(p) for _, p in answers))


def test_drilling_can_be_switched_off(bench):
    b = bench({'drilling.enabled': 'false'})
    hole = Hole()
    b.publisher.publish_all(hole.messages())
    assert b.subscriber.take_rest() == []
    assert sum(terms['accepted'] for terms in b.server.metrics().streams().values()) == 3


def test_answers_carry_a_message_id(bench, connect):
    """A user property by which an MQTT 5 subscriber recognises the rare repeat after a crash; MQTT 3.1.1 has no place for it."""
    run = bench(PATIENT)
    modern = connect(run.server, version=V5)
    modern.subscribe(*ANSWERS)
    holes = [Hole(), Hole()]
    for hole in holes:
        run.send(*hole.messages())
    assert len(run.settle()[0]) == 4
    found = modern.take_rest()
    ids = [dict(message.properties.UserProperty)['message-id'] for message in found]
    assert len(ids) == 4 and len(set(ids)) == 4
    assert sorted(i.rsplit('-', 1)[1] for i in ids) == ['0', '0', '1', '1']
