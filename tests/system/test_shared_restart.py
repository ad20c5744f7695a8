"""Members of a shared subscription, and the server, end again and again while messages are on their way, and all are counted: with QoS 1 none
is missing, with QoS 2 none is missing and none comes twice."""
import random
import threading

import pytest

from packets import DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, Message
from sessions import Visit
from spindle import DEADLINE_S, wait_until
from test_sessions_restart import Party, Publisher, restart

GROUP = b'$share/workers/t'


class Member(Party):
    """Takes what it is given, and answers a few at a time; some of them never before they are cut off."""

    def __init__(self, server, name, version, qos, lazy):
        super().__init__(server, name, version, qos)
        self.numbers, self.open = [], {}  # open: QoS 2, packet identifier -> number, until PUBREL
        self.subscribed = threading.Event()
        self.pace = random.Random(name)
        self.lazy = lazy

    def talk(self, visit):
        if not self.subscribed.is_set():
            visit.subscribe(GROUP, qos=self.qos)
            self.subscribed.set()
        behind, answers = [], not self.lazy or self.pace.random() < 0.5
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
            if answers and (len(behind) >= 5 or len(visit._ahead) == visit._at):
                for kind, identifier in behind:
                    visit.reply(kind, identifier)
                behind.clear()


@pytest.mark.timeout(180)
@pytest.mark.parametrize('qos', [1, 2])
@pytest.mark.parametrize('end, rounds', [('kill', 8), ('stop', 4), ('member', 30)])
def test_nothing_is_lost_and_nothing_of_qos_2_comes_twice(spindle, qos, end, rounds):
    server = spindle(settings={'bus.threads': 2}).start()
    moments = random.Random(qos)
    members = [Member(server, b'member%d' % i, 4 + i % 2, qos, lazy=i == 2) for i in range(4)]
    publisher = Publisher(server, b'publisher', 5, qos)
    for member in members:
        member.start()
        assert member.subscribed.wait(DEADLINE_S)
    publisher.start()

    def taken():
        return sum(len(member.numbers) for member in members)

    def failed():
        return publisher.failure or any(member.failure for member in members)

    for _ in range(rounds):
        sent, got = publisher.finished + moments.randrange(20, 300), taken() + moments.randrange(20, 300)
        wait_until(lambda: (publisher.finished >= sent and taken() >= got) or failed(), lambda: 'messages go through: %d, %d' % (publisher.finished, taken()))
        if failed():
            break
        for member in moments.sample(members, 2):
            member.cut()
        if end != 'member':
            restart(server, end)
    publisher.stopping = True
    publisher.finish()
    for member in members:
        member.lazy = False
        member.cut()
    wait_until(lambda: failed() or (set().union(*(member.numbers for member in members)) >= set(range(publisher.count)) and
                                    not any(member.open for member in members)),
               lambda: 'all of %d: %s are missing' % (publisher.count, sorted(set(range(publisher.count)).difference(*(member.numbers for member in members)))[:9]))
    for member in members:
        member.done.set()
        member.cut()
    for member in members:
        member.finish()
    numbers = sum((member.numbers for member in members), [])
    assert set(numbers) == set(range(publisher.count))
    assert all(len(set(member.numbers)) > publisher.count / 20 for member in members)
    assert qos == 1 or len(numbers) == publisher.count, 'twice: %s' % [n for n in set(numbers) if numbers.count(n) > 1][:9]
    for member in members:
        with Visit(server, member.client_id, member.version) as visit:
            qos == 1 or visit.quiet()  # the last PUBACKs may have been cut off
            visit.leave()
