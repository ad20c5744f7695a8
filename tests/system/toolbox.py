"""Senders that behave as tools do: QoS 1, and what was not acknowledged when a connection broke is sent again on the next one.

A Sender runs in a thread of its own, through any number of restarts of the server. What it was told to be kept is in `acknowledged`.
"""
import collections
import hashlib
import json
import random
import threading
import time

import paho.mqtt.client as mqtt

from client import Client
from holes import HEADS, KEYPOINTS, Hole, stack_curve

PAUSE_S = 0.002  # between two looks at what was acknowledged


def fingerprint(topic, payload):
    return hashlib.blake2b(topic.encode() + b'\0' + payload, digest_size=16).digest()


def is_acknowledged(token):
    return token.rc == mqtt.MQTT_ERR_SUCCESS and token.is_published()  # the latter raises for what was posted without connection


class Sender(threading.Thread):
    """Sends what next_messages() gives, at most `window` messages under way."""

    def __init__(self, server, window=30):
        super().__init__(daemon=True)
        self.server, self.window = server, window
        self.sent = {}  # fingerprint -> topic
        self.acknowledged = collections.Counter()  # fingerprint -> times
        self.backlog = collections.deque()
        self.stopping, self.held, self.abandoned = threading.Event(), threading.Event(), threading.Event()
        self.failure = None

    def next_messages(self):
        """More (topic, payload) pairs; empty when there is nothing to send at this moment."""
        raise NotImplementedError

    def unfinished(self):
        """Whether something is to be sent although the sender was asked to stop."""
        return False

    def acknowledged_count(self):
        return self.acknowledged.total()

    def finish(self, deadline_s=60):
        """Sends the rest, and returns when all of it is acknowledged."""
        self.held.clear()
        self.stopping.set()
        self.join(deadline_s)
        assert self.failure is None, self.failure
        assert not self.is_alive(), 'not everything was acknowledged within %d s' % deadline_s

    def give_up(self):
        """Ends without sending the rest."""
        self.abandoned.set()
        self.stopping.set()

    def run(self):
        try:
            while not self.abandoned.is_set() and (not self.stopping.is_set() or self.backlog or self.unfinished()):
                self.use_one_connection()
        except Exception as failure:  # finish() shows it
            self.failure = failure

    def use_one_connection(self):
        try:
            client = Client(self.server.port)
        except Exception:
            time.sleep(0.01)  # the server is down
            return
        under_way = []
        while not client.disconnected.is_set() and not self.abandoned.is_set():
            self.post_more(client, under_way)
            under_way = self.collect(under_way)
            if self.stopping.is_set() and not under_way and not self.backlog and not self.unfinished():
                break
            time.sleep(PAUSE_S)
        under_way = self.collect(under_way)
        client.close()
        self.backlog.extendleft(reversed([message for message, _ in under_way]))

    def post_more(self, client, under_way):
        while len(under_way) < self.window and not self.held.is_set():
            if not self.backlog:
                if self.stopping.is_set() and not self.unfinished():
                    return
                self.backlog.extend(self.next_messages())
            if not self.backlog:
                return
            message = self.backlog.popleft()
            self.sent[fingerprint(*message)] = message[0]
            under_way.append((message, client.post(*message)))

    def collect(self, under_way):
        """Takes note of what is acknowledged; returns the rest."""
        rest = []
        for message, token in under_way:
            if is_acknowledged(token):
                self.acknowledged[fingerprint(*message)] += 1
            else:
                rest.append((message, token))
        return rest


class Toolbox(Sender):
    """Holes of a few tools. With a seed its holes' messages come in any order; `repeats` is the share of holes of which a message is sent
    twice, `late_heads` the share whose heads come seconds later. `rate` is holes a second, 0: as fast as they are acknowledged."""

    REPEATED_FROM = 50  # last holes, of which one is chosen to be repeated
    HEADS_LATER_S = (0.3, 2.5)

    def __init__(self, server, number, seed=None, repeats=0.0, late_heads=0.0, rate=0, **options):
        super().__init__(server, **options)
        self.number, self.repeats, self.late_heads, self.rate = number, repeats, late_heads, rate
        self.chance = None if seed is None else random.Random(seed)
        self.holes = []
        self.later = collections.deque()  # (when, message), the next first
        self.curve = stack_curve(feed_mm=0.2)
        self.next_hole = time.monotonic()

    def unfinished(self):
        return bool(self.later)

    def next_messages(self):
        now = time.monotonic()
        messages = []
        while self.later and (self.later[0][0] <= now or self.stopping.is_set()):
            messages.append(self.later.popleft()[1])
        if not self.stopping.is_set() and now >= self.next_hole:
            messages += self.hole_messages(now)
            if self.rate:
                self.next_hole = max(self.next_hole, now - 1) + 1 / self.rate
        return messages

    def hole_messages(self, now):
        hole = Hole(box='box%d' % self.number, tool='tool%d' % (len(self.holes) % 5), curve=self.curve)
        messages = hole.messages()
        self.holes.append((hole.topic(KEYPOINTS), hole.stamp))
        if self.chance is None:
            return messages
        if self.chance.random() < self.late_heads:
            self.later.append((now + self.chance.uniform(*self.HEADS_LATER_S), messages.pop()))
            self.later = collections.deque(sorted(self.later, key=lambda pair: pair[0]))
        if self.chance.random() < self.repeats:
            messages.append(self.chance.choice(messages))
        self.chance.shuffle(messages)
        return messages


class Feeder(Sender):
    """Messages of all sizes for a topic of the bus, each different."""

    def __init__(self, server, number, seed=0, size_max=20000, rate=0, **options):
        super().__init__(server, **options)
        self.topic, self.size_max, self.rate = 'fault/feeder%d' % number, size_max, rate
        self.chance, self.count = random.Random(seed), 0
        self.next_message = time.monotonic()

    def next_messages(self):
        now = time.monotonic()
        if now < self.next_message:
            return []
        if self.rate:
            self.next_message = max(self.next_message, now - 1) + 1 / self.rate
        self.count += 1
        return [(self.topic, b'%s %d ' % (self.topic.encode(), self.count) + b'.' * self.chance.randrange(self.size_max))]


class hold:
    """While it lasts, none of the senders begins to send."""

    def __init__(self, senders):
        self.senders = senders

    def __enter__(self):
        for sender in self.senders:
            sender.held.set()

    def __exit__(self, *_):
        for sender in self.senders:
            sender.held.clear()


def total_acknowledged(senders):
    return sum(sender.acknowledged_count() for sender in senders)


def check_gapless(records, stream):
    offsets = [record['offset'] for record in records]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) if offsets else True, 'offsets of %s have a gap' % stream


def check_kept(server, senders):
    """Nothing acknowledged is missing in the journal, and nothing is in it that was not sent. Returns how many records it has."""
    kept = collections.Counter()
    for stream in ('ingest', 'bus'):
        records = server.journal(stream)
        check_gapless(records, stream)
        kept.update(fingerprint(record['topic'], record['payload']) for record in records)
    sent = {mark: topic for sender in senders for mark, topic in sender.sent.items()}
    invented = [mark for mark in kept if mark not in sent]
    assert not invented, '%d records were never sent' % len(invented)
    lost = [sent[mark] for sender in senders for mark, times in sender.acknowledged.items() if kept[mark] < times]
    assert not lost, '%d of %d acknowledged messages are lost, for example %s' % (len(lost), total_acknowledged(senders), lost[:3])
    return kept.total()


def check_answered(server, boxes):
    """Every hole has its two answers, and answers of one hole never differ."""
    answers = {}
    records = server.journal('results')
    check_gapless(records, 'results')
    for record in records:
        key = record['topic'], json.loads(record['payload'])['SourceTimestamp']
        assert answers.setdefault(key, record['payload']) == record['payload'], 'answered twice, differently: %s' % (key,)
    holes = [hole for box in boxes for hole in box.holes]
    silent = [hole for hole in holes if hole not in answers]
    assert not silent, '%d of %d holes have no answer, for example %s' % (len(silent), len(holes), silent[:3])
    assert len(answers) == 2 * len(holes), '%d answers of %d holes' % (len(answers), len(holes))


def check_only_late(server):
    """The only messages given up are heads that came after their hole was answered without them."""
    for letter in server.dead_letters():
        assert letter['reason'] == 'late' and letter['topic'].endswith(HEADS), letter
