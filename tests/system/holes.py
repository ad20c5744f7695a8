"""Makes the three messages of a drilled hole, in the envelope that real toolboxes send, with a synthetic curve.

A Hole carries everything that the messages say; its fields may be changed before the messages are taken.
"""
import dataclasses
import itertools
import json
import uuid

ROOT = 'OPCPUBSUB'
RESULT, TRACE, HEADS = 'ResultManagement', 'ResultManagement/Trace', 'AssetManagement/Heads'
KEYPOINTS = 'ResultManagement.Results.0.ResultContent.DepthEstimation.KeyPoints'
DEPTHS = 'ResultManagement.Results.0.ResultContent.DepthEstimation.DepthEstimation'
ANSWERS = [ROOT + '/+/+/' + KEYPOINTS, ROOT + '/+/+/' + DEPTHS]

_R = 'ResultManagement.Results.0.'
_S = _R + 'ResultContent.StepResults.0.StepResultValues.'
_T = _R + 'ResultContent.Trace.StepTraces.'
_H = 'AssetManagement.Assets.Heads.0.'

_numbers = itertools.count(1)


def stack_curve(entry_mm=5.0, transition_mm=12.0, exit_mm=20.0, feed_mm=0.1, steps=(1, 2)):
    """Samples of a hole through two layers: torque rises at the entry, rises again at the transition (where the second step begins),
    and falls behind the exit. Returns columns of equal length; position is negative on advance."""
    def ramp(x, at, length):
        return min(max((x - at) / length, 0.0), 1.0)

    position, torque, step = [], [], []
    for i in range(int((exit_mm + 4) / feed_mm)):
        x = i * feed_mm
        position.append(round(-x, 3))
        torque.append(round(2.0 * ramp(x, entry_mm, 1.0) + 6.0 * ramp(x, transition_mm, 1.0) - 8.0 * ramp(x, exit_mm, 1.0), 3))
        step.append(steps[0] if x < transition_mm - 2 else steps[1])
    return {'position': position, 'torque': torque, 'thrust': [round(t / 2, 3) for t in torque], 'step': step}


def negative_curve():
    """Its second step sees the torque fall before it rises, so that the exit lies before the transition."""
    curve = stack_curve()
    torque = curve['torque']
    for i, position in enumerate(curve['position']):
        x = -position
        if curve['step'][i] == 2:
            torque[i] = round(6.0 - 5.0 * min(max((x - 13) / 1.0, 0.0), 1.0) + 6.0 * min(max((x - 18) / 1.0, 0.0), 1.0), 3)
    return curve


def one_step_curve():
    curve = stack_curve()
    curve['step'] = [1] * len(curve['step'])
    return curve


@dataclasses.dataclass
class Hole:
    box: str = 'ILLL502033771'
    tool: str = ''
    stamp: str = ''
    result_id: object = None
    machine_id: object = '0'
    head_id: object = 'E00401009F45BACA'
    curve: dict = dataclasses.field(default_factory=stack_curve)
    trace_result_id: object = None  # where it differs
    cycle_counter: object = None  # of the head, where it differs from result_id
    suffix: str = '.MeasuredValue'  # of the per-step keys, since 2025-06; '' before
    messages_as_array: bool = False

    def __post_init__(self):
        number = next(_numbers)
        self.tool = self.tool or 'setitec%06d' % number
        self.stamp = self.stamp or '2026-%02d-%02dT%02d:%02d:%02dZ' % (
            number // 2419200 % 12 + 1, number // 86400 % 28 + 1, number // 3600 % 24, number // 60 % 60, number % 60)
        self.result_id = str(number) if self.result_id is None else self.result_id

    @property
    def key(self):
        return self.box + '/' + self.tool

    def topic(self, kind):
        return '/'.join((ROOT, self.box, self.tool, kind))

    def _envelope(self, values):
        prefix = 'nsu=http://airbus.com/IJT/ADrilling;s=Objects.DeviceSet.%s.' % self.tool
        payload = {prefix + key: {'Value': value, 'SourceTimestamp': self.stamp} for key, value in values}
        body = {'DataSetWriterId': self.tool, 'SequenceNumber': 1, 'Timestamp': self.stamp, 'MessageType': 'ua-keyframe', 'Payload': payload}
        return {'MessageId': str(uuid.uuid4()), 'MessageType': 'ua-data', 'PublisherId': self.box,
                'Messages': [body] if self.messages_as_array else body}

    def result(self):
        steps = sorted(set(self.curve['step']))
        values = steps if len(steps) > 1 else steps[0]  # real senders send one step as a scalar
        empty = [0.5] * len(steps) if len(steps) > 1 else 0.5
        return self._envelope([
            (_R + 'ResultMetaData.CreationTime', self.stamp), (_R + 'ResultMetaData.SerialNumber', self.machine_id),
            (_S + 'IntensityTorqueEmpty' + self.suffix, empty), (_S + 'IntensityThrustEmpty' + self.suffix, empty),
            (_S + 'StepNumber' + self.suffix, values), (_R + 'ResultMetaData.ResultId', self.result_id),
            (_R + 'ResultMetaData.ResultEvaluation', 'OK')])

    def trace(self):
        identifier = self.result_id if self.trace_result_id is None else self.trace_result_id
        values = []
        for name, column in (('PositionTrace', 'position'), ('IntensityTorqueTrace', 'torque'), ('IntensityThrustTrace', 'thrust'),
                             ('StepNumberTrace', 'step')):
            values += [(_T + name + '.StepResultId', identifier), (_T + name + '.SamplingInterval', 100),
                       (_T + name + '.StepTraceContent[0].Values', self.curve[column])]
        return self._envelope(values)

    def heads(self):
        counter = int(self.result_id) if self.cycle_counter is None else self.cycle_counter
        return self._envelope([(_H + 'Identification.SerialNumber', self.head_id), (_H + 'LifetimeCounters.0.LifeTimeCycleCounter', counter)])

    def message(self, kind, **json_options):
        """(topic, payload) of RESULT, TRACE or HEADS."""
        make = {RESULT: self.result, TRACE: self.trace, HEADS: self.heads}[kind]
        return self.topic(kind), json.dumps(make(), **json_options).encode()

    def messages(self, kinds=(RESULT, TRACE, HEADS), **json_options):
        return [self.message(kind, **json_options) for kind in kinds]


def answer(hole, value, head_id='same', algo_version=None, error=False, warning=None):
    """The payload that Spindle publishes for a hole, byte for byte."""
    out = {'SourceTimestamp': hole.stamp, 'MachineId': None if hole.machine_id is None else str(hole.machine_id),
           'ResultId': None if hole.result_id is None else str(hole.result_id),
           'HeadId': hole.head_id if head_id == 'same' else head_id, 'Value': value}
    if algo_version is not None:
        out['AlgoVersion'] = algo_version
    if error:
        out['Error'] = True
    if warning is not None:
        out['Warning'] = warning
    return json.dumps(out).encode()
