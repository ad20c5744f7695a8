#!/usr/bin/env python3
"""Writes the seeds of the drilling payload fuzz target into tests/fuzz/corpus/drilling_payload/: one small file for each layout of the
three messages, and for each way of being wrong.

    tests/fuzz/make_drilling_seeds.py

The output is the same every time. Standard library only.
"""
import json
import pathlib

CORPUS = pathlib.Path(__file__).resolve().parent / 'corpus' / 'drilling_payload'
RESULT, TRACE, HEADS, SHORT_PATHS = 0, 1, 2, 4
R = 'ResultManagement.Results.0.'
V = R + 'ResultContent.StepResults.0.StepResultValues.'
T = R + 'ResultContent.Trace.StepTraces.'
STAMP = '2024-05-15T07:29:33Z'


def message(values, array=False, stamp=STAMP):
    payload = {'nsu=x;s=tool.' + k: {'Value': v, 'SourceTimestamp': stamp} for k, v in values}
    inner = {'DataSetWriterId': 1, 'Payload': payload}
    return json.dumps({'MessageId': '1', 'Messages': [7, {}, inner] if array else inner}, separators=(',', ':'))


def write(name, kind, text):
    data = text if isinstance(text, bytes) else text.encode()
    (CORPUS / name).write_bytes(bytes([kind]) + data)


def result_values(suffix='', steps=(1, 2), empty=(4.736, 3.1)):
    steps, empty = [list(v) if isinstance(v, tuple) else v for v in (steps, empty)]
    return [(R + 'ResultMetaData.SerialNumber', '0'), (R + 'ResultMetaData.ResultId', 440), (V + 'StepNumber' + suffix, steps),
            (V + 'IntensityTorqueEmpty' + suffix, empty), (V + 'IntensityThrustEmpty' + suffix, 0.3)]


def curve(per_step, steps=(1, 2)):
    """A short cycle: advance with a wobble, torque that rises and falls."""
    position, torque, step = [], [], []
    for n, number in enumerate(steps):
        for i in range(per_step):
            position.append(round(-3 - 0.05 * (n * per_step + i) + 0.01 * (i % 3 == 0), 3))
            torque.append(round(0.049 * ((i * 7 + n) % 5) + (2.5 if per_step // 4 < i < 3 * per_step // 4 else 0), 3))
            step.append(number)
    return position, torque, step


def trace_values(per_step, paths, steps=(1, 2)):
    position, torque, step = curve(per_step, steps)
    return [(paths[0], '440'), (paths[1], position), (paths[2], torque), (paths[3], torque), (paths[4], step)]


DEFAULT = (T + 'PositionTrace.StepResultId', T + 'PositionTrace.StepTraceContent[0].Values', T + 'IntensityTorqueTrace.StepTraceContent[0].Values',
           T + 'IntensityThrustTrace.StepTraceContent[0].Values', T + 'StepNumberTrace.StepTraceContent[0].Values')
SHORT = ('.tid', '.pos', '.tor', '.thr', '.step')
HEAD = 'AssetManagement.Assets.Heads.0.Identification.SerialNumber'
CYCLES = 'AssetManagement.Assets.Heads.0.LifetimeCounters.0.LifeTimeCycleCounter'


def main():
    CORPUS.mkdir(parents=True, exist_ok=True)
    write('result', RESULT, message(result_values()))
    write('result_measured', RESULT, message(result_values('.MeasuredValue')))
    write('result_scalars', RESULT, message(result_values(steps=1, empty=4.7)))
    write('result_array', RESULT, message(result_values(), array=True))
    write('result_lengths', RESULT, message(result_values(empty=(1.5,))))
    write('result_short', RESULT | SHORT_PATHS, message([('.mid', 'm'), ('.rid', ['7']), ('.rows', [3, 1]), ('.te', [1, 2]), ('.he', 1)]))
    write('trace', TRACE, message(trace_values(3, DEFAULT)))
    write('trace_short', TRACE | SHORT_PATHS, message(trace_values(3, SHORT)))
    write('trace_curve', TRACE | SHORT_PATHS, message(trace_values(45, SHORT, (1, 2, 3))))
    write('trace_interleaved', TRACE | SHORT_PATHS, message(trace_values(35, SHORT, (2, 1, 2))))
    write('trace_one_sample', TRACE | SHORT_PATHS, message([('.pos', -1), ('.tor', 2.5), ('.thr', [0]), ('.step', 1.0)]))
    write('trace_null', TRACE | SHORT_PATHS, message([('.pos', [-1, None]), ('.tor', ['2']), ('.thr', [[0]]), ('.step', [1.5])]))
    write('trace_words', TRACE | SHORT_PATHS, message([('.pos', [float('nan'), 1e39]), ('.tor', float('inf')), ('.thr', 1e-400), ('.step', 1)]))
    write('trace_numbers', TRACE | SHORT_PATHS,
          '{"Messages":{"Payload":{"a.pos":{"Value":[ -0, 1.5e0,\n12345678 ,0.1234567890123456789],"SourceTimestamp":"t"},'
          '"b.tor":{"Value":[1E2,1,2,3]},"c.thr":{"Value":[0,0,0,0]},"d.step":{"Value":[1,1,2e0,2.0]}}}}')
    write('trace_cut', TRACE, message(trace_values(3, DEFAULT))[:-40])
    write('heads', HEADS, message([(HEAD, 'E00401009F45BACA'), (CYCLES, 440)]))
    write('heads_list', HEADS | SHORT_PATHS, message([('.head', [' E\u00e9 ', 5, {}]), ('.cyc', True)]))
    write('heads_escapes', HEADS | SHORT_PATHS, message([('.head', '\u20ac\U0001f600\n"\\')]))
    write('heads_valueless', HEADS | SHORT_PATHS, '{"Messages":{"Payload":{"a.head":{"SourceTimestamp":"t"},"b.head":{"Value":null}}}}')
    write('stamp_deep', HEADS, '{"Header":{"a":[{"SourceTimestamp":"no"}],"SourceTimestamp":"2024-05-15T07:29:33.5+02:00"},"Messages":5}')
    write('stamp_wrong', HEADS, '{"SourceTimestamp":7,"Messages":{"Payload":[]}}')
    write('not_utf8', HEADS, b'{"SourceTimestamp":"t","x":"\xff"}')
    write('deep', HEADS, '[' * 70 + ']' * 70)
    write('empty', RESULT, '')
    write('scalar', RESULT, '-12.5e3 ')
    write('trailing', RESULT, '{} {}')


if __name__ == '__main__':
    main()
