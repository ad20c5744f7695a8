"""Sessions that outlive their connections: when there is one, for how long, who has it, and what stays of its subscriptions."""
import json
import threading
import time

import pytest

from packets import DISCONNECT, PUBCOMP, PUBREC, PUBREL, SESSION_EXPIRY, SUBACK, SUBSCRIPTION, UNSUBACK, WILL_DELAY, Packets
from sessions import FOREVER, Visit, has_session, payloads, put
from wire import GOODBYE, Wire, connect, packet, set_of, subscribe

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
TAKEN_OVER, NOT_FOUND = 0x8e, 0x92
ASSIGNED = 0x12
WEEK_S = 7 * 86400


@pytest.fixture(scope='module')
def server(shared_server):
    """Two network threads, to which connections are dealt in turn: a session goes from one to the other."""
    return shared_server({'bus.threads': 2})


@pytest.fixture
def own(request):
    """Bytes that are the test's own, for topics and client identifiers."""
    return ''.join(c if c.isalnum() else '-' for c in request.node.name).encode()


def wait_until_gone(server, client_id, version=5, expiry=1):
    """Until its session has ended. Whoever asks goes on with it, so that its time begins anew: each wait is longer than the last."""
    for pause in (1.2, 2.4, 4.8, 9.6):
        time.sleep(pause)
        if not has_session(server, client_id, version, expiry):
            return
    raise AssertionError('the session does not end')


# ---- when there is one ----

@VERSIONS
@pytest.mark.parametrize('end', ['goodbye', 'cut', 'reset', 'error'])
def test_who_comes_back_finds_the_session(server, own, version, end):
    with Visit(server, own, version) as visit:
        assert visit.present == 0 and SESSION_EXPIRY not in dict(visit.connack)
        assert visit.subscribe(own, qos=1) == [1]
        if end == 'goodbye':
            assert visit.leave() == b''
        elif end == 'cut':
            assert visit.cut() == b''
        elif end == 'reset':
            visit.socket.setsockopt(1, 13, b'\1\0\0\0\0\0\0\0')  # SO_LINGER of no time: RST
            visit.close()
        else:
            visit.send(b'\0\0')
            visit.read_until_closed()
    put(server, own, b'while away')
    with Visit(server, own, version) as visit:
        assert visit.present == 1 and SESSION_EXPIRY not in dict(visit.connack)
        assert payloads(visit.take_rest(server, own)) == [b'while away']


@VERSIONS
def test_a_clean_start_ends_the_session(server, own, version):
    """What was subscribed, what waits, and what is unfinished: all of it is over."""
    with Visit(server, own, version) as visit:
        visit.subscribe(own, qos=2)
        visit.publish(own + b'/other', b'unfinished', 2, 7)
        visit.expect(PUBREC, 7)
        put(server, own, b'unanswered')
        visit.take_open(1)
        visit.leave()
    put(server, own, b'while away')
    with Visit(server, own, version, clean=True) as visit:
        assert visit.present == 0
        put(server, own, b'after')
        visit.reply(PUBREL, 7)
        visit.expect(PUBCOMP, 7, *[NOT_FOUND] if version == 5 else [])
        visit.subscribe(own + b'/fence', qos=1)
        assert visit.take_rest(server, own + b'/fence') == []
        visit.leave()
    with Visit(server, own, version) as visit:
        assert visit.present == (version == 5)  # in 3.1.1 a session that began clean lasts as long as its connection
        visit.subscribe(own + b'/fence', qos=1)
        assert visit.take_rest(server, own + b'/fence') == []


@pytest.mark.parametrize('expiry, kept', [(None, False), (0, False), (1000, True), (FOREVER, True)])
@pytest.mark.parametrize('clean', [False, True])
def test_a_session_of_5_0_is_kept_when_that_was_asked_for(server, own, clean, expiry, kept):
    """Whether it began clean has no part in that."""
    with Visit(server, own, expiry=expiry, clean=clean) as visit:
        visit.subscribe(own, qos=1)
        visit.leave()
    put(server, own, b'while away')
    with Visit(server, own) as visit:
        assert visit.present == kept
        visit.subscribe(own, qos=1)
        assert payloads(visit.take_rest(server, own)) == [b'while away'] * kept


def test_a_session_of_3_1_1_that_began_clean_is_not_kept(server, own):
    with Visit(server, own, 4, clean=True) as visit:
        visit.subscribe(own, qos=1)
        visit.leave()
    with Visit(server, own, 4) as visit:
        assert visit.present == 0


@pytest.mark.parametrize('first, then', [(4, 5), (5, 4)])
def test_a_session_goes_on_in_the_other_version(server, own, first, then):
    with Visit(server, own, first) as visit:
        props = [(SUBSCRIPTION, 9)] if first == 5 else []
        visit.subscribe(own, qos=1, props=props)
        visit.leave()
    put(server, own, b'while away')
    with Visit(server, own, then) as visit:
        assert visit.present == 1
        assert payloads(visit.take_rest(server, own)) == [b'while away']
        visit.leave()
    with Visit(server, own, first) as visit:
        assert visit.present == 1
        put(server, own, b'live')
        [message] = visit.take()
        assert message.payload == b'live' and message.values(SUBSCRIPTION) == ([9] if first == 5 else [])


def test_a_client_with_an_assigned_identifier_may_come_back(server):
    with Visit(server, b'') as visit:
        assert visit.present == 0
        name = dict(visit.connack)[ASSIGNED]
        visit.leave()
    with Visit(server, name) as visit:
        assert visit.present == 1 and ASSIGNED not in dict(visit.connack)
        visit.leave()
    with Visit(server, b'') as visit:
        assert visit.present == 0 and dict(visit.connack)[ASSIGNED] != name


def test_an_identifier_is_needed_in_3_1_1(server):
    with Visit(server, b'', 4) as visit:
        assert (visit.present, visit.reason) == (0, 2)
        assert visit.read_until_closed() == b''


@VERSIONS
def test_identifiers_of_sessions_are_compared_to_the_byte(server, own, version):
    names = [own, own.upper(), own + b' ', own[:-1], own + 'í'.encode(), own + b'i\xcc\x81']
    for i, name in enumerate(names):
        with Visit(server, name, version) as visit:
            assert visit.present == 0
            visit.subscribe(own + b'/%d' % i, qos=1)
            visit.leave()
    for i in range(len(names)):
        put(server, own + b'/%d' % i, b'%d' % i)
    for i, name in enumerate(names):
        with Visit(server, name, version) as visit:
            assert visit.present == 1
            assert payloads(visit.take_rest(server, own + b'/%d' % i)) == [b'%d' % i]


@VERSIONS
def test_what_is_asked_for_in_one_breath_with_a_goodbye_is_answered(server, own, version):
    """And is there when the client is back."""
    asked = [(SESSION_EXPIRY, 1000)] if version == 5 else []
    with Wire(server) as wire:
        wire.send(connect(version, own, 0, props=asked) + subscribe(version, (own, 1)) + GOODBYE)
        wire.packet()
        wire.expect(packet(0x90, b'\0\1', set_of(version), b'\1'))
        assert wire.read_until_closed() == b''
    put(server, own, b'while away')
    with Visit(server, own, version) as visit:
        assert visit.present == 1 and payloads(visit.take_rest(server, own)) == [b'while away']


# ---- for how long ----

def test_a_session_ends_when_its_time_is_over(server, own):
    with Visit(server, own, expiry=1) as visit:
        visit.subscribe(own, qos=1)
        visit.cut()
    assert has_session(server, own, expiry=1)
    put(server, own, b'while away')
    wait_until_gone(server, own)
    with Visit(server, own) as visit:
        visit.subscribe(own, qos=1)
        assert visit.take_rest(server, own) == []


def test_no_time_passes_while_a_client_is_connected(server, own):
    with Visit(server, own, expiry=1) as visit, Visit(server, own + b'/fence', expiry=1) as fence:
        visit.subscribe(own, qos=1)
        fence.leave()
        wait_until_gone(server, own + b'/fence')
        visit.leave()
    assert has_session(server, own)


@pytest.mark.parametrize('first, last, kept', [(1000, 0, False), (1000, 1, False), (1, 1000, True), (1, FOREVER, True), (FOREVER, 1, False)])
def test_a_goodbye_may_change_the_time(server, own, first, last, kept):
    with Visit(server, own, expiry=first) as visit, Visit(server, own + b'/fence', expiry=1) as fence:
        visit.leave(props=[(SESSION_EXPIRY, last)])
        fence.leave()
    if last == 1:
        wait_until_gone(server, own)
        return
    if kept:
        wait_until_gone(server, own + b'/fence')
    assert has_session(server, own) == kept


def test_each_connection_asks_for_its_own_time(server, own):
    """It is not kept with the session."""
    with Visit(server, own, expiry=1000) as visit:
        visit.leave()
    with Visit(server, own, expiry=None) as visit:
        assert visit.present == 1
        visit.leave()
    assert not has_session(server, own)


def test_no_session_is_kept_longer_than_the_setting_says(spindle):
    server = spindle(settings={'bus.session_expiry_max_s': 3600}).start()
    for asked, told in ((3599, {}), (3600, {}), (3601, {SESSION_EXPIRY: 3600}), (FOREVER, {SESSION_EXPIRY: 3600}), (0, {}), (None, {})):
        with Visit(server, b'c', expiry=asked) as visit:
            assert {key: value for key, value in visit.connack if key == SESSION_EXPIRY} == told


def test_a_week_is_the_most_unless_somebody_says_otherwise(server, own):
    with Visit(server, own, expiry=FOREVER) as visit:
        assert dict(visit.connack)[SESSION_EXPIRY] == WEEK_S


@pytest.mark.parametrize('who', ['3.1.1', '5.0', '5.0 at its end'])
def test_the_most_is_what_a_session_gets(spindle, who):
    server = spindle(settings={'bus.session_expiry_max_s': 1}).start()
    version, expiry = (4, None) if who == '3.1.1' else (5, 1 if who == '5.0 at its end' else FOREVER)
    with Visit(server, b'c', version, expiry) as visit:
        visit.leave(props=[(SESSION_EXPIRY, FOREVER)] if who == '5.0 at its end' else ())
    wait_until_gone(server, b'c', version, expiry)


@VERSIONS
@pytest.mark.parametrize('asked', [1000, FOREVER])
def test_no_session_outlives_its_connection_where_the_setting_says_so(spindle, version, asked):
    """With 0 whatever is asked for; 5.0 is told."""
    server = spindle(settings={'bus.session_expiry_max_s': 0}).start()
    for _ in range(2):
        with Visit(server, b'c', version, asked) as visit:
            assert (visit.present, visit.reason) == (0, 0)
            assert version == 4 or dict(visit.connack)[SESSION_EXPIRY] == 0
            visit.subscribe(b't', qos=1)
            put(server, b't', b'live')
            assert payloads(visit.take()) == [b'live']
            visit.leave(props=[(SESSION_EXPIRY, asked)] if version == 5 else ())


def test_the_number_of_sessions_has_a_limit(spindle):
    """Those of clients that are away count; those that end with their connection do not."""
    server = spindle(settings={'bus.sessions_max': 3}).start()
    for i in range(3):
        assert not has_session(server, b'%d' % i)
    with Visit(server, b'3') as visit, Visit(server, b'4', 4) as old:
        assert visit.reason == 0x97 and old.reason == 3
    for i in range(3, 6):
        with Visit(server, b'%d' % i, clean=True, expiry=None) as visit, Visit(server, b'%d' % (i + 3), 4, clean=True) as old:
            assert visit.reason == old.reason == 0
    for i in range(3):
        assert has_session(server, b'%d' % i)
    with Visit(server, b'0', expiry=0) as visit:
        visit.leave()
    assert not has_session(server, b'3')  # it had room


# ---- whose it is ----

@pytest.mark.parametrize('first', [4, 5])
@pytest.mark.parametrize('second', [4, 5])
def test_a_session_is_taken_over(server, own, first, second):
    """What the first connection had not answered goes to the second, and so does what follows."""
    with Visit(server, own, first) as old:
        old.subscribe(own, qos=1)
        put(server, own, b'0')
        [open_] = old.take_open(1)
        with Visit(server, own, second) as new:
            assert new.present == 1
            if first == 5:
                assert old.answer()[:3] == (DISCONNECT, None, TAKEN_OVER)
            assert old.read_until_closed() == b''
            put(server, own, b'1')
            got = new.take(2)
            assert [(m.payload, m.dup) for m in got] == [(b'0', True), (b'1', False)] and got[0].identifier == open_.identifier
            assert new.take_rest(server, own) == []


@VERSIONS
def test_a_clean_start_takes_over_the_name_alone(server, own, version):
    with Visit(server, own, version) as old:
        old.subscribe(own, qos=1)
        with Visit(server, own, version, clean=True) as new:
            assert new.present == 0
            if version == 5:
                assert old.answer()[:3] == (DISCONNECT, None, TAKEN_OVER)
            assert old.read_until_closed() == b''
            put(server, own, b'x')
            new.subscribe(own, qos=1)
            assert new.take_rest(server, own) == []


@pytest.mark.parametrize('version, expiry', [(4, None), (5, None), (5, 0)])
def test_a_session_that_was_not_to_be_kept_cannot_be_taken_over(server, own, version, expiry):
    with Visit(server, own, version, expiry, clean=version == 4) as old:
        old.subscribe(own, qos=1)
        with Visit(server, own, version) as new:
            assert new.present == 0
            old.read_until_closed()
            put(server, own, b'x')
            new.subscribe(own, qos=1)
            assert new.take_rest(server, own) == []


@VERSIONS
def test_a_session_goes_through_many_hands(server, own, version):
    """While messages come; each is told to one of them at least, and the last of all has the rest."""
    count = 300
    sender = threading.Thread(target=put, args=(server, own, *[b'%d' % i for i in range(count)]))
    got, visits = [], [Visit(server, own, version)]
    visits[0].subscribe(own, qos=1)
    sender.start()
    for i in range(20):
        got += payloads(visits[-1].take(3))
        visits.append(Visit(server, own, version))
        assert visits[-1].present == 1
        visits[-2].read_until_closed()
        visits[-2].close()
    sender.join()
    got += payloads(visits[-1].take_rest(server, own))
    visits[-1].close()
    numbers = [int(payload) for payload in got]
    assert set(numbers) == set(range(count))
    assert list(dict.fromkeys(numbers)) == list(range(count))  # the first time each, in order


# ---- what an operator sees ----

def test_the_sessions_that_hold_most_are_named(spindle):
    server = spindle().start()
    for name, count in ((b'some', 3), (b'most "of" all', 7), (b'none', 0)):
        with Visit(server, name, expiry=1000) as visit:
            visit.subscribe(b'for/' + name[:4], qos=1)
            visit.leave()
        put(server, b'for/' + name[:4], *[b'x'] * count)
    with Visit(server, b'here', expiry=77) as visit:
        visit.subscribe(b'a', b'b', qos=1)
        status, _, text = server.http('/api/v1/sessions')
        told = json.loads(text)
        assert (status, told['total']) == (200, 4)
        rows = {row['client']: row for row in told['sessions']}
        assert [row['holds']['bus'] for row in told['sessions']] == [10, 7, 0, 0]
        assert told['sessions'][0]['client'] == 'some' and told['sessions'][1]['client'] == 'most "of" all'
        here = rows['here']
        assert (here['connected'], here['subscriptions'], here['expiry_s'], here['user']) == (True, 2, 77, '')
        assert 'left_ns' not in here and not rows['none']['connected'] and rows['none']['left_ns'] > 1.7e18


# ---- subscriptions ----

@VERSIONS
def test_subscriptions_are_kept_and_not_asked_for_retained_messages_again(server, own, version):
    put(server, own + b'/kept', b'retained', retain=True)
    filters = [own + b'/kept', own + b'/+/one', own + b'/two/#', own + b'/exact']
    with Visit(server, own, version) as visit:
        for topic_filter in filters:
            visit.subscribe(topic_filter, qos=1)
        [message] = visit.take_rest(server, own + b'/exact')
        assert message.payload == b'retained' and message.retain
        visit.leave()
    for _ in range(3):
        with Visit(server, own, version) as visit:
            assert visit.present == 1
            put(server, own + b'/x/one', b'1')
            put(server, own + b'/two', b'2')
            put(server, own + b'/exact', b'3')
            put(server, own + b'/none', b'4')
            assert payloads(visit.take_rest(server, own + b'/exact')) == [b'1', b'2', b'3']
            visit.leave()
    with Visit(server, own, version) as visit:
        visit.subscribe(own + b'/kept', qos=1)
        assert payloads(visit.take_rest(server, own + b'/exact')) == [b'retained']
    put(server, own + b'/kept', b'', retain=True)


def test_a_subscription_that_was_kept_is_not_a_new_one(server, own):
    """Retain handling 1 asks for retained messages with a new subscription only."""
    put(server, own, b'retained', retain=True)
    with Visit(server, own) as visit:
        visit.subscribe(own, qos=1, options=0x10)
        assert payloads(visit.take(1)) == [b'retained']
        visit.leave()
    with Visit(server, own) as visit:
        visit.subscribe(own, qos=1, options=0x10)
        assert visit.take_rest(server, own) == []
    put(server, own, b'', retain=True)


@VERSIONS
def test_an_unsubscription_is_kept(server, own, version):
    with Visit(server, own, version) as visit:
        visit.subscribe(own, own + b'/fence', qos=1)
        visit.leave()
    with Visit(server, own, version) as visit:
        visit.unsubscribe(own, identifier=3)
        visit.expect(UNSUBACK, 3)
        put(server, own, b'live')
        visit.leave()
    put(server, own, b'while away')
    with Visit(server, own, version) as visit:
        assert visit.present == 1
        assert visit.take_rest(server, own + b'/fence') == []


@VERSIONS
@pytest.mark.parametrize('qos', [1, 2])
def test_what_comes_after_an_unsubscription_does_not_arrive(server, own, version, qos):
    """While others publish, all from some moment on: nothing is left out before, and nothing comes that was published after the answer."""
    with Visit(server, own, version) as visit:
        visit.subscribe(own, own + b'/fence', qos=qos)
        sender = threading.Thread(target=put, args=(server, own, *[b'%d' % i for i in range(300)]), kwargs={'qos': qos})
        sender.start()
        messages = visit.take(100)
        visit.unsubscribe(own, identifier=9)
        more, others = visit.collect(lambda _, others: others)
        assert others[0][:2] == (UNSUBACK, 9)
        put(server, own, b'after', qos=qos)
        sender.join()
        messages += more + visit.take_rest(server, own + b'/fence')
        numbers = [int(payload) for payload in payloads(messages)]
        assert numbers == list(range(len(numbers))) and len(numbers) >= 100


@VERSIONS
def test_what_comes_after_a_subscription_arrives(server, own, version):
    """While others publish, without a gap from the first message on; what was published before does not come."""
    count, sent = 2000, []

    def publish():
        with Visit(server, b'', clean=True, expiry=None) as publisher:
            for start in range(0, count, 10):
                sent.append(start)
                publisher.put_all((own, b'%d' % i) for i in range(start, start + 10))
    put(server, own, b'-1')
    sender = threading.Thread(target=publish)
    with Visit(server, own, version) as visit:
        sender.start()
        while len(sent) < 20:
            time.sleep(0.001)
        visit.send(subscribe(version, (own, 1), identifier=5))
        _, others = visit.collect(lambda messages, others: others)
        begun = sent[-1] + 10  # at the latest; what came in this collect() was acknowledged, and is not asked for again
        assert others == [(SUBACK, 5, [1])]
        visit.cut()
    with Visit(server, own, version) as visit:
        sender.join()
        numbers = list(dict.fromkeys(int(payload) for payload in payloads(visit.take_rest(server, own))))
        assert 0 < numbers[0] <= begun and numbers == list(range(numbers[0], count))


@VERSIONS
def test_a_subscription_may_change_its_quality(server, own, version):
    with Visit(server, own, version) as visit:
        for qos in (1, 2, 1):
            assert visit.subscribe(own, qos=qos) == [qos]
            put(server, own, b'live', qos=2)
            assert [(m.payload, m.qos) for m in visit.take()] == [(b'live', qos)]
        visit.subscribe(own, qos=2)
        visit.leave()
    put(server, own, b'while away', qos=2)
    with Visit(server, own, version) as visit:
        assert [(m.payload, m.qos) for m in visit.take()] == [(b'while away', 2)]
        visit.subscribe(own, qos=0)
        put(server, own, b'live', qos=2)
        assert [(m.payload, m.qos) for m in visit.take()] == [(b'live', 0)]
        visit.subscribe(own, qos=1)
        assert visit.take_rest(server, own) == []


@VERSIONS
def test_qos_0_goes_to_who_is_there(server, own, version):
    with Visit(server, own, version) as visit:
        visit.subscribe(own, qos=1)
        put(server, own, b'live', qos=0)
        assert [(m.payload, m.qos) for m in visit.take()] == [(b'live', 0)]
        visit.leave()
    with Visit(server, own, version) as visit:
        assert visit.present == 1
        put(server, own, b'live again', qos=0)
        assert [(m.payload, m.qos) for m in visit.take()] == [(b'live again', 0)]


@VERSIONS
def test_who_is_away_takes_no_part_in_a_shared_subscription(server, own, version):
    """It is a member again when it is back. What came meanwhile had the others."""
    with Visit(server, own, version) as visit, Visit(server, own + b'-2', version) as other:
        for member in (visit, other):
            member.subscribe(b'$share/g/' + own, qos=1)
            member.subscribe(own + b'/fence', qos=1)
        visit.leave()
        put(server, own, *[b'%d' % i for i in range(10)])
        assert payloads(other.take(10)) == [b'%d' % i for i in range(10)]
        with Visit(server, own, version) as visit:
            assert visit.present == 1
            put(server, own, *[b'%d' % i for i in range(10, 20)])
            mine, theirs = visit.take_rest(server, own + b'/fence'), other.take_rest(server, own + b'/fence')
            # Each takes away a marker of its own, and has that of the other.
            mine, theirs = [payloads(m for m in part if m.topic == own) for part in (mine, theirs)]
            assert mine and theirs and sorted(mine + theirs) == [b'%d' % i for i in range(10, 20)]


# ---- wills ----

def test_the_end_of_a_session_publishes_its_will(server, own):
    """Which waits longer than the session lasts. There is none any more then."""
    with Packets(server, b'w-' + own) as witness:
        witness.subscribe(own, qos=1)
        Visit(server, own, expiry=1, will=(own, b'will', 1, False, [(WILL_DELAY, 1000)])).cut()
        assert witness.message().payload == b'will'
        assert not has_session(server, own)


@pytest.mark.parametrize('expiry', [0, 1])
def test_a_goodbye_that_ends_the_session_may_leave_the_will(server, own, expiry):
    with Packets(server, b'w-' + own) as witness:
        witness.subscribe(own, qos=1)
        visit = Visit(server, own, will=(own, b'will', 1, False, [(WILL_DELAY, 1000)]))
        visit.leave(b'\x04', [(SESSION_EXPIRY, expiry)])
        assert witness.message().payload == b'will'


def test_a_will_may_come_before_the_session_ends(server, own):
    """Also to the client itself, which finds it when it is back."""
    with Packets(server, b'w-' + own) as witness:
        witness.subscribe(own, qos=1)
        with Visit(server, own, will=(own, b'will', 1, False, [(WILL_DELAY, 1)])) as visit:
            visit.subscribe(own, qos=1)
            visit.cut()
        assert witness.message().payload == b'will'
        with Visit(server, own) as visit:
            assert visit.present == 1
            assert payloads(visit.take_rest(server, own)) == [b'will']


def test_who_comes_back_to_its_session_withdraws_the_will(server, own):
    will = [(WILL_DELAY, 1)]
    with Packets(server, b'w-' + own) as witness:
        witness.subscribe(own, qos=1)
        Visit(server, own, will=(own, b'will', 1, False, will)).cut()
        with Visit(server, own) as visit:
            assert visit.present == 1
            Visit(server, b'f-' + own, will=(own, b'fence', 1, False, will)).cut()
            assert witness.message().payload == b'fence'
            witness.quiet()
