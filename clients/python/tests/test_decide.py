"""Decisions: conflicts, limits, lost connections, kills; each command takes effect once."""
from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import psycopg
import pytest
from conftest import running

import eventstore
from eventstore import NewEvent, Retry

PATIENT = Retry(retries=200, first=0.005, most=0.2, timeout=60)


def balance(state: int, event: Any) -> int:
    return state + int(event.data["amount"])


class Refused(Exception):
    pass


def withdraw(amount: int) -> Any:
    def decide(state: int) -> list[NewEvent]:
        if amount > state:
            raise Refused(f"only {state} left")
        return [NewEvent("moved", {"amount": -amount, "saw": state})]

    return decide


def deposit(amount: int) -> Any:
    return lambda state: [NewEvent("moved", {"amount": amount, "saw": state})]


def test_a_decision_is_stored(store: Any) -> None:
    decided = store.decide("account-1", deposit(50), evolve=balance, initial=0)
    assert (decided.version, decided.position, decided.events, decided.repeated) == (1, 1, 1, False)
    assert store.decide("account-1", withdraw(20), evolve=balance, initial=0).version == 2
    with pytest.raises(Refused, match="only 30 left"):
        store.decide("account-1", withdraw(31), evolve=balance, initial=0)
    nothing = store.decide("account-1", lambda state: [], evolve=balance, initial=0)
    assert (nothing.version, nothing.position, nothing.events) == (2, None, 0)
    with pytest.raises(ValueError, match="no ids of their own"):
        store.decide("account-1", lambda state: [NewEvent("x", id=uuid.uuid4())], evolve=balance, initial=0)
    assert store.stream_version("account-1") == 2


def test_a_repeated_command_takes_effect_once(store: Any) -> None:
    command = uuid.uuid4()
    store.decide("account-1", deposit(50), evolve=balance, initial=0)
    twice = [NewEvent("moved", {"amount": -20})] * 2
    first = store.decide("account-1", lambda state: twice, evolve=balance, initial=0, command_id=command)
    store.decide("account-1", deposit(1), evolve=balance, initial=0)
    again = store.decide("account-1", withdraw(1000), evolve=balance, initial=0, command_id=command)
    assert (again.version, again.position, again.events, again.repeated) == (3, first.position, 2, True)
    by_state = store.decide_state("account-1", withdraw(1000), reducer="es_merge", command_id=command)
    assert by_state == again
    assert [event.id for event in store.load("account-1", 1, max_count=2)] == [
        uuid.uuid5(command, "account-1:1"), uuid.uuid5(command, "account-1:2")]
    assert store.stream_version("account-1") == 4


def test_long_commands_are_found_as_a_whole(store: Any) -> None:
    command = uuid.uuid4()
    for count, stream in ((100, "long-1"), (205, "long-2")):
        events = [NewEvent("moved", {"amount": n}) for n in range(count)]
        first = store.decide(stream, lambda state: events, evolve=balance, initial=0, command_id=command)
        again = store.decide(stream, lambda state: [], evolve=balance, initial=0, command_id=command)
        assert (again.version, again.position, again.events) == (count, first.position, count)


def test_a_conflict_is_decided_again(store: Any) -> None:
    saw = []

    def decide(state: int) -> list[NewEvent]:
        saw.append(state)
        if len(saw) < 4:  # another writer is faster, three times
            with psycopg.connect(store.conninfo, autocommit=True, prepare_threshold=None) as other:
                other.execute("SELECT es_append('account-1', 'any', 'moved', '{\"amount\": 1}')")
        return [NewEvent("moved", {"amount": 10})]

    decided = store.decide("account-1", decide, evolve=balance, initial=0)
    assert saw == [0, 1, 2, 3] and decided.version == 4


def test_limits_end_the_attempts(store: Any) -> None:
    asked = []

    def late(state: Any) -> list[NewEvent]:
        asked.append(time.monotonic())
        with psycopg.connect(store.conninfo, autocommit=True, prepare_threshold=None) as other:
            other.execute("SELECT es_append('account-1', 'any', 'moved', '{\"amount\": 1}', tags => '{t}')")
        return [NewEvent("moved", {"amount": 10}, tags=["t"])]

    def attempts(retry: Retry, kind: type[Exception] = eventstore.WrongExpectedVersion) -> int:
        asked.clear()
        with pytest.raises(kind):
            if kind is eventstore.ConditionFailed:
                store.decide_if([{"tags": ["t"]}], late, evolve=balance, initial=0, retry=retry)
            else:
                store.decide("account-1", late, evolve=balance, initial=0, retry=retry)
        return len(asked)

    assert attempts(Retry(retries=0)) == 1
    assert attempts(Retry(retries=5, first=0.02, most=0.08)) == 6
    gaps = [after - before for before, after in zip(asked, asked[1:])]
    assert all(gap >= least for gap, least in zip(gaps, (0.01, 0.02, 0.04, 0.04, 0.04)))
    assert attempts(Retry(retries=1000, first=0.05, most=0.05, timeout=0.2)) <= 8
    assert attempts(Retry(retries=3, first=0.001), eventstore.ConditionFailed) == 4


def test_pauses_are_drawn_at_random() -> None:
    drawn = [list(Retry(retries=8).pauses()) for _ in range(20)]
    assert len({tuple(pauses) for pauses in drawn}) == 20
    for pauses in drawn:
        for n, pause in enumerate(pauses):
            assert min(0.01 * 2 ** n, 1) / 2 <= pause <= min(0.01 * 2 ** n, 1)


def test_an_error_of_the_program_is_not_repeated(store: Any) -> None:
    calls = []

    def wrong(state: int) -> list[NewEvent]:
        calls.append(state)
        return [NewEvent("es_forbidden")]

    with pytest.raises(psycopg.errors.InvalidParameterValue):
        store.decide("account-1", wrong, evolve=balance, initial=0)
    assert calls == [0]


def test_decisions_over_tags(store: Any) -> None:
    def register(name: str) -> Any:
        def decide(taken: bool) -> list[NewEvent]:
            if taken:
                raise Refused(f"{name} is taken")
            return [NewEvent("registered", {}, tags=[f"name:{name}"])]

        return decide

    def decide(name: str, **named: Any) -> Any:
        return store.decide_if([{"tags": [f"name:{name}"]}], register(name), evolve=lambda taken, event: True,
                               initial=False, **named)

    command = uuid.uuid4()
    first = decide("ann", command_id=command)
    assert (first.version, first.position, first.events) == (None, 1, 1)
    with pytest.raises(Refused):
        decide("ann")
    again = decide("ann", command_id=command)
    assert (again.position, again.events, again.repeated) == (1, 1, True)
    nothing = store.decide_if([{"tags": ["name:bob"]}], lambda taken: [], evolve=lambda s, e: s, initial=None)
    assert nothing == eventstore.Decided(None, None, 0)


def test_one_of_many_gets_the_name(client: Any, conninfo: str, database: Any) -> None:
    store = client.store(conninfo)
    answers = []

    def register(n: int) -> Any:
        def decide(taken: bool) -> list[NewEvent]:
            if taken:
                raise Refused
            return [NewEvent("registered", {"by": n}, tags=["name:ann"])]

        def run() -> None:
            try:
                store.decide_if([{"tags": ["name:ann"]}], decide, evolve=lambda taken, event: True, initial=False,
                                retry=PATIENT)
                answers.append(n)
            except Refused:
                pass

        return run

    with running(*[register(n) for n in range(8)]):
        pass
    assert database.query("SELECT (data->>'by')::int FROM es_events") == answers
    assert len(answers) == 1
    store.close()


def test_in_a_transaction_a_conflict_is_a_savepoint(client: Any, conninfo: str) -> None:
    store = client.store(conninfo)
    saw = []

    def decide(state: int) -> list[NewEvent]:
        saw.append(state)
        if len(saw) == 1:
            with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as other:
                other.execute("SELECT es_append('account-1', 'any', 'moved', '{\"amount\": 7}')")
        return [NewEvent("moved", {"amount": 1})]

    with store.transaction() as transaction:
        transaction.append("note-1", "none", NewEvent("noted"))
        transaction.decide("account-1", decide, evolve=balance, initial=0)
    assert saw == [0, 7]
    assert (store.stream_version("account-1"), store.stream_version("note-1")) == (2, 1)
    store.close()


@pytest.mark.kills
def test_decisions_survive_kills(client: Any, conninfo: str, database: Any) -> None:
    """Eight deciders on one stream; meanwhile the server crashes, and sessions are ended."""
    by = "evolve" if client.kind == "sync" else "reducer"
    store = client.store(conninfo)
    database.query("""CREATE FUNCTION account_reduce(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
        IMMUTABLE RETURN jsonb_build_object('balance', coalesce((state->>'balance')::int, 0)
                                            + (event.data->>'amount')::int)""")
    each, deciders = 15, 8
    ended = threading.Event()

    def decide_all(n: int) -> None:
        for m in range(each):
            command = uuid.uuid5(uuid.NAMESPACE_OID, f"{n} {m}")
            for _ in range(2 if m % 5 == 0 else 1):  # some are repeated although they had their answer
                if by == "evolve":
                    store.decide("account-1", deposit(n * 100 + m), evolve=balance, initial=0, command_id=command,
                                 retry=PATIENT)
                else:
                    store.decide_state("account-1", lambda state: deposit(n * 100 + m)(state.get("balance", 0)),
                                       reducer="account_reduce", command_id=command, retry=PATIENT)

    def disturb() -> None:
        database.until(f"SELECT count(*) > {deciders * each // 6} FROM es_events")
        database.crash()
        while not ended.wait(0.3):
            database.end_sessions()

    deciding = [lambda n=n: decide_all(n) for n in range(deciders)]
    with running(disturb):
        try:
            with running(*deciding):
                pass
        finally:
            ended.set()
    assert database.query("SELECT count(*), count(DISTINCT id), max(version), count(DISTINCT data->'amount')"
                          " FROM es_events") == [(deciders * each,) * 4]
    assert database.query("""SELECT count(*) FROM (SELECT (data->>'saw')::int AS saw, sum((data->>'amount')::int)
        OVER (ORDER BY version) - (data->>'amount')::int AS balance FROM es_events) AS e WHERE saw <> balance""") == [0]
    store.close()
