"""Sessions through stops and kills of the server: what was confirmed holds, nothing is lost, nothing of QoS 2 comes twice; and many of them."""
import random
import re
import socket
import threading
import time

import pytest

from packets import DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SESSION_EXPIRY, UNSUBACK, Message
from sessions import FOREVER, Visit, has_session, payloads, put
from spindle import DEADLINE_S, SANITIZED, wait_until
from wire import GOODBYE, Wire, connect, subscribe

VERSIONS = pytest.mark.parametrize('version', [4, 5], ids=['3.1.1', '5.0'])
ENDS = pytest.mark.parametrize('end', ['stop', 'kill'])


@pytest.fixture
def server(spindle):
    """Two network threads, to which connections are dealt in turn."""
    return spindle(settings={'bus.threads': 2}).start()


def restart(server, end):
    server.stop() if end == 'stop' else server.kill()
    server.start()


# ---- what was confirmed ----

@VERSIONS
@ENDS
def test_a_subscription_that_was_confirmed_is_there(server, version, end):
    """The server ends as soon as the SUBACK is here; an UNSUBACK says as much."""
    for i in range(4):
        with Visit(server, b'c', version) as visit:
            assert visit.present == (i > 0)
            visit.subscribe(b't/%d' % i, b'gone/%d' % i, b'fence', qos=1)
            restart(server, end)
        with Visit(server, b'c', version) as visit:
            assert visit.present == 1
            visit.unsubscribe(b'gone/%d' % i)
            visit.expect(UNSUBACK, 1, *[0] if version == 5 else [])
            restart(server, end)
    for i in range(4):
        put(server, b't/%d' % i, b'%d' % i)
        put(server, b'gone/%d' % i, b'gone')
    with Visit(server, b'c', version) as visit:
        assert visit.present == 1
        assert payloads(visit.take_rest(server, b'fence')) == [b'0', b'1', b'2', b'3']


@VERSIONS
@ENDS
def test_a_change_of_a_subscription_is_there(server, version, end):
    """Its quality; the rest of a session that was ended is not."""
    with Visit(server, b'c', version) as visit:
        visit.subscribe(b't', qos=1)
        visit.subscribe(b'old', qos=1)
        restart(server, end)
    with Visit(server, b'c', version, clean=True) as visit:
        assert visit.present == 0
        visit.leave()
    with Visit(server, b'c', version) as visit:
        assert visit.present == (version == 5)
        visit.subscribe(b't', qos=1)
        visit.subscribe(b't', qos=2)
        restart(server, end)
    put(server, b'old', b'x')
    put(server, b't', b'y', qos=2)
    with Visit(server, b'c', version) as visit:
        assert [(m.payload, m.qos) for m in visit.take_rest(server, b't')] == [(b'y', 2)]


@VERSIONS
@ENDS
def test_what_was_acknowledged_to_a_publisher_is_not_lost(server, version, end):
    """The server ends as soon as the last answer is here, while the session's client is connected, and takes nothing."""
    with Visit(server, b'c', version) as visit, Visit(server, b'away', version) as away:
        visit.subscribe(b't', b'c', qos=1)
        away.subscribe(b't', b'away', qos=1)
        away.leave()
        put(server, b't', *[b'%d' % i for i in range(100)])
        restart(server, end)
    put(server, b't', b'after')
    for name in (b'c', b'away'):
        with Visit(server, name, version) as visit:
            got = payloads(visit.take_rest(server, name))
            assert got == [b'%d' % i for i in range(100)] + [b'after']


@ENDS
def test_time_goes_on(server, end):
    """A session may end while the server is down, or soon after; one that has time left is there."""
    for i, expiry in enumerate((1, 1000, FOREVER)):
        with Visit(server, b'%d' % i, expiry=expiry) as visit:
            visit.subscribe(b't', qos=1)
            visit.leave()
    restart(server, end)
    assert [has_session(server, b'%d' % i) for i in (1, 2)] == [True, True]
    for pause in (1.2, 2.4, 4.8, 9.6):  # who asks goes on with it, so that its time begins anew
        time.sleep(pause)
        if not has_session(server, b'0', expiry=1):
            return
    raise AssertionError('the session does not end')


@ENDS
def test_a_session_that_was_not_to_be_kept_is_not(server, end):
    with Visit(server, b'4', 4, clean=True) as old, Visit(server, b'5', expiry=0) as new, Visit(server, b'6') as third:
        for visit in (old, new, third):
            visit.subscribe(b't', qos=1)
        third.leave(props=[(SESSION_EXPIRY, 0)])
        put(server, b't', b'x')
        restart(server, end)
    for name, version in ((b'4', 4), (b'5', 5), (b'6', 5)):
        assert not has_session(server, name, version), name


# ---- kills in the midst of it ----

class Party(threading.Thread):
    """A client that remembers, over any number of connections, what the standard has it remember."""

    def __init__(self, server, name, version, qos):
        super().__init__(daemon=True)
        self.server, self.client_id, self.version, self.qos = server, name, version, qos
        self.visits, self.failure, self.visit = 0, None, None
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set() and self.failure is None:
            try:
                with Visit(self.server, self.client_id, self.version, FOREVER) as visit:
                    self.visit = visit
                    assert visit.present or not self.visits, 'the session is lost'
                    self.visits += 1
                    self.talk(visit)
            except OSError:  # the server is down
                time.sleep(0.005)
            except AssertionError as failure:
                self.failure = failure

    def cut(self):
        try:
            self.visit.socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is down already
            pass

    def finish(self):
        self.join(2 * DEADLINE_S)
        assert self.failure is None, self.failure
        assert not self.is_alive()


class Publisher(Party):
    """Publishes 0, 1, 2… until it is told to stop; at most WINDOW of them wait for an answer, under few identifiers."""
    WINDOW, IDENTIFIERS = 20, 30

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.count, self.finished, self.stopping = 0, 0, False
        self.open = {}  # packet identifier -> [number, PUBREC has come], in the order of sending
        self.last = 0

    def send_publish(self, visit, identifier, dup):
        visit.publish(b't', b'%d' % self.open[identifier][0], self.qos, identifier, dup=dup)

    def next_identifier(self):
        while True:
            self.last = self.last % self.IDENTIFIERS + 1
            if self.last not in self.open:
                return self.last

    def talk(self, visit):
        for identifier, (_, received) in self.open.items():
            visit.reply(PUBREL, identifier) if received else self.send_publish(visit, identifier, True)
        while True:
            while not self.stopping and len(self.open) < self.WINDOW:
                identifier = self.next_identifier()
                self.open[identifier] = [self.count, False]
                self.count += 1
                self.send_publish(visit, identifier, False)
            if not self.open:
                self.done.set()
                visit.leave()
                return
            kind, identifier, reason, _ = visit.answer()
            if kind == DISCONNECT:
                raise ConnectionError
            assert reason in (0, 0x10) or (kind, reason) == (PUBCOMP, 0x92), (kind, reason)
            if kind == PUBREC:
                received = self.open.pop(identifier)  # PUBRELs go in the order of the PUBRECs
                self.open[identifier] = [received[0], True]
                visit.reply(PUBREL, identifier)
            else:
                assert kind == (PUBACK if self.qos == 1 else PUBCOMP) and (self.qos == 1 or self.open[identifier][1])
                del self.open[identifier]
                self.finished += 1


class Subscriber(Party):
    """Takes them, and answers a few at a time, until the number is LAST."""
    LAST = -1

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.numbers = []
        self.open = {}  # QoS 2: packet identifier -> number, until PUBREL
        self.subscribed = threading.Event()

    def talk(self, visit):
        if not self.subscribed.is_set():
            visit.subscribe(b't', qos=self.qos)
            self.subscribed.set()
        behind = []
        while True:
            first, body = visit.next()
            if first >> 4 == DISCONNECT:
                raise ConnectionError
            if first >> 4 == PUBLISH:
                message = Message(first, body, self.version)
                number = int(message.payload)
                assert message.qos == self.qos
                if self.qos == 1 or message.identifier not in self.open:
                    self.numbers.append(number)
                else:
                    assert message.dup and self.open[message.identifier] == number, 'an identifier that is in use'
                if self.qos == 2:
                    self.open[message.identifier] = number
                behind.append((PUBACK if self.qos == 1 else PUBREC, message.identifier))
            else:
                assert first == 0x62, first
                identifier = int.from_bytes(body[:2], 'big')
                self.open.pop(identifier, None)
                behind.append((PUBCOMP, identifier))
            if len(behind) >= 5 or len(visit._ahead) == visit._at:
                for kind, identifier in behind:
                    visit.reply(kind, identifier)
                behind.clear()
            if not behind and not self.open and self.numbers[-1] == self.LAST:
                visit.leave()
                self.done.set()
                return


@VERSIONS
@pytest.mark.parametrize('qos', [1, 2])
@pytest.mark.parametrize('end, rounds', [('kill', 10), ('stop', 4), ('cut', 30)])
def test_nothing_is_lost_and_nothing_of_qos_2_comes_twice(server, version, qos, end, rounds):
    """The server, or the connection, ends again and again while one client publishes and another takes; both remember what a client has to."""
    moments = random.Random(version * 10 + qos)
    subscriber, publisher = Subscriber(server, b'subscriber', version, qos), Publisher(server, b'publisher', version, qos)
    subscriber.start()
    assert subscriber.subscribed.wait(DEADLINE_S)
    publisher.start()
    for _ in range(rounds):
        sent, got = publisher.finished + moments.randrange(20, 300), len(subscriber.numbers) + moments.randrange(20, 300)
        wait_until(lambda: (publisher.finished >= sent and len(subscriber.numbers) >= got) or publisher.failure or subscriber.failure,
                   lambda: 'messages go through: %d, %d' % (publisher.finished, len(subscriber.numbers)))
        if publisher.failure or subscriber.failure:
            break
        if end == 'cut':
            moments.choice((publisher, subscriber)).cut()
        else:
            restart(server, end)
    publisher.stopping = True
    publisher.finish()
    put(server, b't', b'%d' % Subscriber.LAST, qos=qos)
    subscriber.finish()
    numbers = subscriber.numbers[:-1]
    assert publisher.visits > rounds // 4 and subscriber.visits > rounds // 4
    assert list(dict.fromkeys(numbers)) == list(range(publisher.count))  # the first time each, in order
    assert qos == 1 or len(numbers) == publisher.count, 'twice: %s' % [n for n in set(numbers) if numbers.count(n) > 1]
    with Visit(server, b'subscriber', version) as visit:
        assert visit.take_rest(server, b't') == []


# ---- many ----

def memory_kib(server):
    """Of the server's own: without the files that it has mapped."""
    with open('/proc/%d/status' % server.process.pid, encoding='ascii') as status:
        return int(re.search(r'^RssAnon:\s+(\d+) kB', status.read(), re.M).group(1))


@pytest.mark.timeout(180)
def test_messages_that_wait_cost_no_memory(spindle):
    """200,000 of them, for a client that is away; then it has them all, in order."""
    count = 20000 if SANITIZED else 200000
    server = spindle(settings={'bus.threads': 1, 'journal.segment_size': '16MiB'}).start()
    with Visit(server, b'p') as publisher, Visit(server, b'c') as visit:
        visit.subscribe(b't', qos=1)
        visit.leave()
        publisher.put_all((b'nobody', b'%064d' % i) for i in range(20000))  # buffers have their size then
        before = memory_kib(server)
        publisher.put_all((b't', b'%064d' % i) for i in range(count))
        after = memory_kib(server)
        assert SANITIZED or after - before < 6 << 10, '%d KiB, then %d' % (before, after)
        with Visit(server, b'c') as visit:
            assert visit.present == 1
            assert payloads(visit.take(count)) == [b'%064d' % i for i in range(count)]
            assert visit.take_rest(server, b't') == []
        assert SANITIZED or memory_kib(server) - before < 24 << 10


@pytest.mark.timeout(180)
@ENDS
def test_many_sessions_are_there_after_a_restart(server, end):
    """1,000 clients that are away, each with subscriptions of its own and one of all."""
    count, batch = 1000, 100

    def visit_all(data_of, check):
        for start in range(0, count, batch):
            wires = [Wire(server) for _ in range(batch)]
            for i, wire in enumerate(wires, start):
                wire.send(data_of(i))
            for i, wire in enumerate(wires, start):
                wire.version = 5
                check(i, wire)
                wire.close()

    def begun(i, wire):
        assert wire.packet()[2:4] == b'\0\0'
        assert wire.packet()[-5:] == b'\1' * 5
        wire.send(GOODBYE)
        wire.read_until_closed()

    def resumed(i, wire):
        assert wire.packet()[2:4] == b'\1\0'
        got = {wire.packet()[-3:] for _ in range(2)}
        assert got == {b'all', b'own'}, i
        wire.send(GOODBYE)
        wire.read_until_closed()

    asked = [(SESSION_EXPIRY, 1000)]
    visit_all(lambda i: connect(5, b'%d' % i, 0, props=asked) +
              subscribe(5, *((b'own/%d/%d' % (i, j), 1) for j in range(4)), (b'all', 1)), begun)
    server.stop() if end == 'stop' else server.kill()
    began = time.monotonic()
    server.start()
    assert time.monotonic() - began < (DEADLINE_S if SANITIZED else 3)
    with Visit(server, b'p') as publisher:
        publisher.put(b'all', b'all')
        publisher.put_all((b'own/%d/%d' % (i, i % 4), b'own') for i in range(count))
    visit_all(lambda i: connect(5, b'%d' % i, 0, props=asked), resumed)


@ENDS
def test_changes_do_not_make_the_disk_grow(spindle, end):
    """The stream of sessions is written anew, little by little: it stays as small as what it says, and all of that is there."""
    server = spindle(settings={'journal.segment_size': '1MiB'}).start()
    filters = [b'a long filter that takes its place on the disk ' + b'x' * 900 + b'/%d' % i for i in range(20)]
    with Visit(server, b'quiet') as quiet:
        quiet.subscribe(b'quiet', qos=1)
        quiet.leave()
    for _ in range(2):
        with Visit(server, b'busy') as visit:
            for i in range(1200):
                visit.subscribe(*filters, qos=1 + i % 2)
            visit.leave()
        restart(server, end)
    put(server, b'quiet', b'x')
    put(server, filters[7], b'y')
    for name, topic, payload in ((b'quiet', b'quiet', b'x'), (b'busy', filters[7], b'y')):
        with Visit(server, name) as visit:
            assert payloads(visit.take_rest(server, topic)) == [payload]
    size = sum(path.stat().st_size for path in (server.data_dir / 'sessions').glob('*.seg'))
    assert size < 40 << 20, size  # 48 MB were written
