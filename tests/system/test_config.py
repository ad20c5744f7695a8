"""What a user writes into files, variables and options, and what the program says about it."""
import json

import pytest

from holes import ANSWERS, Hole
from spindle import run_cli

OLD_FILE = '''
mqtt:
  broker:
    host: "mqtt-broker"
    port: 1883
    username: ""
    password: ""
    keepalive: 60
  listener:
    root: "OPCPUBSUB"
    toolboxid: "+"
    toolid: "+"
    result: "ResultManagement"
    trace: "ResultManagement/Trace"
    heads: "AssetManagement/Heads"
    duplicate_handling: "replace"
    duplicate_time_window: 1.0
    time_window: 30.0
    cleanup_interval: 60
    max_buffer_size: 10000
  data_ids:
    machine_id: "ResultManagement.Results.0.ResultMetaData.SerialNumber"
    result_id: "ResultManagement.Results.0.ResultMetaData.ResultId"
    head_id: "AssetManagement.Assets.Heads.0.Identification.SerialNumber"
    torque_empty_vals: "ResultManagement.Results.0.ResultContent.StepResults.0.StepResultValues.IntensityTorqueEmpty"
    thrust_empty_vals: "ResultManagement.Results.0.ResultContent.StepResults.0.StepResultValues.IntensityThrustEmpty"
    step_vals: "ResultManagement.Results.0.ResultContent.StepResults.0.StepResultValues.StepNumber"
    position: "ResultManagement.Results.0.ResultContent.Trace.StepTraces.PositionTrace.StepTraceContent[0].Values"
    torque: "ResultManagement.Results.0.ResultContent.Trace.StepTraces.IntensityTorqueTrace.StepTraceContent[0].Values"
    thrust: "ResultManagement.Results.0.ResultContent.Trace.StepTraces.IntensityThrustTrace.StepTraceContent[0].Values"
    step: "ResultManagement.Results.0.ResultContent.Trace.StepTraces.StepNumberTrace.StepTraceContent[0].Values"
  estimation:
    keypoints: "ResultManagement.Results.0.ResultContent.DepthEstimation.KeyPoints"
    depth_estimation: "ResultManagement.Results.0.ResultContent.DepthEstimation.DepthEstimation"
  publisher:
    client_id: "setitec_publisher"
    topics:
      result: "OPCPUBSUB/ILLL502033771/setitectest/ResultManagement"
      trace: "OPCPUBSUB/ILLL502033771/setitectest/ResultManagement/Traces"
  depth_validation:
    negative_depth_behavior: "publish"
    track_sequential_negatives: true
    sequential_threshold: 5
    sequential_window_minutes: 5
'''
HIGH_THROUGHPUT = '''high_throughput:
  enabled: true
  architecture: async
  ingestion: {workers: 10, max_connections: 50}
  queue:
    backend: rabbitmq
    rabbitmq: {host: localhost, port: 5672, exchange: drilling_data, queue_size: 100000}
    kafka: {brokers: ["localhost:9092"], topics: {results: drilling-results, traces: drilling-traces}}
  processing: {async_workers: 20, batch_size: 1000, batch_timeout: 5, max_workers: 100, scale_up_threshold: 1000, scale_down_threshold: 100}
  monitoring: {enabled: true, port: 9090, metrics_interval: 10}
'''
ESTIMATOR_FILE = 'drilling: {estimator: %s, algo_version: "%s"}\n'


@pytest.fixture
def check(tmp_path):
    """check(text) writes a file and runs `spindle check` on it; returns (status, everything it said)."""
    def run(text):
        path = tmp_path / 'spindle.yaml'
        path.write_text(text)
        done = run_cli('check', '--config', path, check=False)
        assert 'Traceback' not in done.stderr
        return done.returncode, done.stdout + done.stderr
    return run


def published_version(server, connect):
    """AlgoVersion of a hole's result: one setting that can be seen from outside."""
    subscriber = connect(server)
    subscriber.subscribe(*ANSWERS)
    connect(server).publish_all(Hole().messages())
    return json.loads(subscriber.take()[0].payload).get('AlgoVersion')


def indent(text):
    return ''.join('  ' + line + '\n' for line in text.splitlines())


@pytest.mark.parametrize('text', [OLD_FILE, OLD_FILE + indent(HIGH_THROUGHPUT), OLD_FILE + HIGH_THROUGHPUT],
                         ids=['old', 'high_throughput below mqtt', 'high_throughput at the top'])
def test_old_files_are_accepted_as_they_are(check, spindle, connect, tmp_path, text):
    status, said = check(text)
    assert status == 0, said
    server = spindle('--config', tmp_path / 'spindle.yaml', settings={'drilling.estimator': 'gradient', 'drilling.algo_version': '0.2.6'})
    assert published_version(server.start(), connect) == '0.2.6'


MISTAKES = {
    # what is wrong: (text, line, column, words of the message)
    'a mistyped key': ('drilling:\n  estimtor: gradient\n', 2, 3, ['estimtor', 'estimator']),
    'a mistyped section': ('dril1ing:\n  estimator: gradient\n', 1, 1, ['dril1ing', 'drilling']),
    'a mistyped key of the old file': ('mqtt:\n  listener:\n    time_windw: 30\n', 3, 5, ['time_windw', 'time_window']),
    'an unknown word': ('drilling:\n  estimator: gradiant\n', 2, 14, ['gradiant', 'gradient']),
    'text for a number': ('bus:\n  port: abc\n', 2, 9, ['abc']),
    'a number out of range': ('http:\n  port: 70000\n', 2, 9, ['70000', '65535']),
    'a list for a number': ('bus:\n  port: [1, 2]\n', 2, None, ['port']),
    'text for a section': ('bus: hello\n', 1, None, ['bus']),
    'a key twice': ('bus:\n  port: 1\n  port: 2\n', 3, 3, ['port']),
    'an empty file': ('', 1, 1, ['no settings']),
    'broken YAML': ('bus:\n  port: [1\nhttp: {}\n', None, None, []),
    'a tab for indentation': ('bus:\n\tport: 1\n', 2, None, []),
    'a wildcard in the root': ('mqtt:\n  listener:\n    root: "a/#"\n', 3, 11, ['a/#']),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes_are_named_with_their_place(check, spindle, tmp_path, name):
    text, line, column, words = MISTAKES[name]
    status, said = check(text)
    assert status != 0
    place = 'spindle.yaml' + (':%d' % line if line else '') + (':%d:' % column if column else ':')
    assert place in said, said
    assert all(word in said for word in words), said
    done = run_cli('run', '--config', tmp_path / 'spindle.yaml', '--port', 0, '--http-port', 0, '--data-dir', tmp_path / 'd', check=False)
    assert done.returncode not in (0, None) and place in done.stdout + done.stderr
    assert 'ready' not in done.stdout and not (tmp_path / 'd').exists()


def test_all_mistakes_are_named_at_once(check):
    status, said = check('bus: {prot: 1}\nhttp: {port: x}\n')
    assert status != 0 and ':1:' in said and ':2:' in said


def test_a_file_that_is_not_there(spindle):
    done = run_cli('check', '--config', '/nowhere/spindle.yaml', check=False)
    assert done.returncode != 0 and '/nowhere/spindle.yaml' in done.stderr + done.stdout


def test_the_nearer_setting_wins(spindle, connect, tmp_path):
    """Command line before environment before file before default."""
    path = tmp_path / 'spindle.yaml'
    path.write_text(ESTIMATOR_FILE % ('gradient', 'file'))
    file_only = spindle('--config', path)
    assert published_version(file_only.start(), connect) == 'file'
    with_environment = spindle('--config', path, env={'SPINDLE_DRILLING_ALGO_VERSION': 'environment'})
    assert published_version(with_environment.start(), connect) == 'environment'
    with_argument = spindle('--config', path, env={'SPINDLE_DRILLING_ALGO_VERSION': 'environment'},
                            settings={'drilling.algo_version': 'argument'})
    assert published_version(with_argument.start(), connect) == 'argument'


@pytest.mark.parametrize('way', ['file', 'environment', 'argument'])
def test_the_estimator_can_be_chosen_in_three_ways(spindle, connect, tmp_path, way):
    """`segments` cannot estimate these curves: its error shows that it was asked."""
    path = tmp_path / 'spindle.yaml'
    path.write_text(ESTIMATOR_FILE % ('segments' if way == 'file' else 'gradient', 'x'))
    server = spindle('--config', path, env={'SPINDLE_DRILLING_ESTIMATOR': 'segments'} if way == 'environment' else {},
                     settings={'drilling.estimator': 'segments'} if way == 'argument' else {})
    server.start()
    subscriber = connect(server)
    subscriber.subscribe(*ANSWERS)
    connect(server).publish_all(Hole().messages())
    assert json.loads(subscriber.take()[0].payload).get('Error') is True


@pytest.mark.parametrize('arguments, env', [(['--set', 'drilling.estimator=gradiant'], {}), ([], {'SPINDLE_DRILLING_ESTIMATOR': 'gradiant'}),
                                            ([], {'SPINDLE_DRILLING_ESTIMATR': 'auto'}), ([], {'SPINDLE_BUS_NONSENSE': '1'}),
                                            (['--set', 'mqtt.listener.root=a/#'], {}),
                                            (['--set', 'drilling.estimtor=gradient'], {}), (['--set', 'nonsense'], {}),
                                            (['--port', 'x'], {}), (['--port', '70000'], {}), (['--nonsense'], {})])
def test_mistakes_in_options_and_variables_are_named(tmp_path, arguments, env):
    done = run_cli('run', '--data-dir', tmp_path / 'd', *arguments, check=False, env=env)
    assert done.returncode not in (0, None) and done.returncode > 0
    said = (arguments[-1] if arguments else list(env)[0]).split('=')[0].lstrip('-')
    assert said in done.stderr, done.stderr
    assert not (tmp_path / 'd').exists()


def test_a_variable_that_is_nobodys_setting_is_warned_about(spindle):
    server = spindle(env={'SPINDLE_FOO': '1', 'SPINDLE_HTTP_PORT': 'tcp://10.0.0.1:9090', 'SPINDLE_SERVICE_HOST': '10.0.0.1'}).start()
    assert 'environment SPINDLE_FOO: warning: no setting has this name' in server.stderr()
    assert 'SPINDLE_HTTP' not in server.stderr() and 'SPINDLE_SERVICE' not in server.stderr()


def test_without_a_file_the_defaults_work(spindle, connect):
    server = spindle()
    server.settings.clear()
    server.start()
    assert published_version(server, connect)


@pytest.mark.parametrize('arguments', [['--help'], ['run', '--help'], ['--version'], ['help']])
def test_help_is_given(arguments):
    done = run_cli(*arguments, check=False)
    assert done.returncode == 0 and 'spindle' in done.stdout.lower()


@pytest.mark.parametrize('arguments', [['nonsense'], ['rum'], ['journal', 'nonsense'], []])
def test_unknown_commands_are_refused(arguments):
    done = run_cli(*arguments, check=False)
    assert done.returncode > 0 and done.stdout + done.stderr
