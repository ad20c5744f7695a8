"""What a session has waiting when its client comes back: what came meanwhile, and what was not answered; while the server ran all the time,
and when it was stopped or killed in between. After a kill what was answered with QoS 1 may come again."""
import time

import pytest

from client import V5
from holes import ANSWERS, Hole
from packets import (CONTENT_TYPE, CORRELATION, DISCONNECT, EXPIRY, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, RECEIVE_MAXIMUM, RESPONSE_TOPIC,
                     SUBSCRIPTION, USER, Message)
from sessions import Visit, payloads, put

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
GAPS = pytest.mark.parametrize('gap', ['away', 'stop', 'kill'])
NO_LOCAL, AS_PUBLISHED = 4, 8
REFUSED = 0x83
QUIET = {'bus.threads': 2}


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings=QUIET).start()


def pass_time(server, gap):
    """While a client is away: nothing, or the server is stopped or killed and started again."""
    if gap != 'away':
        server.stop() if gap == 'stop' else server.kill()
        server.start()


def begin(server, version, *filters, qos=2, **options):
    """A session with these subscriptions, whose client has left."""
    with Visit(server, b'c', version) as visit:
        visit.subscribe(*filters, qos=qos, **options)
        visit.leave()


# ---- what came meanwhile ----

@VERSIONS
@GAPS
@pytest.mark.parametrize('subscribed, published', [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_what_came_meanwhile(server, version, gap, subscribed, published):
    """In the order of each topic, with the lower quality, once, and as the first time."""
    begin(server, version, b'a/#', b'b/+', qos=subscribed)
    topics = [b'a', b'a/1', b'b/2']
    sent = [(topics[i % 3], b'%d' % i) for i in range(60)]
    for part in (sent[:30], sent[30:]):
        with Visit(server, b'p', version) as publisher:
            publisher.put_all(part, published)
            publisher.put(b'none', b'', published)
        pass_time(server, gap)
    with Visit(server, b'c', version) as visit:
        assert visit.present == 1
        got = visit.take_rest(server, b'a')
        assert {(m.qos, m.dup, m.retain) for m in got} == {(min(subscribed, published), False, False)}
        for topic in topics:
            assert [m.payload for m in got if m.topic == topic] == [p for t, p in sent if t == topic]
        assert len(got) == len(sent)
        visit.leave()
    with Visit(server, b'c', version) as visit:
        assert visit.take_rest(server, b'a') == []


@GAPS
def test_it_is_as_it_was_published(server, gap):
    """Properties in their order, payloads of any size, the topic to the byte."""
    begin(server, 5, b'#')
    told = [(0x01, 1), (CONTENT_TYPE, b'text/plain'), (RESPONSE_TOPIC, b'r'), (CORRELATION, b'\0\1'), (USER, (b'b', b'1')),
            (USER, (b'a', b'2')), (USER, (b'b', b'1'))]
    topics = [b'/', b'a//b', b'\xef\xbb\xbf', 'Zür/ich'.encode()]
    put(server, b't', b'', 'ü'.encode(), b'x' * 300000, props=told)
    for topic in topics:
        put(server, topic, topic)
    pass_time(server, gap)
    with Visit(server, b'c') as visit:
        got = visit.take_rest(server, b't')
        assert payloads(got) == [b'', 'ü'.encode(), b'x' * 300000] + topics
        assert [m.properties for m in got] == [told] * 3 + [[]] * len(topics)
        assert [m.topic for m in got[3:]] == topics


@GAPS
@pytest.mark.parametrize('options, retain', [(0, False), (AS_PUBLISHED, True)])
def test_the_retain_flag_is_kept_for_who_wants_it(server, gap, options, retain):
    begin(server, 5, b't', qos=1, options=options)
    put(server, b't', b'kept', retain=True)
    put(server, b't', b'plain')
    pass_time(server, gap)
    with Visit(server, b'c') as visit:
        assert [(m.payload, m.retain) for m in visit.take_rest(server, b't')] == [(b'kept', retain), (b'plain', False)]


@GAPS
def test_overlapping_subscriptions_give_one_copy(server, gap):
    """With the highest quality, and the identifiers of all."""
    with Visit(server, b'c') as visit:
        visit.subscribe(b't/#', qos=1, props=[(SUBSCRIPTION, 3)])
        visit.subscribe(b't/+', qos=2, props=[(SUBSCRIPTION, 500000)])
        visit.subscribe(b't/0', qos=0, props=[(SUBSCRIPTION, 7)])
        visit.subscribe(b't/1', qos=1)
        visit.subscribe(b'fence', qos=2)
        visit.leave()
    for topic in (b't/0', b't/1', b't/1/2'):
        put(server, topic, topic, qos=2)
    pass_time(server, gap)
    with Visit(server, b'c') as visit:
        got = [(m.topic, m.qos, sorted(m.values(SUBSCRIPTION))) for m in visit.take_rest(server, b'fence')]
        assert sorted(got) == [(b't/0', 2, [3, 7, 500000]), (b't/1', 2, [3, 500000]), (b't/1/2', 1, [3])]


@GAPS
@pytest.mark.parametrize('qos', [1, 2])
def test_own_messages_do_not_come_back_where_they_are_not_wanted(server, gap, qos):
    """No local holds for what was published before the client left, too."""
    with Visit(server, b'c') as visit:
        visit.subscribe(b't', qos=2, options=NO_LOCAL)
        visit.subscribe(b'fence', qos=2)
        visit.put(b't', b'mine', qos)
        visit.leave()
    put(server, b't', b'from another', qos=qos)
    pass_time(server, gap)
    with Visit(server, b'c') as visit:
        assert payloads(visit.take_rest(server, b'fence')) == [b'from another']
        visit.put(b't', b'mine again', qos)
        visit.leave()
    pass_time(server, gap)
    with Visit(server, b'c') as visit:
        again = [m for m in visit.take_rest(server, b'fence') if m.topic == b't']
        assert again == [] or (qos, gap) == (1, 'kill') and payloads(again) == [b'from another']


@GAPS
def test_message_expiry_is_counted_down_while_a_client_is_away(server, gap):
    begin(server, 5, b't', qos=1)
    put(server, b't', b'first', props=[(EXPIRY, 1000)])
    put(server, b't', b'short', props=[(EXPIRY, 1)])
    put(server, b't', b'plain')
    pass_time(server, gap)
    time.sleep(2.1)  # the time itself is what is tested
    with Visit(server, b'c') as visit:
        got = visit.take_rest(server, b't')
        assert payloads(got) == [b'first', b'plain'] and not got[1].properties
        [left] = got[0].values(EXPIRY)
        assert 1000 - 60 < left <= 998


@VERSIONS
def test_what_has_expired_does_not_reach_3_1_1_either(server, version):
    begin(server, version, b't', qos=2)
    put(server, b't', b'short', qos=2, props=[(EXPIRY, 1)])
    put(server, b't', b'plain', qos=2)
    time.sleep(2.1)
    with Visit(server, b'c', version) as visit:
        assert payloads(visit.take_rest(server, b't')) == [b'plain']


@GAPS
def test_results_of_the_pipeline_wait_too(spindle, connect, gap):
    server = spindle(settings={'drilling.estimator': 'gradient', 'mqtt.listener.time_window': 120}).start()
    begin(server, 5, *[topic.encode() for topic in ANSWERS], b'OPCPUBSUB/+/+/ResultManagement', b'fence', qos=1)
    holes = [Hole() for _ in range(5)]
    connect(server).publish_all([message for hole in holes for message in hole.messages()])
    server.wait_settled(3 * len(holes))
    pass_time(server, gap)
    with Visit(server, b'c') as visit:
        got = visit.take(3 * len(holes))
        for hole in holes:
            assert len([m for m in got if m.topic.startswith(b'OPCPUBSUB/' + hole.key.encode())]) == 3
        assert visit.take_rest(server, b'fence') == []


@VERSIONS
@GAPS
def test_what_was_published_before_a_subscription_does_not_come(server, version, gap):
    put(server, b't', b'before')
    begin(server, version, b't', b'u', qos=1)
    put(server, b't', b'after')
    with Visit(server, b'c', version) as visit:
        visit.unsubscribe(b'u', identifier=4)
        assert [m.payload for m in visit.collect(lambda _, others: others)[0]] in ([], [b'after'])
        put(server, b'u', b'between')
        visit.subscribe(b'u', qos=1)
        visit.take_rest(server, b't')
        visit.leave()
    pass_time(server, gap)
    with Visit(server, b'c', version) as visit:
        again = visit.take_rest(server, b'u')
        assert again == [] or gap == 'kill' and {m.topic for m in again} == {b't'}


# ---- what was not answered ----

def flags(messages):
    return [(m.payload, m.dup, m.identifier) for m in messages]


@VERSIONS
@GAPS
@pytest.mark.parametrize('answered', [[], [0], [0, 1, 2], [1, 3], [4]])
def test_qos_1_without_puback_comes_again(server, version, gap, answered):
    """With DUP and its identifier, in its order, before what is new. Who was killed may not know all that was answered, or sent."""
    with Visit(server, b'c', version) as visit:
        visit.subscribe(b't', qos=1)
        put(server, b't', *[b'%d' % i for i in range(5)])
        first = visit.take_open(5)
        for i in answered:
            visit.reply(PUBACK, first[i].identifier)
        visit.quiet()
        visit.cut()
    put(server, b't', b'new')
    left = [m for i, m in enumerate(first) if i not in answered]
    for _ in range(2):
        pass_time(server, gap)
        with Visit(server, b'c', version) as visit:
            assert visit.present == 1
            if gap == 'kill':
                got = []
                while b'new' not in payloads(got):
                    got += visit.take_open(1)
                assert payloads(got) == [m.payload for m in first if m in left or m.payload in payloads(got)] + [b'new']
            else:
                got = visit.take_open(len(left) + 1)
                assert flags(got[:-1]) == [(m.payload, True, m.identifier) for m in left]
                assert got[-1].payload == b'new' and got[-1].identifier not in [m.identifier for m in left]
            visit.cut()
    with Visit(server, b'c', version) as visit:
        assert {b'new', *payloads(left)} <= set(payloads(visit.take_rest(server, b't')))
        visit.leave()
    with Visit(server, b'c', version) as visit:
        assert visit.take_rest(server, b't') == []


def open_exchanges(visit, server):
    """Three messages of QoS 2: one of them waits for PUBCOMP, one for PUBREL to be answered, the last for PUBREC. Returns them."""
    visit.subscribe(b't', qos=2)
    put(server, b't', b'0', b'1', b'2', b'3', qos=2)
    messages = visit.take_open(4)
    for message in messages[:3]:
        visit.reply(PUBREC, message.identifier)
    for message in messages[:3]:
        assert visit.answer()[:2] == (PUBREL, message.identifier)
    visit.reply(PUBCOMP, messages[0].identifier)
    visit.quiet()
    return messages


def gather(visit, count):
    """The next `count` packets: (PUBLISH packets, identifiers of PUBRELs), each in their order."""
    messages, released = [], []
    for _ in range(count):
        first, body = visit.next()
        if first >> 4 == PUBLISH:
            messages.append(Message(first, body, visit.version))
        else:
            assert first == 0x62, first
            released.append(int.from_bytes(body[:2], 'big'))
    return messages, released


@VERSIONS
@GAPS
def test_qos_2_goes_on_where_it_was(server, version, gap):
    """PUBLISH with DUP until PUBREC, PUBREL until PUBCOMP, and nothing afterwards; however often the connection is cut."""
    with Visit(server, b'c', version) as visit:
        messages = open_exchanges(visit, server)
        visit.cut()
    put(server, b't', b'new', qos=2)
    for _ in range(2):
        pass_time(server, gap)
        with Visit(server, b'c', version) as visit:
            got, released = gather(visit, 4)
            assert released == [m.identifier for m in messages[1:3]]
            assert flags(got[:1]) == [(b'3', True, messages[3].identifier)]
            assert got[1].payload == b'new' and got[1].identifier not in [m.identifier for m in messages[1:]]
            visit.cut()
    pass_time(server, gap)
    with Visit(server, b'c', version) as visit:
        got, released = gather(visit, 4)
        for identifier in released:
            visit.reply(PUBCOMP, identifier)
        for message in got:
            visit.reply(PUBREC, message.identifier)
        for message in got:
            assert visit.answer()[:2] == (PUBREL, message.identifier)
            visit.reply(PUBCOMP, message.identifier)
        assert payloads(got) == [b'3', b'new']
        assert visit.take_rest(server, b't') == []
        visit.leave()
    pass_time(server, gap)
    with Visit(server, b'c', version) as visit:
        assert visit.take_rest(server, b't') == []


@VERSIONS
@GAPS
def test_a_pubrec_that_was_not_answered_counts(server, version, gap):
    """Where it has arrived the message is not sent again; where it has not it is, under its identifier. Either way it is there once."""
    seen = []
    with Visit(server, b'c', version) as visit:
        visit.subscribe(b't', qos=2)
        visit.leave()
    for i in range(10):
        put(server, b't', b'%d' % i, qos=2)
        with Visit(server, b'c', version) as visit:
            [message] = visit.take_open(1)
            seen.append(message.payload)
            visit.reply(PUBREC, message.identifier)
            visit.close()  # at once
        if i % 5 == 0:
            pass_time(server, gap)
        with Visit(server, b'c', version) as visit:
            released = []
            while released != [message.identifier]:
                again, released = gather(visit, 1)
                assert flags(again) in ([], [(message.payload, True, message.identifier)])
                visit.reply(PUBREC if again else PUBCOMP, again[0].identifier if again else released[0])
                # Who was killed may ask for the PUBCOMP of an older one again.
                assert again or gap == 'kill' or released == [message.identifier]
            visit.quiet()
            visit.leave()
    assert seen == [b'%d' % i for i in range(10)]


@GAPS
@pytest.mark.parametrize('qos', [1, 2])
def test_a_refusal_is_an_answer(server, gap, qos):
    """A PUBACK or PUBREC of 0x80 and above: the message does not come again."""
    with Visit(server, b'c') as visit:
        visit.subscribe(b't', qos=qos)
        put(server, b't', b'refused', qos=qos)
        [message] = visit.take_open(1)
        visit.reply(PUBACK if qos == 1 else PUBREC, message.identifier, REFUSED)
        assert visit.take_rest(server, b't') == []
        visit.leave()
    pass_time(server, gap)
    with Visit(server, b'c') as visit:
        assert visit.take_rest(server, b't') == [] or (qos, gap) == (1, 'kill')


@GAPS
@pytest.mark.parametrize('qos', [1, 2])
def test_the_receive_maximum_holds_for_who_comes_back(server, gap, qos):
    """Less than what is not answered: it comes little by little, in its order."""
    with Visit(server, b'c') as visit:
        visit.subscribe(b't', qos=qos)
        put(server, b't', *[b'%d' % i for i in range(10)], qos=qos)
        first = visit.take_open(10)
        visit.cut()
    put(server, b't', b'new', qos=qos)
    pass_time(server, gap)
    with Visit(server, b'c', props=[(RECEIVE_MAXIMUM, 3)]) as visit:
        got = visit.take_open(3)
        visit.quiet()
        for i in range(8):
            visit.reply(PUBACK if qos == 1 else PUBREC, got[i].identifier)
            if qos == 2:
                visit.expect(PUBREL, got[i].identifier)
                visit.quiet()  # PUBREC makes no room
                visit.reply(PUBCOMP, got[i].identifier)
            got += visit.take_open(1)
            visit.quiet()
        assert payloads(got) == payloads(first) + [b'new']
        if qos == 2 or gap != 'kill':
            assert flags(got[:10]) == [(m.payload, True, m.identifier) for m in first]
        assert not got[10].dup
        visit.cut()
    with Visit(server, b'c', props=[(RECEIVE_MAXIMUM, 1)]) as visit:
        left = visit.take_rest(server, b't', qos)
        assert payloads(left)[-3:] == [b'8', b'9', b'new'] and (qos == 1 or len(left) == 3)


@GAPS
def test_identifiers_of_what_is_unanswered_are_not_given_again(server, gap):
    """While messages come and go all identifiers are gone through, but for those of two that wait: others each time."""
    held = []
    with Visit(server, b'c') as visit:
        visit.subscribe(b't', qos=2)
        visit.leave()
    for i in range(20):
        with Visit(server, b'c') as visit:
            again = visit.take_open(len(held))
            assert sorted(payloads(again)) == sorted(payloads(held))
            assert gap == 'kill' or {m.identifier for m in again} == {m.identifier for m in held}
            put(server, b't', b'two', qos=2)
            put(server, b't', b'one', qos=1)
            held = visit.take_open(2)
            for message in again:
                visit.reply(PUBACK if message.qos == 1 else PUBREC, message.identifier)
                if message.qos == 2:
                    visit.expect(PUBREL, message.identifier)
                    visit.reply(PUBCOMP, message.identifier)
            taken = {m.identifier for m in held}
            assert len(taken) == 2 and not taken & {m.identifier for m in again}
            with Visit(server, b'p') as publisher:
                for _ in range(2):
                    publisher.put_all([(b't', b'')] * 1800)
                    assert not taken & {m.identifier for m in visit.take(1800)}
            visit.quiet()
            visit.cut()
        if i % 8 == 3:
            put(server, b'nobody', b'1', b'2')  # what has left is on disk then, and with it what was answered
            pass_time(server, gap)


# ---- what the client itself had begun ----

@VERSIONS
@GAPS
def test_a_publish_of_qos_2_is_one_message_however_often_it_is_sent(server, version, gap):
    with Visit(server, b'w', version) as witness:
        witness.subscribe(b't', qos=2)
        witness.leave()
    for identifier in (1, 65535):
        with Visit(server, b'c', version) as visit:
            visit.publish(b't', b'%d' % identifier, 2, identifier)
            visit.expect(PUBREC, identifier)
            visit.cut()
        pass_time(server, gap)
        for _ in range(2):
            with Visit(server, b'c', version) as visit:
                assert visit.present == 1
                visit.publish(b't', b'%d' % identifier, 2, identifier, dup=True)
                visit.expect(PUBREC, identifier)
                visit.cut()
        with Visit(server, b'c', version) as visit:
            visit.reply(PUBREL, identifier)
            visit.expect(PUBCOMP, identifier)
            visit.publish(b't', b'next %d' % identifier, 2, identifier)  # it is free again
            visit.expect(PUBREC, identifier)
            visit.cut()
        pass_time(server, gap)
        with Visit(server, b'c', version) as visit:
            visit.reply(PUBREL, identifier)
            visit.expect(PUBCOMP, identifier)
    with Visit(server, b'w', version) as witness:
        assert payloads(witness.take_rest(server, b't')) == [b'1', b'next 1', b'65535', b'next 65535']


@VERSIONS
@GAPS
def test_a_pubcomp_is_the_end(server, version, gap):
    """After it the identifier is a new message's, also where DUP is set."""
    begin(server, version, b't')
    with Visit(server, b'p', version) as visit:
        visit.put(b't', b'one', 2, 5)
        visit.cut()
    pass_time(server, gap)
    with Visit(server, b'p', version) as visit:
        visit.reply(PUBREL, 5)  # the PUBCOMP could have been lost
        visit.expect(PUBCOMP, 5, 0, 0x92)
        visit.publish(b't', b'two', 2, 5, dup=True)
        visit.expect(PUBREC, 5)
        visit.reply(PUBREL, 5)
        visit.expect(PUBCOMP, 5)
    with Visit(server, b'c', version) as visit:
        assert payloads(visit.take_rest(server, b't')) == [b'one', b'two']


@VERSIONS
@GAPS
def test_a_publish_whose_pubrec_was_not_waited_for_is_one_message(server, version, gap):
    """It may have arrived or not; who sends it again has published it once."""
    begin(server, version, b't')
    with Visit(server, b'p', version) as visit:
        visit.put(b't', b'first', 2)
    for i in range(12):
        with Visit(server, b'p', version) as visit:
            assert visit.present == 1
            visit.publish(b't', b'%d' % i, 2, i % 3 + 1)
            visit.close() if i % 2 else None
        if i % 4 == 1:
            pass_time(server, gap)
        with Visit(server, b'p', version) as visit:
            assert visit.present == 1
            visit.publish(b't', b'%d' % i, 2, i % 3 + 1, dup=True)
            visit.expect(PUBREC, i % 3 + 1)
            visit.reply(PUBREL, i % 3 + 1)
            visit.expect(PUBCOMP, i % 3 + 1)
    with Visit(server, b'c', version) as visit:
        assert payloads(visit.take_rest(server, b't')) == [b'first'] + [b'%d' % i for i in range(12)]


@VERSIONS
@GAPS
def test_a_publish_of_qos_1_may_be_sent_again(server, version, gap):
    """At least once: the repeat is delivered too, or is not."""
    begin(server, version, b't')
    with Visit(server, b'p', version) as visit:
        visit.publish(b't', b'x', 1, 9)
    pass_time(server, gap)
    with Visit(server, b'p', version) as visit:
        visit.publish(b't', b'x', 1, 9, dup=True)
        visit.expect(PUBACK, 9)
    with Visit(server, b'c', version) as visit:
        assert payloads(visit.take_rest(server, b't')) in ([b'x'], [b'x'] * 2)


def test_the_server_takes_as_much_again_from_who_comes_back(spindle):
    """Its receive maximum is counted anew with each connection."""
    server = spindle(settings={'bus.receive_maximum': 2}).start()
    with Visit(server, b'c') as visit:
        for identifier in (1, 2):
            visit.publish(b't', b'x', 2, identifier)
            visit.expect(PUBREC, identifier)
        visit.cut()
    with Visit(server, b'c') as visit:
        for identifier in (3, 4):
            visit.publish(b't', b'x', 2, identifier)
            visit.expect(PUBREC, identifier)
        visit.publish(b't', b'x', 2, 5)
        assert visit.answer()[0::2][:2] == (DISCONNECT, 0x93)


# ---- who is slow, and who comes and goes ----

@VERSIONS
@pytest.mark.parametrize('qos', [1, 2])
def test_who_is_slow_holds_nobody_back(spindle, connect, version, qos):
    """A session that takes nothing is read for when it does; a subscriber without one beside it gets everything at once."""
    server = spindle(settings={'bus.threads': 1, 'bus.outgoing_size_max': '256KiB', 'bus.stall_timeout_s': 3600}).start()
    sent = [b'%05d' % i + b'.' * 4000 for i in range(4000)]
    with Visit(server, b'c', version) as slow:
        slow.subscribe(b't', qos=qos)
        able = connect(server, version=V5)
        able.subscribe('t', qos=qos)
        with Visit(server, b'p', version) as publisher:
            publisher.put_all([(b't', payload) for payload in sent], qos)
        assert [m.payload for m in able.take(len(sent))] == sent
        assert [m.payload for m in slow.take(len(sent))] == sent
        assert slow.take_rest(server, b't') == []


@VERSIONS
@pytest.mark.parametrize('qos', [1, 2])
def test_who_comes_and_goes_misses_nothing(server, version, qos):
    """Each message in order, and of QoS 2 once, whatever was under way when the connection was cut."""
    count, numbers = 3000, []
    begin(server, version, b't', qos=qos)
    with Visit(server, b'p', version) as publisher:
        for start in range(0, count, 100):
            publisher.put_all([(b't', b'%d' % i) for i in range(start, start + 100)], qos)
            with Visit(server, b'c', version) as visit:
                numbers += [int(m.payload) for m in visit.take(70)]
                visit.cut() if start % 200 else visit.leave()
    with Visit(server, b'c', version) as visit:
        numbers += [int(m.payload) for m in visit.take_rest(server, b't')]
    assert (numbers if qos == 2 else list(dict.fromkeys(numbers))) == list(range(count))


def test_a_session_in_memory(spindle):
    """With `data.durability: memory` a session waits for nothing either."""
    server = spindle(settings={'data.durability': 'memory'}).start()
    begin(server, 5, b't')
    put(server, b't', b'1', b'2', qos=2)
    with Visit(server, b'c') as visit:
        assert visit.present == 1 and payloads(visit.take_rest(server, b't')) == [b'1', b'2']
        visit.leave()
    server.stop()
    server.start()
    with Visit(server, b'c') as visit:
        assert visit.present == 1 and visit.take_rest(server, b't') == []


def test_a_message_larger_than_the_client_takes_is_passed_over(server):
    begin(server, 5, b't')
    put(server, b't', b'1', b'x' * 2000, b'2', qos=1)
    with Visit(server, b'c', props=[(0x27, 1000)]) as visit:
        assert payloads(visit.take_rest(server, b't')) == [b'1', b'2']
        visit.leave()
    with Visit(server, b'c') as visit:
        assert visit.take_rest(server, b't') == []
