"""The ends of a link, message by message: what the simulation cannot tell apart."""

import numpy as np
import pytest
from small_modules import SizedNumbers

from highway.errors import StateMismatchError, SupersededError
from highway.network.protocol.consumer import Consumer
from highway.network.protocol.delivery import Delivery, Feed
from highway.network.protocol.link import TIMING, Timing, delivered, merged
from highway.network.protocol.messages import (
    Bye,
    Cursor,
    Data,
    Item,
    Key,
    Kind,
    Ping,
    Progress,
    Ready,
    Refusal,
    State,
)
from highway.network.protocol.producer import BENCH, STRIKES, Producer
from highway.network.protocol.roles import DataMachine, Trainer, Worker
from highway.network.protocol.wire import encode

BATCH = Item(Kind.BATCH, [], (np.zeros(10, np.uint8),))


class Counting:
    """Random bytes that are the same in every run, and never the same."""

    def __init__(self):
        self.count = 0

    def __call__(self, size):
        self.count += 1
        return self.count.to_bytes(size, "big")


def produced(seq, item=BATCH):
    return Key(0, seq, 0), 1, "data", item


BEGINNING = Cursor(1)


def ready(session=b"s" * 16, window=4, window_bytes=10**6, cursor=BEGINNING):
    return Ready(session, window, window_bytes, cursor, "")


def send_all(producer):
    sent = []
    while (found := producer.pick()) is not None:
        producer.commit(*found)
        sent.append(found)
    return sent


def arrive(consumer, lsn, seq, link=b"l" * 16, **more):
    data = Data(consumer.session, link, lsn, Key(0, seq, 0), 1, "data", BATCH, **more)
    consumer.receive("p", data, 0.0)


def take(box):
    messages = [message for _, message in box]
    box.clear()
    return messages


class Replaceable(Counting):
    """Random bytes that a test may fix: `chance` is then every one of them."""

    chance = None

    def __call__(self, size):
        return super().__call__(size) if self.chance is None else bytes([self.chance]) * size


def producer_with(*seqs, random=None, **arguments):
    made = Producer(random or Counting(), **arguments)
    made.receive("c", ready(), 0.0)
    for seq in seqs:
        made.offer(*produced(seq))
    return made


def consumer_with(window=4):
    made = Consumer(Counting(), window, 10**6)
    made.cursor = Cursor(1)
    return made


# Producer


def test_window_counts_items_and_bytes_but_one_always_goes():
    producer = producer_with(*range(10))
    assert len(send_all(producer)) == 4
    producer = Producer(Counting())
    producer.receive("c", ready(window_bytes=25), 0.0)
    for seq in range(4):
        producer.offer(*produced(seq))
    assert len(send_all(producer)) == 2
    producer = Producer(Counting())
    producer.receive("c", ready(window_bytes=1), 0.0)
    producer.offer(*produced(0))
    producer.offer(*produced(1))
    assert len(send_all(producer)) == 1


def test_whoever_has_fewest_gets_the_next():
    producer = producer_with(*range(6))
    producer.receive("d", ready(b"t" * 16), 0.0)
    peers = [peer for peer, _ in send_all(producer)]
    assert sorted(peers) == ["c"] * 3 + ["d"] * 3
    # The faster one gets more.
    link = producer.links["c"].link
    producer.receive("c", State(link, 3, (), ()), 0.0)
    for seq in range(6, 9):
        producer.offer(*produced(seq))
    assert [peer for peer, _ in send_all(producer)] == ["c"] * 3


def test_lowest_goes_first():
    producer = producer_with(5, 3, 4)
    assert [data.key.seq for _, data in send_all(producer)] == [3, 4, 5]


def test_state_tells_done_pending_and_missing():
    producer = producer_with(0, 1, 2)
    send_all(producer)
    producer.receive("c", State(producer.links["c"].link, 3, (2,), (3,)), 0.0)
    assert list(producer.done) == [Key(0, 0, 0)]
    assert producer.resent == 1
    assert [data.key.seq for _, data in send_all(producer)] == [2]


@pytest.mark.parametrize("wrong", [{"link": b"x" * 16}, {"upto": 9}])
def test_state_of_another_link_or_of_the_future_is_dropped(wrong):
    producer = producer_with(0)
    send_all(producer)
    state = State(producer.links["c"].link, 1, (), ())._replace(**wrong)
    producer.receive("c", state, 0.0)
    assert not producer.done


def test_same_state_twice_changes_nothing():
    producer = producer_with(0, 1)
    send_all(producer)
    state = State(producer.links["c"].link, 2, (), (2,))
    producer.receive("c", state, 0.0)
    producer.receive("c", state, 0.0)
    assert list(producer.done) == [Key(0, 0, 0)]
    assert len(producer) == 1 and producer.unsent == 1


def test_lower_generation_is_refused_by_name():
    producer = producer_with()
    producer.receive("c", ready(cursor=Cursor(5)), 0.0)
    take(producer.outbox)
    producer.receive("d", ready(cursor=Cursor(4)), 0.0)
    (answer,) = take(producer.outbox)
    assert isinstance(answer, Refusal) and answer.code == "superseded" and answer.number == 5


def test_who_knows_of_no_training_machine_is_told_of_the_end_too():
    consumer, producer = Consumer(Counting(), 4, 10**6), producer_with()
    consumer.greet("above", 0.0)
    for message in take(consumer.outbox):
        producer.receive("below", message, 0.0)
    assert list(producer.links) == ["c"]
    producer.bye("end")
    assert ("below", Bye("end")) in producer.outbox
    # Also where the greeting was lost.
    consumer.tick(2.0)
    assert take(consumer.outbox) == [State(bytes(16), 0, (), ())]


def test_who_knows_an_older_generation_only_is_told_of_the_end_too():
    """A worker that has not reached the new training machine yet would wait for ever."""
    producer = producer_with()
    for peer, generation in (("new", 7), ("old", 6), ("left", 6), ("came", 6), ("came", 7)):
        producer.receive(peer, ready(cursor=Cursor(generation)), 0.0)
    producer.receive("left", Bye("stopped"), 0.0)
    producer.outbox.clear()
    producer.bye("end")
    assert {peer for peer, _ in producer.outbox} == {"new", "old", "came"}


def test_what_the_cursor_counts_is_not_taken():
    producer = Producer(Counting())
    producer.receive("c", ready(cursor=Cursor(1, 0, (Progress(2, (4,)),))), 0.0)
    assert [producer.offer(*produced(seq)) for seq in range(6)] == [False, False, True, True, False, True]


def test_silent_peer_is_dead_and_what_it_had_is_sent_to_another():
    producer = producer_with(0)
    send_all(producer)
    producer.tick(10.5)
    assert not producer.links and producer.deaths == 1
    producer.receive("d", ready(b"t" * 16), 10.5)
    assert [peer for peer, _ in send_all(producer)] == ["d"]


def test_bye_gives_back_what_was_under_way_and_is_answered_once():
    producer = producer_with(0)
    send_all(producer)
    take(producer.outbox)
    producer.receive("c", Bye("stopped"), 1.0)
    assert producer.unsent == 1 and producer.deaths == 0
    assert take(producer.outbox) == [Bye("bye")]
    producer.receive("c", Bye("bye"), 1.0)
    assert take(producer.outbox) == []


@pytest.mark.parametrize("chance", [0, 100, 255])
def test_suspect_that_died_alone_waits_for_a_time_that_is_left_to_chance(chance):
    """Two data machines would send theirs to the same worker at once again and again."""
    random = Replaceable()
    producer = producer_with(0, random=random)
    random.chance = chance
    for life in range(3):
        # The last time it travels alone.
        producer.receive("c", ready(bytes([life]) * 16), 0.0)
        assert len(send_all(producer)) == 1
        producer.lose("c")
    wait = 4 * chance / 256
    # It begins when a worker is there.
    for now, sent in ((30.0, chance == 0), (30.0 + wait - 0.01, 0), (30.0 + wait, chance > 0)):
        producer.receive("c", ready(b"last" * 4), now)
        assert len(send_all(producer)) == sent


def test_others_go_to_a_worker_while_a_suspect_waits_and_not_while_it_holds_that_of_another():
    random = Replaceable()
    producer = producer_with(0, random=random)
    random.chance = 255
    for life in range(3):
        producer.receive("c", ready(bytes([life]) * 16), 0.0)
        send_all(producer)
        producer.lose("c")
    producer.receive("c", ready(b"last" * 4), 10.0)
    producer.offer(*produced(1))
    assert [data.key.seq for _, data in send_all(producer)] == [1]
    out = producer.links["c"]
    producer.receive("c", State(out.link, 1, (), ()), 10.1)
    producer.receive("c", ready(b"last" * 4), 14.0)
    assert [data.key.seq for _, data in send_all(producer)] == [0]
    producer.receive("c", State(out.link, 2, (), (2,)), 14.1)
    producer.offer(*produced(2))
    assert send_all(producer) == []
    assert producer.unsent == 1


def test_items_beside_a_poison_are_not_given_up():
    producer = producer_with(*range(8))
    producer.receive("c", Bye("stopped"), 0.0)
    given_up, done = [], []
    for life in range(60):
        for now in (20.0 * life, 20.0 * life + 8):
            # Suspects are sent the second time.
            producer.receive(life, ready(life.to_bytes(16, "big"), 8), now)
            found = producer.pick()
            if found is not None:
                break
        while found is not None:
            producer.commit(*found)
            _, data = found
            if data.item.kind is Kind.ERROR:
                given_up.append(data.key.seq)
            elif data.key.seq == 3:
                break
            producer.receive(life, State(data.link, data.lsn, (), ()), now)
            found = producer.pick()
        done += producer.done
        producer.done.clear()
        producer.tick(now + 11)
        if not len(producer):
            break
    assert set(given_up) == {3}


# Consumer


def test_another_session_is_answered_with_ready_at_once():
    consumer = consumer_with()
    take(consumer.outbox)
    consumer.receive("p", Data(b"o" * 16, b"l" * 16, 1, Key(0, 0, 0), 1, "", BATCH), 0.0)
    (answer,) = take(consumer.outbox)
    assert isinstance(answer, Ready) and answer.session == consumer.session
    assert not consumer.arrivals
    consumer.receive("p", Ping(b"", b"", 0, 1, []), 0.0)
    assert isinstance(take(consumer.outbox)[0], Ready)


def test_nobody_is_asked_before_a_cursor_is_known():
    consumer = Consumer(Counting(), 4, 10**6)
    consumer.greet("p", 0.0)
    consumer.tick(5.0)
    consumer.receive("p", Ping(b"", b"", 0, 1, []), 5.0)
    assert not any(isinstance(message, Ready) for message in take(consumer.outbox))


def test_ping_is_answered_with_what_is_there():
    consumer = consumer_with(window=100)
    arrive(consumer, 1, 0)
    arrive(consumer, 3, 2)
    consumer.done(Key(0, 0, 0), 0.0)
    take(consumer.outbox)
    consumer.receive("p", Ping(consumer.session, b"l" * 16, 5, 1, []), 0.0)
    assert take(consumer.outbox) == [State(b"l" * 16, 5, (3,), (2, 4, 5))]
    consumer.receive("p", Ping(consumer.session, b"l" * 16, 5, 4, []), 0.0)
    assert take(consumer.outbox) == [State(b"l" * 16, 5, (), (4, 5))]


def test_acknowledgements_join_for_ten_milliseconds():
    consumer = busy_consumer(4)
    consumer.done(Key(0, 0, 0), 1.0)
    consumer.tick(1.0)
    assert not consumer.outbox and consumer.due() == pytest.approx(1.01)
    consumer.done(Key(0, 1, 0), 1.005)
    consumer.tick(1.02)
    assert take(consumer.outbox) == [State(b"l" * 16, 4, (3, 4), ())]
    assert consumer.due() is None


def test_acknowledgements_of_half_a_window_go_with_the_next_beat():
    consumer = busy_consumer(8)
    for seq in range(4):
        consumer.done(Key(0, seq, 0), 1.0)
    assert not consumer.outbox
    consumer.tick(1.0)
    assert take(consumer.outbox) == [State(b"l" * 16, 8, (5, 6, 7, 8), ())]


def test_acknowledgements_of_three_quarters_of_a_window_go_at_once():
    consumer = busy_consumer(8)
    for seq in range(6):
        assert not consumer.outbox
        consumer.done(Key(0, seq, 0), 1.0)
    assert take(consumer.outbox) == [State(b"l" * 16, 8, (7, 8), ())]


@pytest.mark.parametrize(("window", "acks"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (17, 12), (1024, 16)])
def test_acknowledgements_go_at_once_while_there_is_room_for_more(window, acks):
    consumer = consumer_with(window=window)
    for seq in range(acks):
        arrive(consumer, seq + 1, seq)
    for seq in range(acks):
        assert not consumer.outbox
        consumer.done(Key(0, seq, 0), 1.0)
    assert len(take(consumer.outbox)) == 1


def busy_consumer(count):
    """A consumer with a window of 8 that holds so many items, and has nothing to tell."""
    consumer = consumer_with(window=8)
    consumer.tick(1.0)
    for seq in range(count):
        arrive(consumer, seq + 1, seq)
    take(consumer.outbox)
    return consumer


def test_second_suspect_is_turned_away_until_the_first_is_done():
    consumer = consumer_with()
    arrive(consumer, 1, 0, suspect=True)
    take(consumer.outbox)
    arrive(consumer, 2, 1, suspect=True)
    assert take(consumer.outbox) == [State(b"l" * 16, 2, (1,), (2,))]
    consumer.done(Key(0, 0, 0), 0.0)
    arrive(consumer, 3, 1, suspect=True)
    assert [data.key.seq for data in consumer.arrivals] == [0, 1]


def test_nonsense_numbers_are_dropped():
    consumer = consumer_with()
    arrive(consumer, 10**9, 0)
    consumer.receive("p", Ping(consumer.session, b"l" * 16, 10**9, 1, []), 0.0)
    assert not consumer.arrivals and not consumer.links["p"].missing


def test_number_of_peers_is_limited(monkeypatch):
    monkeypatch.setattr("highway.network.protocol.link.MAX_PEERS", 3)
    consumer, producer = consumer_with(), Producer(Counting())
    for number in range(10):
        consumer.receive(number, Ping(b"", b"", 0, 1, []), 0.0)
        producer.receive(number, ready(number.to_bytes(16, "big")), 0.0)
    assert len(consumer.links) == len(producer.links) == 3


def test_peers_that_went_without_a_word_are_forgotten():
    consumer = consumer_with()
    consumer.greet("ours", 0.0)
    consumer.receive("theirs", Ping(b"", b"", 0, 1, []), 0.0)
    consumer.tick(100.0)
    assert list(consumer.links) == ["ours"]


# Cursors


def test_cursors_of_a_generation_are_joined():
    one = Cursor(1, 0, (Progress(3, (7,)), Progress(5)), "x")
    other = Cursor(1, 0, (Progress(4, (6,)), Progress(2, (9,))), "x")
    assert merged(one, other) == Cursor(1, 0, (Progress(4, (6, 7)), Progress(5, (9,))), "x")
    assert merged(one, Cursor(1, 1)) == merged(Cursor(1, 1), one) == Cursor(1, 1)
    assert merged(Cursor(1), one) == one


@pytest.mark.parametrize(
    ("key", "counted"),
    [
        (Key(0, 99, 0), True),
        (Key(2, 0, 0), False),
        (Key(1, 2, 0), True),
        (Key(1, 3, 0), False),
        (Key(1, 5, 0), True),
        (Key(1, 0, 1), False),
        (Key(1, 0, 7), False),
    ],
)
def test_what_a_cursor_counts(key, counted):
    assert delivered(Cursor(1, 1, (Progress(3, (5,)), Progress(0))), key) is counted


# The ends of a chain


def items(feed, horizon=100, batches=None):
    found = []
    while (wanted := feed.next(horizon)) is not None:
        if wanted.kind is Kind.BATCH and batches is not None and wanted.position >= batches:
            feed.end(batches)
            continue
        found.append((wanted.kind.name, wanted.key.epoch, wanted.key.seq))
    return found


def test_feed_goes_through_all_epochs_to_the_end():
    assert items(Feed(0, SizedNumbers(2)), batches=4) == [
        ("BATCH", 0, 0), ("BATCH", 0, 1), ("END_OF_EPOCH", 0, 2),
        ("BATCH", 1, 0), ("BATCH", 1, 1), ("END_OF_EPOCH", 1, 2), ("END_OF_DATA", 2, 0),
    ]  # fmt: skip
    assert items(Feed(0, None), batches=2) == [
        ("BATCH", 0, 0),
        ("BATCH", 0, 1),
        ("END_OF_EPOCH", 0, 2),
        ("END_OF_DATA", 1, 0),
    ]
    assert items(Feed(0, None), batches=0) == [("END_OF_EPOCH", 0, 0), ("END_OF_DATA", 1, 0)]


def test_feed_stops_at_the_horizon_and_goes_on_with_the_base():
    feed = Feed(0, SizedNumbers(10))
    assert len(items(feed, 3)) == 3
    feed.update(Cursor(1, 0, (Progress(2),)))
    assert items(feed, 3) == [("BATCH", 0, 3), ("BATCH", 0, 4)]


def test_feed_seeks_to_what_is_lacking():
    feed = Feed(1, SizedNumbers(5))
    items(feed)
    feed.seek(Cursor(1, 1, (Progress(9), Progress(1, (3,)))))
    assert items(feed, 4) == [("BATCH", 1, 1), ("BATCH", 1, 2), ("BATCH", 1, 4)]


def data(epoch, seq, stream=0, kind=Kind.BATCH, world=1, fingerprint="data"):
    item = Item(kind, [], ())
    return Data(b"", b"", 1, Key(epoch, seq, stream), world, fingerprint, item)


def test_delivery_holds_the_next_epoch_back_until_this_one_is_handed_out():
    delivery = Delivery(Cursor(1))
    assert delivery.arrive(data(0, 1))
    assert not delivery.arrive(data(1, 0))
    assert not delivery.arrive(data(0, 2, kind=Kind.END_OF_EPOCH))
    assert delivery.arrive(data(0, 0))
    assert [each.key.seq for each in delivery.released] == [1, 0]
    delivery.released.clear()
    delivery.deliver(Key(0, 1, 0))
    assert delivery.cursor.streams == (Progress(0, (1,)),)
    delivery.deliver(Key(0, 0, 0))
    assert delivery.epoch == 1 and [each.key for each in delivery.released] == [Key(1, 0, 0)]
    assert not delivery.deliver(Key(0, 0, 0))


def test_ordered_delivery_waits_for_the_lowest_of_all_streams():
    delivery = Delivery(Cursor(1), ordered=True)
    for key in ((1, 0), (0, 1), (1, 1)):
        assert not delivery.arrive(data(0, *key, world=2))
    assert delivery.arrive(data(0, 0, 0, world=2))
    assert [tuple(each.key[1:]) for each in delivery.released] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_delivery_refuses_other_data():
    delivery = Delivery(Cursor(1, 0, (Progress(3),), "data"))
    with pytest.raises(StateMismatchError, match="fingerprint other"):
        delivery.arrive(data(0, 5, fingerprint="other"))
    with pytest.raises(StateMismatchError, match="of 2"):
        delivery.arrive(data(0, 5, world=2))
    with pytest.raises(StateMismatchError, match="expected 3"):
        Delivery(Cursor(1), streams=3).arrive(data(0, 5, world=2))


def test_data_machines_must_end_together():
    delivery = Delivery(Cursor(1))
    delivery.arrive(data(0, 0, 0, kind=Kind.END_OF_DATA, world=2))
    with pytest.raises(StateMismatchError, match="stream 0 ends before epoch 0"):
        delivery.arrive(data(0, 1, 1, kind=Kind.END_OF_EPOCH, world=2))


def test_what_is_missing_is_said():
    delivery = Delivery(Cursor(1))
    assert "nothing of epoch 0" in delivery.missing()
    delivery.arrive(data(0, 0))
    delivery.deliver(Key(0, 0, 0))
    assert delivery.missing() == "epoch 0: stream 0: batch 1 and the following ones"
    delivery.arrive(data(0, 5, kind=Kind.END_OF_EPOCH))
    delivery.arrive(data(0, 3))
    delivery.deliver(Key(0, 3, 0))
    assert delivery.missing() == "epoch 0: stream 0: 3 of 5 batches, the first is 1"


@pytest.mark.parametrize("peers, seconds", [(1, 1.0), (16, 1.0), (32, 2.0), (64, 4.0), (500, 4.0)])
def test_many_peers_hear_less_often_and_before_they_give_up(peers, seconds):
    producer = with_peers(*range(peers))
    consumer = consumer_with()
    for peer in range(peers):
        consumer.receive(peer, Ping(consumer.session, b"l" * 16, 0, 1, []), 0.0)
    for end in (producer, consumer):
        end.tick(0.0)
        take(end.outbox)
        for now, repeated in ((seconds - 0.01, False), (seconds, True)):
            for link in end.links.values():
                link.heard = now
            end.tick(now)
            assert (len(take(end.outbox)) >= peers) is repeated
    assert seconds < TIMING.death / 2


# Failures


def failing(producer, peer, seq, text="MemoryError"):
    """What the producer hears of a peer that cannot process an item."""
    out = producer.links[peer]
    lsn = next(lsn for lsn, (key, _) in out.in_flight.items() if key.seq == seq)
    pending = tuple(other for other in out.in_flight if other != lsn)
    producer.receive(peer, State(out.link, out.high, pending, (), ((lsn, [text]),)), producer._now)


def succeeding(producer, peer, seq):
    out = producer.links[peer]
    pending = tuple(lsn for lsn, (key, _) in out.in_flight.items() if key.seq != seq)
    producer.receive(peer, State(out.link, out.high, pending, ()), producer._now)


def with_peers(*peers, now=0.0, window=4):
    producer = Producer(Counting())
    for number, peer in enumerate(peers):
        producer.receive(peer, ready(number.to_bytes(16, "big"), window=window), now)
    return producer


def test_failed_item_goes_to_another_peer_and_is_an_error_after_that():
    producer = with_peers("a", "b", "c")
    producer.offer(*produced(0))
    ((first, _),) = send_all(producer)
    failing(producer, first, 0, "of the first")
    ((second, data),) = send_all(producer)
    assert second != first and data.item is BATCH
    failing(producer, second, 0, "of the second")
    ((_, data),) = send_all(producer)
    assert (data.item.kind, data.item.meta) == (Kind.ERROR, ["of the second"])
    assert producer.failed == 2 and not producer.benched


def test_only_peer_tries_again_after_others_had_time_to_come():
    producer = with_peers("a")
    producer.offer(*produced(0))
    send_all(producer)
    failing(producer, "a", 0)
    assert not send_all(producer)
    producer.tick(TIMING.gathering - 0.1)
    producer.links["a"].heard = producer._now
    assert not send_all(producer)
    producer.tick(TIMING.gathering)
    assert [peer for peer, _ in send_all(producer)] == ["a"]


def test_failed_item_waits_for_a_peer_with_room_and_holds_up_nothing():
    producer = with_peers("a", "b", window=1)
    for seq in range(3):
        producer.offer(*produced(seq))
    sent = {data.key.seq: peer for peer, data in send_all(producer)}
    failing(producer, sent[0], 0)
    # Batch 2 passes by: batch 0 is for the other peer, which is full.
    assert [(peer, data.key.seq) for peer, data in send_all(producer)] == [(sent[0], 2)]
    succeeding(producer, sent[1], 1)
    assert [(peer, data.key.seq) for peer, data in send_all(producer)] == [(sent[1], 0)]


def test_peer_that_fails_alone_is_benched_longer_each_time():
    producer = with_peers("sick", "well", window=8)
    benches = []
    for seq in range(STRIKES + 2):
        producer.offer(*produced(seq))
        producer.links["well"].in_flight = {-1: (Key(9, 9, 0), 0)}
        ((peer, _),) = send_all(producer)
        assert peer == "sick"
        producer.links["well"].in_flight = {}
        failing(producer, "sick", seq)
        ((peer, _),) = send_all(producer)
        assert peer == "well"
        succeeding(producer, "well", seq)
        out = producer.links["sick"]
        if out.benched_until:
            benches.append(out.benched_until - producer._now)
            # Others get everything now, although it has nothing to do.
            producer.offer(*produced(100 + seq))
            assert [peer for peer, _ in send_all(producer)] == ["well"]
            succeeding(producer, "well", 100 + seq)
            producer._now = out.benched_until
            for each in producer.links.values():
                each.heard = producer._now
    assert benches == [BENCH, 2 * BENCH, 4 * BENCH]
    assert [change.peer for change in producer.changes if change.what == "benched"] == ["sick"] * 3


def test_peers_that_are_all_benched_get_items():
    producer = with_peers("a")
    producer.links["a"].benched_until = 100.0
    producer._benched.add("a")
    producer.offer(*produced(0))
    assert [peer for peer, _ in send_all(producer)] == ["a"]


def test_failures_are_told_in_turns_until_the_producer_knows():
    consumer = consumer_with(window=8)
    for lsn in range(1, 5):
        arrive(consumer, lsn, lsn - 1)
    take(consumer.outbox)
    for seq in range(4):
        consumer.fail(Key(0, seq, 0), ["E", "x" * 9000], 0.0)
    told = []
    for _ in range(4):
        consumer.receive("p", Ping(consumer.session, b"l" * 16, 4, 1, []), 0.0)
        (state,) = [message for message in take(consumer.outbox) if isinstance(message, State)]
        assert {lsn for lsn, _ in state.failed} | set(state.pending) == {1, 2, 3, 4}
        told += [lsn for lsn, _ in state.failed]
    assert sorted(set(told)) == [1, 2, 3, 4]
    consumer.receive("p", Ping(consumer.session, b"l" * 16, 4, 5, []), 0.0)
    (state,) = [message for message in take(consumer.outbox) if isinstance(message, State)]
    assert not state.failed and not state.pending


# Roles


def test_data_machine_refuses_a_state_of_other_data():
    machine = DataMachine(Counting(), 0, 1, SizedNumbers(5), "data")
    machine.receive(False, "c", ready(cursor=Cursor(9, 0, (Progress(1),), "other")), 0.0)
    ((_, answer),) = machine.producer.outbox
    assert answer.code == "mismatch" and "other" in answer.text and "data" in answer.text
    assert not machine.called
    machine.producer.outbox.clear()
    machine.receive(False, "c", ready(cursor=Cursor(9, 0, (Progress(1), Progress(2)), "data")), 0.0)
    assert "2 data machines" in machine.producer.outbox[0][1].text


def test_data_machine_refuses_a_state_of_more_than_it_has():
    machine = DataMachine(Counting(), 0, 1, SizedNumbers(10), "data")
    machine.receive(False, "w", ready(cursor=Cursor(1)), 0.0)
    machine.feed.end(20)
    for generation, streams, refused in (
        (2, ((0, ()),), False),
        (3, ((1, ()),), True),
        (4, ((0, (5,)),), True),
    ):
        progress = tuple(Progress(*each) for each in streams)
        machine.receive(False, "w", ready(cursor=Cursor(generation, 2, progress, "data")), 0.0)
        assert any(isinstance(message, Refusal) for message in take(machine.producer.outbox)) == refused


@pytest.mark.parametrize("end", [lambda machine: machine.end(10), lambda machine: machine.end_before(12)])
def test_state_of_more_is_refused_also_where_the_end_is_found_later(end):
    """A thread looks for the batch after the last one, for an earlier cursor, while the state arrives."""
    machine = DataMachine(Counting(), 0, 1, SizedNumbers(10), "data")
    machine.receive(False, "w", ready(cursor=Cursor(1)), 0.0)
    machine.receive(False, "w", ready(cursor=Cursor(2, 1, (Progress(3),), "data")), 0.0)
    assert not any(isinstance(message, Refusal) for message in take(machine.producer.outbox))
    end(machine)
    assert [message.code for message in take(machine.producer.outbox)] == ["mismatch"]
    assert not machine.finished
    assert machine.next() is None


def test_figures_of_who_is_silent_or_gone_are_not_shown():
    consumer = consumer_with()
    for peer in ("there", "silent", "gone"):
        consumer.receive(peer, Ping(b"", b"", 0, 1, [{"name": peer}]), 0.0)
    consumer.receive("there", Ping(b"", b"", 0, 1, [{"name": "there"}]), 5.5)
    consumer.receive("gone", Ping(b"", b"", 0, 1, [{"name": "gone"}]), 5.5)
    consumer.receive("gone", Bye("stopped"), 5.5)
    assert consumer.reports(6.0) == [(0.5, {"name": "there"})]


def test_refusal_from_above_reaches_the_training_machine():
    worker = Worker(Counting(), 4, 10**6)
    worker.receive(False, "t", ready(cursor=Cursor(9)), 0.0)
    worker.receive(True, "d", Refusal("mismatch", "no such data"), 0.0)
    assert ("t", Refusal("mismatch", "no such data")) in worker.producer.outbox
    trainer = Trainer(Counting(), Cursor(9), False, 4, 10**6)
    trainer.receive(True, "w", Refusal("mismatch", "no such data"), 0.0)
    assert isinstance(trainer.failure, StateMismatchError)


def test_trainer_whose_clock_is_behind_takes_a_higher_generation_but_an_accepted_one_gives_way():
    trainer = Trainer(Counting(), Cursor(9), False, 4, 10**6)
    trainer.receive(True, "w", Refusal("superseded", "", 50), 0.0)
    assert trainer.failure is None and trainer.consumer.cursor.generation == 51
    trainer.receive(True, "w", Refusal("superseded", "", 50), 0.0)
    assert trainer.consumer.cursor.generation == 51
    session = trainer.consumer.session
    trainer.receive(True, "w", Data(session, b"l" * 16, 1, Key(0, 0, 0), 1, "data", BATCH), 0.0)
    trainer.receive(True, "w", Refusal("superseded", "by another", 60), 0.0)
    assert isinstance(trainer.failure, SupersededError)


def test_living_training_machine_keeps_its_consumers_and_a_dead_one_does_not():
    producer = Producer(Counting())
    first, second = Cursor(1, owner="a:1#x"), Cursor(9, owner="b:2#y")
    producer.receive("t", ready(cursor=first), 0.0)
    producer.receive("u", ready(session=b"u" * 16, cursor=second), 1.0)
    ((peer, refusal),) = producer.outbox
    assert (peer, refusal.code) == ("u", "occupied") and "a:1 receives" in refusal.text
    assert producer.cursor == first and list(producer.links) == ["t"]
    # The same one may begin again, from a state.
    producer.receive("t", ready(session=b"v" * 16, cursor=first._replace(generation=5)), 2.0)
    assert producer.cursor.generation == 5
    producer.tick(2.0 + TIMING.death + 0.1)
    producer.receive("u", ready(session=b"u" * 16, cursor=second), 13.0)
    assert producer.cursor == second and list(producer.links) == ["u"]


def test_worker_vouches_for_a_training_machine_only_while_it_is_connected():
    worker, data = Worker(Counting(), 4, 10**6), Producer(Counting())
    owned = Cursor(9, owner="a:1#x")
    worker.receive(False, "t", ready(cursor=owned), 0.0)
    assert worker.consumer.cursor.owner == "a:1#x"
    data.receive("w", ready(cursor=worker.consumer.cursor), 0.0)
    worker.producer.lose("t")
    worker.tick(1.0)
    assert worker.consumer.cursor == owned._replace(owner="")
    # Others of the same training machine still count with what they have.
    data.receive("w", ready(cursor=worker.consumer.cursor), 1.0)
    assert data.cursor.owner == "a:1#x"
    data.receive("x", ready(session=b"x" * 16, cursor=Cursor(10, owner="b:2#y")), 1.1)
    assert data.cursor.owner == "b:2#y"


def test_refused_training_machine_waits_as_long_as_a_death_is_noticed():
    trainer = Trainer(Counting(), Cursor(9, owner="b:2#y"), False, 4, 10**6)
    refusal = Refusal("occupied", "the training machine a:1 receives the batches, and is alive")
    trainer.receive(True, "d", refusal, 5.0)
    trainer.receive(True, "d", refusal, 5.0 + TIMING.death)
    assert trainer.failure is None and "a:1" in trainer.occupant
    trainer.receive(True, "d", refusal, 5.1 + TIMING.death + 4 * TIMING.repeat)
    assert isinstance(trainer.failure, SupersededError) and "a:1" in str(trainer.failure)


def test_end_of_an_epoch_waits_for_its_batches_and_lists_their_bad_samples():
    class Three:
        def batches_in(self, epoch):
            return 3

        def number_of(self, epoch, seq=0):
            return 3 * epoch + seq

        def batch_at(self, number):
            return divmod(number, 3)

    machine = DataMachine(Counting(), 0, 1, Three(), "data")
    bad = []
    machine.end_of = lambda kind: Item(kind, list(bad), ())
    machine.receive(False, "t", ready(window=20), 0.0)
    wanted = [machine.next() for _ in range(5)]
    assert [each.key for each in wanted] == [
        Key(0, 0, 0),
        Key(0, 1, 0),
        Key(0, 2, 0),
        Key(1, 0, 0),
        Key(1, 1, 0),
    ]
    for each in (wanted[3], wanted[0], wanted[2]):
        machine.made(each.key, BATCH)
    end = Key(0, 3, 0)
    assert not machine.producer.holds(end)
    bad.append(["a.jpg", "is no picture"])
    machine.made(wanted[1].key, BATCH)
    assert machine.producer.holds(end)
    ends = [found.item for _, found in send_all(machine.producer) if found.key == end]
    assert [item.meta for item in ends] == [bad]


def test_worker_passes_on_what_it_need_not_work_on():
    worker = Worker(Counting(), 4, 10**6)
    worker.receive(False, "t", ready(cursor=Cursor(9)), 0.0)
    session = worker.consumer.session
    end = Item(Kind.END_OF_EPOCH, [], ())
    worker.receive(True, "d", Data(session, b"l" * 16, 1, Key(0, 3, 0), 1, "data", end), 0.0)
    assert not worker.inbox
    assert [found.item.kind for _, found in send_all(worker.producer)] == [Kind.END_OF_EPOCH]


def test_timing_can_be_given():
    producer = producer_with(0, timing=Timing(death=1.0))
    send_all(producer)
    producer.tick(1.5)
    assert not producer.links


# What is too much for a message


def test_cursor_is_trimmed_to_what_fits():
    wide = Cursor(1, 0, tuple(Progress(0, tuple(range(2, 3000, 2))) for _ in range(10)), "data")
    consumer = Consumer(Counting(), 4, 10**6)
    consumer.greet("p", 0.0)
    consumer.outbox.clear()
    consumer.reset(wide)
    (message,) = take(consumer.outbox)
    told = message.cursor
    assert sum(len(progress.beyond) for progress in told.streams) <= 4096
    assert [progress.base for progress in told.streams] == [0] * 10
    assert merged(told, wide) == wide
    assert len(encode(message)[0]) < 1 << 16


def test_farewell_is_remembered_when_a_worker_gives_back():
    worker = Worker(Counting(), 4, 10**6)
    worker.receive(False, "t", ready(cursor=Cursor(9)), 0.0)
    worker.receive(True, "d", Ping(b"", b"", 0, 1, []), 0.0)
    worker.receive(True, "d", Bye("end"), 0.0)
    worker.tick(5.0)
    worker.tick(30.0)
    assert not worker.producer.links
    assert worker.consumer.links["d"].leave_reason == "end"


def test_loss_of_an_ordinary_item_does_not_hold_suspects_up():
    producer = producer_with(0, 1)
    send_all(producer)
    producer.receive("c", State(producer.links["c"].link, 2, (), (1, 2)), 5.0)
    assert producer._turned_away_until == 0.0


def test_nonsense_generation_is_not_taken_over():
    trainer = Trainer(Counting(), Cursor(9), False, 4, 10**6)
    trainer.receive(True, "w", Refusal("superseded", "", 2**62), 0.0)
    assert trainer.delivery.generation == 9
