"""Real curves and messages through the whole program, against key points computed independently. Needs the shared data."""
import csv
import gzip
import io
import json

import pytest

from holes import ANSWERS, DEPTHS, KEYPOINTS, RESULT, TRACE, Hole
from spindle import SANITIZED

TOLERANCE_MM = 1e-6
CHUNK = 40  # holes under way at a time
PREFIX = 'nsu=http://airbus.com/IJT/ADrilling;s=Objects.DeviceSet.tool.'
RESULT_PATH = 'ResultManagement.Results.0.'
TRACE_PATH = RESULT_PATH + 'ResultContent.Trace.StepTraces.'
STEP_PATH = RESULT_PATH + 'ResultContent.StepResults.0.StepResultValues.'


def entry(key, value_text, stamp):
    return '"%s%s": {"Value": %s, "SourceTimestamp": "%s"}' % (PREFIX, key, value_text, stamp)


def payload_of(entries):
    return ('{"Messages": {"Payload": {%s}}}' % ', '.join(entries)).encode()


def curve_messages(path, hole):
    """Result and trace of a stored curve. Its numbers are passed on digit by digit, as they stand in the file."""
    with gzip.open(path, 'rt') as file:
        rows = list(csv.DictReader(file))
    first = {}
    for row in rows:
        first.setdefault(row['step'], row)
    stamp = hole.stamp
    listed = [('StepNumber', 'step'), ('IntensityTorqueEmpty', 'torque_empty_a'), ('IntensityThrustEmpty', 'thrust_empty_a')]
    result = [entry(RESULT_PATH + 'ResultMetaData.SerialNumber', '"0"', stamp),
              entry(RESULT_PATH + 'ResultMetaData.ResultId', '"%s"' % hole.result_id, stamp)]
    for key, column in listed:
        values = ', '.join(row[column] for row in first.values())
        result.append(entry(STEP_PATH + key, values if len(first) == 1 else '[%s]' % values, stamp))
    trace = [entry(TRACE_PATH + 'PositionTrace.StepResultId', '"%s"' % hole.result_id, stamp)]
    for key, column in (('PositionTrace', 'position_mm'), ('IntensityTorqueTrace', 'torque_a'), ('IntensityThrustTrace', 'thrust_a'),
                        ('StepNumberTrace', 'step')):
        trace.append(entry(TRACE_PATH + key + '.StepTraceContent[0].Values', '[%s]' % ', '.join(row[column] for row in rows), stamp))
    return [(hole.topic(RESULT), payload_of(result)), (hole.topic(TRACE), payload_of(trace))]


def first_stamp(payload):
    for value in json.loads(payload)['Messages']['Payload'].values():
        if 'SourceTimestamp' in value:
            return value['SourceTimestamp']
    raise AssertionError('no SourceTimestamp')


def set_messages(folder, hole):
    """Result and trace of a stored set of messages, byte by byte."""
    messages = [(hole.topic(RESULT), (folder / 'ResultManagement.json').read_bytes()), (hole.topic(TRACE), (folder / 'Trace.json').read_bytes())]
    hole.stamp = first_stamp(messages[0][1])
    return messages


@pytest.fixture(scope='module')
def cases(shared_data):
    """[(expected row, hole, messages)] for every row."""
    found = []
    with io.open(shared_data / 'expected_keypoints.jsonl') as file:
        for line in file:
            row = json.loads(line)
            hole = Hole(tool='curve%03d' % len(found))
            folder = shared_data / row['id']
            found.append((row, hole, set_messages(folder, hole) if folder.is_dir() else
                          curve_messages(shared_data / 'curves' / (row['id'] + '.csv.gz'), hole)))
    assert len(found) == 446
    return found[::10] if SANITIZED else found


def estimates(server, connect, cases):
    """Plays all cases; returns {tool: (key points message, depths message)}."""
    publisher, subscriber = connect(server), connect(server)
    subscriber.subscribe(*ANSWERS)
    answers = {}
    for begin in range(0, len(cases), CHUNK):
        chunk = cases[begin:begin + CHUNK]
        publisher.publish_all([message for _, _, messages in chunk for message in messages])
        for message in subscriber.take(2 * len(chunk), deadline_s=60):
            _, _, tool, kind = message.topic.split('/')
            answers.setdefault(tool, {})[kind] = json.loads(message.payload)
    return answers


def close(value, expected):
    return len(value) == len(expected) and all(abs(a - b) <= TOLERANCE_MM for a, b in zip(value, expected))


@pytest.mark.parametrize('estimator', ['gradient', 'gradient30', 'gradient30_by_order', 'segments'])
def test_key_points_of_every_curve(spindle, connect, cases, estimator):
    server = spindle(settings={'drilling.estimator': estimator, 'pipeline.grace_s': 0.05}).start()
    answers = estimates(server, connect, cases)
    wrong = []
    for row, hole, _ in cases:
        expected, keypoints, depths = row[estimator], answers[hole.tool][KEYPOINTS], answers[hole.tool][DEPTHS]
        value = keypoints['Value']
        if expected is None:
            good = keypoints.get('Error') is True and depths.get('Error') is True
        else:
            good = isinstance(value, list) and close(value, expected) and close(depths['Value'], [b - a for a, b in zip(value, value[1:])])
        if not good or keypoints['SourceTimestamp'] != hole.stamp:
            wrong.append((row['id'], expected, value))
    assert not wrong, '%d of %d differ, for example %s' % (len(wrong), len(cases), wrong[:5])


def test_entry_and_transition_of_every_curve(spindle, connect, cases):
    """The composite answers only where both of its parts give a value, with the entry and the transition of the two estimators."""
    server = spindle(settings={'drilling.estimator': 'production', 'pipeline.grace_s': 0.05}).start()
    answers = estimates(server, connect, cases)
    wrong = []
    compared = 0
    for row, hole, _ in cases:
        keypoints = answers[hole.tool][KEYPOINTS]
        value = keypoints['Value']
        if row['entry'] is None or row['transition'] is None:
            good = keypoints.get('Error') is True
        elif keypoints.get('Error') is True:
            good = row['gradient'] is None  # its exit comes from the gradient
        else:
            good = close(value[:2], [row['entry'], row['transition']])
            compared += 1
        if not good:
            wrong.append((row['id'], row['entry'], row['transition'], value))
    assert not wrong, '%d of %d differ, for example %s' % (len(wrong), len(cases), wrong[:5])
    assert compared > len(cases) / 5
