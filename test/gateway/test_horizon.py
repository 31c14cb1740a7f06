"""Positions that are not what the gateway expects: beyond the log, or above a horizon that is held."""
import json
import time

import pytest

from harness import EventStream, until
from test_follow import append, metric, take

FUTURE = 2**63 - 2


@pytest.fixture
def store(make_database):
    return make_database()


def transactions(store):
    store.query("SELECT pg_stat_force_next_flush()") if store.value("SHOW server_version_num") >= "150000" else None
    return store.value("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")


def test_positions_beyond_the_log_do_not_stop_wake_ups(store, make_gateway, keys):
    """As after a restore of the database, or by anybody who may follow."""
    gateway = make_gateway(store, poll_interval=60000)
    token = keys.static["reader"]
    with store.connect() as session:
        append(session, "before-1")
        ahead = EventStream(gateway, token=token, last_event_id=FUTURE)
        until(lambda: metric(gateway, "feeds") == 1)
        other = EventStream(gateway, token=token, last_event_id=0)
        third = EventStream(gateway, "/v1/events?category=noted", token=token)
        assert take(other, 1) == [1]
        time.sleep(1)
        before = time.monotonic()
        for number in range(3):
            position = append(session, "noted-1")
            assert take(other, 1) == [position]
            assert take(third, 1) == [position]
        assert time.monotonic() - before < 10
        assert metric(gateway, "feeds") == 2
    for stream in (ahead, other, third):
        stream.close()


def test_a_position_beyond_the_log_does_not_make_others_poll(store, make_gateway, keys):
    gateway = make_gateway(store, poll_interval=1000)
    token = keys.static["reader"]
    with store.connect() as session:
        append(session, "before-1")
        ahead = EventStream(gateway, token=token, last_event_id=FUTURE)
        until(lambda: metric(gateway, "feeds") == 1)
        others = [EventStream(gateway, token=token) for _ in range(5)]
        assert [take(other, 1) for other in others] == [[1]] * 5
        time.sleep(2)
        before = transactions(store)
        time.sleep(3)
        assert transactions(store) - before < 150
    for stream in (ahead, *others):
        stream.close()


def test_a_position_beyond_an_empty_log(store, make_gateway, keys):
    gateway = make_gateway(store, poll_interval=1000)
    token = keys.static["reader"]
    ahead = EventStream(gateway, token=token, last_event_id=FUTURE)
    until(lambda: metric(gateway, "feeds") == 1)
    others = [EventStream(gateway, token=token) for _ in range(5)]
    time.sleep(1)
    before = transactions(store)
    time.sleep(2)
    assert transactions(store) - before < 60
    with store.connect() as session:
        position = append(session, "first-1")
    assert [take(other, 1) for other in others] == [[position]] * 5
    for stream in (ahead, *others):
        stream.close()


def test_a_horizon_that_is_held_is_not_asked_for_ever_faster(store, make_gateway, keys):
    gateway = make_gateway(store, poll_interval=10)
    stream = EventStream(gateway, token=keys.static["reader"])
    with store.connect() as holder, store.connect() as session:
        with holder.transaction():
            append(holder, "held-1")
            append(session, "seen-1")
            time.sleep(2.5)
            before = transactions(store)
            time.sleep(2)
            asked = transactions(store) - before
        assert len(take(stream, 2)) == 2
    stream.close()
    assert asked < 1000, asked
