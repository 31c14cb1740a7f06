"""Appends, reads, folds and errors, in each kind of store, directly and through the pooler."""
from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

import eventstore
from eventstore import NewEvent

BALANCE = """CREATE TABLE balance (account text PRIMARY KEY, amount bigint NOT NULL);
    SELECT es_create_projection('balance', category => 'account', tables => '{balance}', query => $$
        INSERT INTO balance SELECT stream, sum((data->>'amount')::bigint) FROM new_events GROUP BY stream
        ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$)"""


def moved(amount: int, **named: Any) -> NewEvent:
    return NewEvent("moved", {"amount": amount}, **named)


def test_what_is_appended_is_loaded(store: Any) -> None:
    at = datetime(2026, 1, 31, 20, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    id = uuid.uuid4()
    event = NewEvent("opened", {"owner": "Ann ☃", "n": [1, None]}, {"user": "u"}, id, at, ["b", "a", "b"], b"\0\xff")
    assert store.append("account-1", "none", event) == eventstore.Appended(1, 1)
    batch = [NewEvent("opened", None, {"user": "u"}, uuid.uuid4(), at, ["a"], b""), moved(5)]
    assert store.append_batch("account-1", 1, batch).version == 3
    first, second, third = store.load("account-1")
    assert (first.position, first.version, first.stream, first.type, first.data, first.metadata, first.id) == (
        1, 1, "account-1", "opened", {"owner": "Ann ☃", "n": [1, None]}, {"user": "u"}, id)
    assert (first.occurred_at, first.tags, first.body) == (at, ("a", "b"), b"\0\xff")
    assert first.recorded_at.tzinfo is not None
    assert (second.data, second.occurred_at, second.tags, second.body, second.id) == (
        None, at, ("a",), b"", batch[0].id)
    assert (third.data, third.metadata, third.occurred_at, third.tags, third.body) == (
        {"amount": 5}, None, None, (), None)
    assert store.event(id) == first
    assert store.event(uuid.uuid4()) is None
    assert store.last_event("account-1") == third
    assert store.last_event("account-1", "opened") == second
    assert store.last_event("account-2") is None
    assert (store.stream_version("account-1"), store.stream_version("account-2")) == (3, 0)
    assert store.append_batch("account-1", "any", []) == eventstore.Appended(3, None)


def test_data_of_any_kind_stay_as_they_are(store: Any) -> None:
    values: list[Any] = [{}, [], "text", "", 0, -1.5, True, None, 2 ** 70, {"a": {"b": [None]}}]
    for value in values:
        store.append("kinds-1", "any", NewEvent("kind", value))
    store.append_batch("kinds-2", "any", [NewEvent("kind", value) for value in values])
    assert [event.data for event in store.load("kinds-1")] == values
    assert [event.data for event in store.load("kinds-2")] == values


def test_reads_come_in_pages(client: Any, conninfo: str) -> None:
    store = client.store(conninfo, page=7)
    store.append_batch("account-1", "none", [moved(n, tags=["even"] if n % 2 == 0 else []) for n in range(1, 22)])
    for after, most in ((0, None), (5, None), (0, 7), (0, 8), (3, 14), (0, 0), (21, None), (0, 100)):
        wanted = list(range(1, 22))[after:][:most]
        assert [event.version for event in store.load("account-1", after, max_count=most)] == wanted
        assert [event.position for event in store.read(after, max_count=most)] == wanted
    even = [{"tags": ["even"]}]
    assert [event.version for event in store.read(query=even)] == list(range(2, 22, 2))
    assert [event.version for event in store.query(even, 10)] == list(range(12, 22, 2))
    assert list(store.load("account-9")) == []
    store.close()


def test_errors_have_types_and_values(store: Any) -> None:
    id = uuid.uuid4()
    store.append("account-1", "none", moved(1, id=id))
    with pytest.raises(eventstore.WrongExpectedVersion) as wrong:
        store.append("account-1", 7, moved(2))
    assert (wrong.value.sqlstate, wrong.value.stream, wrong.value.expected, wrong.value.actual) == (
        "ES001", "account-1", 7, 1)
    assert "actual version is 1" in str(wrong.value) and wrong.value.hint
    assert isinstance(wrong.value, psycopg.DatabaseError) and wrong.value.__cause__.sqlstate == "ES001"
    with pytest.raises(eventstore.WrongExpectedVersion) as wrong:
        store.append("account-1", "none", moved(2))
    assert (wrong.value.expected, wrong.value.actual) == ("none", 1)
    with pytest.raises(eventstore.DuplicateEvent) as duplicate:
        store.append("account-1", "any", moved(2, id=id))
    assert duplicate.value.sqlstate == "ES002" and duplicate.value.detail
    assert store.append("account-1", "none", moved(1, id=id)).version == 1  # a retry
    with pytest.raises(eventstore.NotClaimed):
        store.fetch("SELECT es_create_subscription('mails')")
        store.ack("mails", 99)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        store.append("es_own", "any", moved(1))
    with pytest.raises(psycopg.errors.UndefinedObject):
        store.poll("no-such")


def test_each_code_has_its_type(database: Any) -> None:
    store = eventstore.EventStore(database.direct)
    database.query("SELECT es_define_event_type('moved', required => '{amount}')")
    with pytest.raises(eventstore.InvalidEvent):
        store.append("account-1", "any", NewEvent("moved", {}))
    store.append("account-1", "any", moved(1))
    database.query("SELECT es_delete_stream('account-1', 'any', tombstone => true)")
    with pytest.raises(eventstore.StreamClosed) as closed:
        store.append("account-1", "any", moved(1))
    assert closed.value.stream == "account-1"
    database.query("SELECT es_define_event_type('joined', personal => '{name}'), es_erase_subject('17')")
    with pytest.raises(eventstore.SubjectErased) as erased:
        store.append("person-17", "any", NewEvent("joined", {"name": "Ann"}))
    assert (erased.value.sqlstate, erased.value.subject) == ("ES008", "17")
    assert not eventstore.is_transient(erased.value)
    database.query("SELECT es_set_slots('{[0,512)}')")
    with pytest.raises(eventstore.WrongShard) as elsewhere:
        store.append("account-1", "any", moved(1))
    assert (elsewhere.value.sqlstate, elsewhere.value.stream, elsewhere.value.slot) == ("ES009", "account-1", 852)
    assert not eventstore.is_transient(elsewhere.value)
    database.query("SELECT es_set_slots(NULL)")
    database.query("CREATE TABLE t (n bigint)")
    database.query("SELECT es_create_projection('broken', tables => '{t}', max_attempts => 1, "
                   "query => 'INSERT INTO t SELECT 1 / (data->>''amount'')::bigint FROM new_events')")
    position = store.append("account-2", "any", moved(0)).position
    with pytest.raises(eventstore.ProjectionFailed) as failed:
        store.wait("broken", position, timeout=20)
    assert failed.value.detail
    store.close()


def test_append_if(store: Any) -> None:
    query = [{"types": ["registered"], "tags": ["username:ann"]}]
    event = NewEvent("registered", {}, tags=["username:ann"], stream="user-1", expected_version="none")
    stored = store.append_if([event], query)
    assert (stored.first_position, stored.position) == (1, 1)
    with pytest.raises(eventstore.ConditionFailed) as failed:
        store.append_if([NewEvent("registered", tags=["username:ann"])], query)
    assert failed.value.position == 1
    assert store.append_if([NewEvent("registered", tags=["username:ann"])], query, 1).position == 2
    with pytest.raises(eventstore.ConditionFailed) as failed:
        store.append_if([NewEvent("registered", tags=["username:ann"])], query)
    assert failed.value.position == 1
    assert [event.stream for event in store.query(query)] == ["user-1", "event-username:ann"]


def test_states_and_commands_of_the_database(store: Any) -> None:
    store.fetch("""CREATE FUNCTION withdraw(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
            IF state ? 'taken' THEN RAISE 'only one withdrawal'; END IF;
            RETURN jsonb_build_array(jsonb_build_object('type', 'taken', 'data',
                jsonb_build_object('taken', command->'amount')));
        END $$""")
    store.append("account-1", "none", NewEvent("opened", {"owner": "Ann"}))
    command = uuid.uuid4()
    done = store.execute("account-1", "withdraw", {"amount": 20}, "es_merge", command_id=command)
    assert done == eventstore.Executed(2, 2, {"owner": "Ann", "taken": 20}, 1)
    again = store.execute("account-1", "withdraw", {"amount": 20}, "es_merge", command_id=command)
    assert (again.version, again.position) == (2, 2)
    with pytest.raises(psycopg.errors.RaiseException, match="only one withdrawal"):
        store.execute("account-1", "withdraw", {"amount": 20}, "es_merge", metadata={"user": "u"})
    assert store.state("account-1", "es_merge") == eventstore.State({"owner": "Ann", "taken": 20}, 2)
    assert store.state("account-1", "es_merge", at_version=1).state == {"owner": "Ann"}
    assert store.state("account-2", "es_merge", initial={"a": 1}) == eventstore.State({"a": 1}, 0)
    assert [event.metadata["command_id"] for event in store.load("account-1", 1)] == [str(command)]


def test_own_writes_are_read(store: Any) -> None:
    store.fetch(BALANCE)
    for n in range(1, 6):
        appended = store.append("account-1", "any", moved(10))
        assert store.wait("balance", appended)
        assert store.fetch("SELECT amount FROM balance") == [(10 * n,)]
    assert store.wait("balance", store.append_batch("account-1", "any", []))  # nothing to wait for
    with store.transaction() as transaction:
        position = transaction.append("account-1", "any", moved(1)).position
        transaction.fetch("SELECT es_run_projections()")
        assert transaction.wait("balance", position, timeout=0.2)


def test_a_wait_ends(database: Any) -> None:
    store = eventstore.EventStore(database.direct)
    store.fetch(BALANCE)
    with store.transaction() as transaction:
        held = transaction.append("account-1", "any", moved(1)).position
        other = store.append("account-2", "any", moved(1)).position
        assert other is not None and other > held
        assert not store.wait("balance", other, timeout=0.2)  # the open append holds the horizon
    assert store.wait("balance", other, timeout=20)
    store.close()


def test_a_transaction_is_all_or_nothing(store: Any) -> None:
    store.fetch("CREATE TABLE orders (id int)")
    with store.transaction() as transaction:
        transaction.append("account-1", "none", moved(1))
        transaction.fetch("INSERT INTO orders VALUES (1)")
        with pytest.raises(eventstore.WrongExpectedVersion), transaction.transaction() as savepoint:
            savepoint.append("account-2", "any", moved(1))
            savepoint.append("account-1", 9, moved(1))
        assert store.stream_version("account-1") == 0  # not yet for others
    assert (store.stream_version("account-1"), store.stream_version("account-2")) == (1, 0)
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:
        transaction.append("account-1", 1, moved(1))
        transaction.fetch("INSERT INTO orders VALUES (2)")
        raise ZeroDivisionError
    assert store.stream_version("account-1") == 1
    assert store.fetch("SELECT id FROM orders") == [(1,)]


def test_bad_events_are_refused_before_they_are_sent() -> None:
    with pytest.raises(TypeError, match="not a string"):
        NewEvent("moved", tags="account:1")
    with pytest.raises(ValueError, match="time zone"):
        NewEvent("moved", occurred_at=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="page"):
        eventstore.EventStore("", page=0)


def test_connections_are_kept_and_replaced(client: Any, database: Any) -> None:
    store = client.store(database.direct)
    first = store.fetch("SELECT pg_backend_pid()")
    assert store.fetch("SELECT pg_backend_pid()") == first
    assert database.end_sessions() == 1
    with pytest.raises(psycopg.OperationalError):
        store.fetch("SELECT 1")
    assert store.fetch("SELECT pg_backend_pid()") != first
    store.close()
    database.until("SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()"
                   " AND backend_type = 'client backend'")


def test_a_pool_can_lend_connections(database: Any) -> None:
    lent = []

    def lend() -> Any:
        connection = psycopg.connect(database.direct)
        lent.append(connection)
        return connection  # its block commits, and closes it

    store = eventstore.EventStore(lend)
    store.append("account-1", "none", moved(1))
    with pytest.raises(eventstore.WrongExpectedVersion):
        store.append("account-1", "none", moved(1))
    assert eventstore.EventStore(database.direct).stream_version("account-1") == 1
    assert len(lent) == 2 and all(connection.closed for connection in lent)
