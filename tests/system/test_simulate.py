"""spindle simulate and spindle bench against the real server: what they say is what happened."""
import json
import os
import signal
import subprocess

import pytest

from spindle import BINARY, DEADLINE_S, SANITIZED, die_with_parent, json_lines, run_cli, wait_until

HOLES = 60 if SANITIZED else 400
SETTINGS = {'pipeline.grace_s': 0.5, 'mqtt.listener.time_window': 2}


def simulate(server, *arguments, status=0):
    done = run_cli('simulate', '--port', server.port, '--json', *arguments, check=False, timeout_s=4 * DEADLINE_S)
    assert done.returncode == status, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def error_of(result, shape, point):
    return next(e for e in result['estimate_errors_mm'] if (e['shape'], e['point']) == (shape, point))


def test_every_hole_is_answered_and_measured(spindle):
    server = spindle(settings=SETTINGS).start()
    result = simulate(server, '--holes', HOLES, '--tools', 20)
    assert result['holes_sent'] == result['holes_answered'] == HOLES
    assert result['messages_sent'] == result['messages_acknowledged'] == 3 * HOLES
    assert result['holes_lost'] == result['wrong_identity'] == result['wrong_head'] == result['unreadable_answers'] == 0
    assert result['holes_with_estimate'] + result['holes_with_error'] == HOLES
    assert result['holes_with_unexpected_error'] == 0
    assert result['answer_ms']['count'] == HOLES and 0 < result['answer_ms']['p50'] <= result['answer_ms']['max']
    for shape in 'one-stack', 'two-stack', 'micro-peck':
        exit_error = error_of(result, shape, 'exit')
        assert abs(exit_error['bias'] - 0.7) < 0.15 and exit_error['sd'] < 0.3, exit_error
    terms = server.wait_settled(3 * HOLES).streams()
    assert terms['ingest']['accepted'] == terms['ingest']['completed'] == 3 * HOLES
    assert terms['results']['accepted'] == 2 * HOLES


@pytest.mark.parametrize('protocol', ['3.1.1', '5.0'])
def test_troubles_on_demand_are_told_apart(spindle, protocol):
    server = spindle(settings=SETTINGS).start()
    result = simulate(server, '--holes', HOLES, '--tools', 20, '--shuffle', '--duplicates', '0.2', '--malformed', '0.2', '--no-heads', '0.1',
                      '--late-heads', '0.1', '--messages-array', '--protocol', protocol, '--shapes', 'one-stack,two-stack,aborted')
    assert result['holes_answered'] == HOLES and result['holes_lost'] == 0
    assert result['duplicates_received'] == result['wrong_identity'] == result['wrong_head'] == 0
    for what in 'duplicates_sent', 'malformed_sent', 'late_heads_sent', 'holes_without_heads':
        assert result[what] > 0
    assert result['answer_ms']['count'] + result['answer_without_heads_ms']['count'] == HOLES
    assert result['answer_without_heads_ms']['count'] == result['late_heads_sent'] + result['holes_without_heads']
    terms = server.wait_settled(result['messages_sent']).streams()['ingest']
    assert terms['accepted'] == result['messages_sent']
    assert terms['duplicates'] == result['duplicates_sent']
    assert terms['dead_lettered'] == result['malformed_sent'] + result['late_heads_sent']


def test_recorded_curves_are_played(spindle, tmp_path):
    rows = ['0,%.3f,0,0,5,0.4' % (-1 - i / 100) for i in range(100)] + ['1,%.3f,%.3f,0.1,5,0.4' % (-2 - i / 50, min(i, 90) / 30) for i in range(200)]
    (tmp_path / 'one.csv').write_text('step,position_mm,torque_a,thrust_a,torque_empty_a,thrust_empty_a\n' + '\n'.join(rows) + '\n')
    server = spindle(settings=SETTINGS).start()
    result = simulate(server, '--curves', tmp_path, '--holes', 20, '--tools', 3)
    assert result['holes_answered'] == 20 and result['estimate_errors_mm'] == []
    (tmp_path / 'two.csv').write_text('step,position_mm\n')
    done = run_cli('simulate', '--port', server.port, '--curves', tmp_path, check=False)
    assert done.returncode == 2 and 'two.csv:1: column torque_a is missing' in done.stderr


def test_a_killed_server_loses_nothing_that_was_acknowledged(spindle, tmp_path):
    server = spindle(settings=SETTINGS).start()
    report = tmp_path / 'report.txt'
    command = [BINARY, 'simulate', '--port', str(server.port), '--json', '--rate', '100', '--duration', '3', '--tools', '20', '--timeout',
               '3', '--report', report]
    player = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=die_with_parent, text=True)
    try:
        wait_until(lambda: server.metrics().streams()['ingest']['accepted'] > 100, 'holes arrive')
        server.kill()
        server.start()
        output, _ = player.communicate(timeout=4 * DEADLINE_S)
    finally:
        player.kill()
    result = json.loads(output)
    assert result['outages'] >= 1 and result['messages_unacknowledged'] == 0
    assert result['holes_lost'] == result['holes_perhaps_unseen'], 'only what was answered while nobody listened may be missing'
    assert result['holes_answered'] + result['holes_lost'] == result['holes_sent']
    holes = json_lines(report.read_text())
    assert len(holes) == result['holes_sent'] and all(h['acknowledged'] == h['messages'] for h in holes)
    server.wait_settled()
    answers = [(r['topic'].split('/')[1:3], json.loads(r['payload'])) for r in server.journal('results')]
    published = {(*tool, a['SourceTimestamp'], a['ResultId']) for tool, a in answers}
    assert {(h['toolbox'], h['tool'], h['stamp'], str(h['result_id'])) for h in holes} == published


def test_a_signal_ends_it_in_order(spindle):
    server = spindle(settings=SETTINGS).start()
    command = [BINARY, 'simulate', '--port', str(server.port), '--json', '--rate', '50', '--duration', '600', '--tools', '5']
    player = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=die_with_parent, text=True)
    try:
        wait_until(lambda: server.metrics().streams()['ingest']['accepted'] > 30, 'holes arrive')
        player.send_signal(signal.SIGINT)
        output, _ = player.communicate(timeout=DEADLINE_S)
    finally:
        player.kill()
    result = json.loads(output)
    assert player.returncode == 0 and result['interrupted'] and result['problem'] == ''
    assert result['holes_answered'] == result['holes_sent'] > 0


def test_without_a_server_it_says_so():
    done = run_cli('simulate', '--port', 1, '--holes', 1, '--timeout', '0.3', check=False)
    assert done.returncode == 1 and 'no connection to 127.0.0.1:1: Connection refused' in done.stderr
    assert done.stdout == ''
    done = run_cli('simulate', '--port', 1, '--holes', 1, '--timeout', '0.3', '--json', check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result['problem'] == 'no connection to 127.0.0.1:1: Connection refused' and result['holes_sent'] == 0
    done = run_cli('simulate', '--shapes', 'two-stak', check=False)
    assert done.returncode == 2 and 'Did you mean `two-stack`?' in done.stderr
    for root in ('a/#', '+', '/a', 'a/', ''):
        done = run_cli('simulate', '--root', root, check=False)
        assert done.returncode == 2 and '--root: expected topic levels without `+` and `#`' in done.stderr, done.stderr
    done = run_cli('bench', 'throughput', '--targets', 'a=127.0.0.1:1', '--duration', '0.1', check=False)
    assert done.returncode == 1 and 'not measured: Connection refused' in done.stdout
    assert ', 0.1 s\n' in done.stdout


@pytest.mark.parametrize('qos', [0, 1])
@pytest.mark.parametrize('scenario', [['throughput'], ['rate', '--rate', '500'], ['fanout', '--subscribers', '5'], ['fanout']])
def test_bench_counts_every_message(spindle, scenario, qos):
    server = spindle().start()
    target = 'spindle=127.0.0.1:%d/%d' % (server.port, server.process.pid)
    done = run_cli('bench', *scenario, '--targets', target, '--qos', qos, '--duration', '0.3', '--warmup', '0.1', '--inflight', '50', '--json')
    report = json.loads(done.stdout)
    result = report['targets'][0]
    assert result['measured'] and result['problem'] == ''
    assert result['published'] > 10
    assert report['subscribers'] == {'fanout': 100, 'fanout --subscribers 5': 5}.get(' '.join(scenario), 1)
    assert result['delivered'] == result['published'] * report['subscribers']
    assert result['acknowledged'] == (result['published'] if qos else 0)
    assert result['lost'] == result['duplicates'] == result['out_of_order'] == 0
    assert result['server_cpu_us_per_message'] is not None and result['server_resident_bytes'] > 1 << 20


def test_bench_counts_connections(spindle):
    server = spindle().start()
    done = run_cli('bench', 'connect', '--targets', '127.0.0.1:%d' % server.port, '--connects', 100, '--at-once', 10, '--json')
    result = json.loads(done.stdout)['targets'][0]
    assert result['connected'] == 100 and result['failed'] == 0 and result['connect_ms']['count'] == 100
    assert result['server_cpu_us_per_connect'] is None


def test_progress_is_for_terminals_only(spindle):
    server = spindle(settings=SETTINGS).start()
    done = run_cli('simulate', '--port', server.port, '--holes', 10, '--tools', 2)
    assert done.stderr == '' and '\x1b' not in done.stdout
    assert 'holes drilled' in done.stdout and 'From the last message of a hole to its complete answer' in done.stdout
    assert os.linesep + os.linesep in done.stdout
