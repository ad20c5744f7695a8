"""Shared subscriptions of persistent sessions: what waits for the group, who gets it, and what becomes of what a member has not answered."""
import http.client
import json

import pytest

from packets import PUBACK, PUBCOMP, PUBREC, PUBREL, RECEIVE_MAXIMUM, SUBSCRIPTION, UNSUBACK
from sessions import Visit, payloads, put
from spindle import wait_until

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
GAPS = pytest.mark.parametrize('gap', ['away', 'stop', 'kill'])
QUALITIES = pytest.mark.parametrize('qos', [1, 2])
GROUP = b'$share/g/t/#'


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2}).start()


def pass_time(server, gap):
    if gap != 'away':
        server.stop() if gap == 'stop' else server.kill()
        server.start()


def begin(server, *names, version=5, qos=2, group=GROUP):
    """Members that have left."""
    for name in names:
        with Visit(server, name, version) as visit:
            assert visit.subscribe(group, qos=qos) == [qos]
            visit.leave()


def numbered(first, count):
    return [b'%04d' % i for i in range(first, first + count)]


def report(server):
    connection = http.client.HTTPConnection('127.0.0.1', server.http_port)
    connection.request('GET', '/api/v1/sessions')
    return json.loads(connection.getresponse().read())['sessions']


def resident(server):
    return server.metrics().get_sum('process_resident_memory_bytes')


def put_all(server, topic, contents):
    with Visit(server, b'', expiry=None, clean=True) as publisher:
        publisher.put_all([(topic, payload) for payload in contents], qos=2)


def groups(server):
    return [one for one in report(server) if 'group' in one]


# ---- while nobody is there ----

@VERSIONS
@GAPS
@QUALITIES
def test_what_came_while_all_were_away(server, version, gap, qos):
    """Waits for the group, and goes to whoever is there first."""
    begin(server, b'a', b'b', version=version, qos=qos)
    sent = numbered(0, 60)
    put(server, b't/1', *sent[:30], qos=qos)
    pass_time(server, gap)
    put(server, b't/1', *sent[30:], qos=qos)
    pass_time(server, gap)
    with Visit(server, b'b', version) as visit:
        assert visit.present == 1
        got = visit.take(60)
        assert payloads(got) == sent
        assert {(m.qos, m.dup, m.retain) for m in got} == {(qos, False, False)}
        visit.leave()
    with Visit(server, b'a', version) as visit:
        visit.quiet()
        put(server, b't/1', b'more', qos=qos)
        assert payloads(visit.take()) == [b'more']
        visit.quiet()


def test_what_the_group_waits_for_can_be_seen(server):
    begin(server, b'a')
    put(server, b't', *numbered(0, 7))
    with Visit(server, b'p') as other:
        assert [(one['group'], one['connected'], one['holds']['bus']) for one in groups(server)] == [(GROUP.decode(), False, 7)]
        other.leave()
    assert server.metrics().get_sum('spindle_bus_sessions') == 2  # the group is none of these


def test_the_lower_quality_and_the_identifier_of_the_member(server):
    with Visit(server, b'a') as a, Visit(server, b'b', 4) as b:
        a.subscribe(GROUP, qos=1, props=[(SUBSCRIPTION, 77)])
        b.subscribe(GROUP, qos=2)
        put(server, b't', *numbered(0, 10), qos=2)
        mine, theirs = a.take(5), b.take(5)
        assert {(m.qos, tuple(m.values(SUBSCRIPTION))) for m in mine} == {(1, (77,))}
        assert {m.qos for m in theirs} == {2}
        assert sorted(payloads(mine + theirs)) == numbered(0, 10)
        a.quiet()
        b.quiet()


# ---- what was not answered ----

@VERSIONS
@GAPS
def test_what_a_member_has_not_answered_goes_to_another(server, version, gap):
    begin(server, b'a', b'b', version=version, qos=1)
    with Visit(server, b'a', version) as a:
        put(server, b't', *numbered(0, 20))
        assert payloads(a.take_open(20)) == numbered(0, 20)
        a.reply(PUBACK, 3)
        a.quiet()
        a.cut()
    pass_time(server, gap)
    with Visit(server, b'b', version) as b:
        got = payloads(b.take_rest(server, b't', qos=1))
        assert got == numbered(0, 2) + numbered(3, 17) or (gap == 'kill' and got == numbered(0, 20))
        b.leave()
    with Visit(server, b'a', version) as a:
        a.quiet()


def test_it_goes_to_one_that_is_there_at_once(server):
    with Visit(server, b'b') as b:
        b.subscribe(GROUP, qos=1)
        with Visit(server, b'a') as a:
            a.subscribe(GROUP, qos=1)
            put(server, b't', *numbered(0, 10))
            mine = payloads(a.take_open(5))
            theirs = payloads(b.take(5))
            a.cut()
        assert payloads(b.take(5)) == mine and sorted(mine + theirs) == numbered(0, 10)
        put(server, b't', b'new')
        assert payloads(b.take()) == [b'new']


@GAPS
def test_it_comes_to_the_same_member_when_that_is_back_first(server, gap):
    begin(server, b'a', qos=1)
    for i in range(3):
        with Visit(server, b'a') as a:
            put(server, b't', b'%d' % i)
            assert payloads(a.take_open(i + 1)) == [b'%d' % each for each in range(i + 1)]
            a.cut()
        pass_time(server, gap)
    with Visit(server, b'a') as a:
        assert payloads(a.take(3)) == [b'0', b'1', b'2']
        a.quiet()


@VERSIONS
@GAPS
@pytest.mark.parametrize('step', ['publish', 'pubrec'])
def test_an_exchange_that_has_begun_is_finished_with_its_member(server, version, gap, step):
    begin(server, b'a', b'b', version=version)
    with Visit(server, b'a', version) as a:
        put(server, b't', *numbered(0, 3), qos=2)
        first = a.take_open(3)
        if step == 'pubrec':
            for message in first:
                a.reply(PUBREC, message.identifier)
                a.expect(PUBREL, message.identifier)
        a.cut()
    pass_time(server, gap)
    with Visit(server, b'b', version) as b:
        put(server, b't', b'new', qos=2)
        assert payloads(b.take()) == [b'new']
        b.quiet()
        b.leave()
    pass_time(server, gap)
    with Visit(server, b'a', version) as a:
        assert a.present == 1
        if step == 'pubrec':
            for message in first:
                a.expect(PUBREL, message.identifier)
                a.reply(PUBCOMP, message.identifier)
        else:
            again = a.take_open(3)
            assert [(m.payload, m.identifier, m.dup) for m in again] == [(m.payload, m.identifier, True) for m in first]
            for message in again:
                a.reply(PUBREC, message.identifier)
                a.expect(PUBREL, message.identifier)
                a.reply(PUBCOMP, message.identifier)
        a.quiet()
        a.leave()
    pass_time(server, gap)
    with Visit(server, b'a', version) as a, Visit(server, b'b', version) as b:
        a.packet(0xc0, b'')
        for first, _ in iter(a.next, (0xd0, b'')):
            assert gap == 'kill' and first >> 4 == PUBREL  # that it has answered may not have been on disk
        b.quiet()


def test_a_member_that_gets_the_same_message_alone_too(server):
    """Both copies, of which one is the group's, are finished after it was away."""
    with Visit(server, b'a') as a:
        a.subscribe(b't/#', GROUP, qos=2)
        put(server, b't', b'x', qos=2)
        first = a.take_open(2)
        a.cut()
    with Visit(server, b'a') as a:
        again = a.take(2)
        assert sorted((m.payload, m.identifier, m.dup) for m in again) == sorted((m.payload, m.identifier, True) for m in first)
        put(server, b't', b'y', qos=2)
        assert payloads(a.take(2)) == [b'y', b'y']
        a.quiet()


def test_its_session_ends_with_an_exchange(server):
    """Nobody else gets what has begun with QoS 2; QoS 1 goes on."""
    begin(server, b'b')
    with Visit(server, b'a') as a:
        a.subscribe(GROUP, qos=2)
        put(server, b't', b'begun', qos=2)
        put(server, b't', b'sent', qos=1)
        assert payloads(a.take_open(2)) == [b'begun', b'sent']
        a.cut()
    with Visit(server, b'a', clean=True, expiry=0) as a:
        a.leave()
    with Visit(server, b'b') as b:
        assert payloads(b.take()) == [b'sent']
        b.quiet()


# ---- members ----

def test_a_member_that_takes_one_at_a_time(server):
    with Visit(server, b'one', props=[(RECEIVE_MAXIMUM, 1)]) as one, Visit(server, b'two') as two:
        one.subscribe(GROUP, qos=1)
        two.subscribe(GROUP, qos=1)
        put(server, b't', *numbered(0, 200))
        first = one.message(acknowledge=False)
        got = payloads(two.take(199))
        assert sorted(got + [first.payload]) == numbered(0, 200)
        one.quiet()
        one.reply(PUBACK, first.identifier)
        put(server, b't', b'x', b'y')
        assert sorted(payloads(one.take() + two.take())) == [b'x', b'y']


def test_none_has_room(server):
    """The group falls behind, and publishers do not wait; whoever has room first goes on."""
    one_at_a_time = [(RECEIVE_MAXIMUM, 1)]
    with Visit(server, b'one', props=one_at_a_time) as one, Visit(server, b'two', props=one_at_a_time) as two:
        one.subscribe(GROUP, qos=1)
        two.subscribe(GROUP, qos=1)
        with Visit(server, b'p', expiry=None) as publisher:
            publisher.put_all((b't', payload + b'.' * 8000) for payload in numbered(0, 4000))
        stuck = two.message(acknowledge=False)
        got = [payload[:4] for payload in payloads(one.take(3999))]
        assert got == sorted(got) and sorted(got + [stuck.payload[:4]]) == numbered(0, 4000)
        two.cut()
        assert one.message().payload == stuck.payload
        one.quiet()


@VERSIONS
def test_takeover(server, version):
    begin(server, b'a', version=version, qos=1)
    first = Visit(server, b'a', version)
    put(server, b't', *numbered(0, 5))
    assert payloads(first.take_open(5)) == numbered(0, 5)
    with Visit(server, b'a', version) as second:
        assert payloads(second.take(5)) == numbered(0, 5)
        put(server, b't', b'new')
        assert payloads(second.take()) == [b'new']
        second.quiet()
    first.close()


def test_members_that_are_clean_share_with_the_others(server):
    """Each message goes to one; what waited while only the session was there, and what a clean one has not answered, is not lost."""
    begin(server, b'a', qos=1)
    put(server, b't', b'waits')
    with Visit(server, b'c', expiry=None, clean=True) as clean:
        clean.subscribe(GROUP, qos=1)
        assert payloads(clean.take()) == [b'waits']
        with Visit(server, b'a') as a:
            put(server, b't', *numbered(0, 20))
            mine, theirs = payloads(a.take(10)), payloads(clean.take_open(10))
            assert sorted(mine + theirs) == numbered(0, 20)
            clean.cut()
            assert payloads(a.take(10)) == theirs
            a.quiet()


def test_a_clean_member_that_was_there_before(server):
    with Visit(server, b'c', expiry=None, clean=True) as clean, Visit(server, b'a') as a:
        clean.subscribe(GROUP, qos=1)
        put(server, b't', b'live')
        assert payloads(clean.take()) == [b'live']
        a.subscribe(GROUP, b'fence', qos=1)
        put(server, b't', *numbered(0, 20))
        mine = a.take_rest(server, b'fence')
        assert len(mine) < 20 and sorted(payloads(mine + clean.take(20 - len(mine)))) == numbered(0, 20)
        a.unsubscribe(GROUP)
        a.expect(UNSUBACK, 1, 0)
        put(server, b't', *numbered(20, 20))
        assert payloads(clean.take(20)) == numbered(20, 20)
        assert groups(server) == []
        a.quiet()
        clean.quiet()


def test_quality_0_is_live(server):
    begin(server, b'a')
    with Visit(server, b'p') as publisher:
        publisher.put(b't', b'lost', 0)
        publisher.put(b'none', b'')  # behind it
    with Visit(server, b'a') as a:
        put(server, b't', b'live', qos=0)
        assert payloads(a.take()) == [b'live']
        a.quiet()


def test_members_of_another_name_and_who_is_alone_get_all_of_it(server):
    begin(server, b'a')
    begin(server, b'b', group=b'$share/h/t/#')
    begin(server, b'c', group=b't/#')
    put(server, b't', *numbered(0, 10), qos=2)
    for name in (b'a', b'b', b'c'):
        with Visit(server, name) as visit:
            assert payloads(visit.take(10)) == numbered(0, 10)
            visit.quiet()


# ---- the end ----

@GAPS
def test_the_last_one_unsubscribes(server, gap):
    begin(server, b'a', b'b')
    put(server, b't', b'old')
    with Visit(server, b'a') as a:
        assert payloads(a.take()) == [b'old']
        a.unsubscribe(GROUP)
        a.expect(UNSUBACK, 1, 0)
        put(server, b't', b'waits')
        a.quiet()
        a.leave()
    assert len(groups(server)) == 1
    with Visit(server, b'b') as b:
        b.unsubscribe(GROUP)
        wait_until(lambda: groups(server) == [], 'the end of the group')
        b.leave()
    put(server, b't', b'nobody')
    pass_time(server, gap)
    assert groups(server) == []
    begin(server, b'a')
    put(server, b't', b'new')
    with Visit(server, b'a') as a:
        assert payloads(a.take()) == [b'new']
        a.quiet()


def test_what_was_sent_before_unsubscribe_may_be_finished(server):
    """It goes to another only with the end of the connection."""
    with Visit(server, b'b') as b:
        with Visit(server, b'a') as a:
            a.subscribe(GROUP, qos=1)
            put(server, b't', b'1', b'2')
            first, second = a.take_open(2)
            b.subscribe(GROUP, qos=1)
            a.unsubscribe(GROUP)
            a.expect(UNSUBACK, 1, 0)
            put(server, b't', b'new')
            assert payloads(b.take()) == [b'new']
            a.reply(PUBACK, first.identifier)
            a.quiet()
            b.quiet()
            a.cut()
        assert payloads(b.take()) == [second.payload]
        b.quiet()


def test_the_last_session_ends(server):
    begin(server, b'a')
    with Visit(server, b'a', clean=True, expiry=None) as a:
        wait_until(lambda: groups(server) == [], 'the end of the group')
        put(server, b't', b'nobody')
        a.quiet()


# ---- room ----

@pytest.mark.parametrize('shared', [False, True], ids=['plain', 'shared'])
def test_what_waits_for_the_group_is_not_in_the_way_of_what_comes_again(server, shared):
    """A window of unanswered messages, more than may wait for a client at a time, and as much behind it."""
    own = GROUP if shared else b'own/#'
    topic = b't/1' if shared else b'own/1'
    count, payload = 6000, bytes(1500)
    with Visit(server, b'a') as visit:
        assert visit.subscribe(own, GROUP, qos=2) == [2, 2]
        put_all(server, topic, [b'%d ' % i + payload for i in range(5000)])
        unanswered = visit.take_open(4096)
        assert len({message.identifier for message in unanswered}) == 4096
        visit.cut()
    put_all(server, b't/1', [b'%d ' % i + payload for i in range(5000, count)])
    with Visit(server, b'a') as visit:
        messages, _ = visit.collect(lambda messages, others: len(messages) >= count)
    assert sorted(int(message.payload.split()[0]) for message in messages) == list(range(count))
    assert sum(message.dup for message in messages) == 4096


def test_one_client_in_many_groups_has_the_room_of_one(spindle):
    server = spindle(settings={'bus.threads': 2, 'bus.outgoing_size_max': '1MiB'}).start()
    count = 300
    with Visit(server, b'a') as visit:
        for start in range(0, count, 50):
            assert visit.subscribe(*[b'$share/g%d/t/#' % i for i in range(start, start + 50)], qos=1) == [1] * 50
        before = resident(server)
        put(server, b't/1', bytes(1 << 20))
        most = 0
        for _ in range(count):
            visit.message()
            most = max(most, resident(server) - before)
        assert most < 64 << 20
