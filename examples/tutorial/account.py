"""Bank accounts in an event store, with psycopg 3: doc/tutorial/python.md."""
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb


def connect():
    return psycopg.connect(autocommit=True, row_factory=namedtuple_row)


def append(db, stream, expected, type, data, id):
    """Appends one event. Returns its version and position."""
    return db.execute(
        "SELECT version, position FROM es_append(%s, %s, %s, %s, id => %s)",
        (stream, expected, type, Jsonb(data), id)).fetchone()


def is_conflict(error):
    return error.sqlstate == "ES001"


def open_account(db):
    id = uuid.uuid4()
    print("opened, version", append(db, "account-1", "none", "opened", {"owner": "Ann"}, id).version)
    print("opened again, version", append(db, "account-1", "none", "opened", {"owner": "Ann"}, id).version)
    append(db, "account-1", 1, "deposited", {"amount": 100}, uuid.uuid4())
    try:
        append(db, "account-1", 1, "deposited", {"amount": 100}, uuid.uuid4())
    except psycopg.DatabaseError as error:
        if not is_conflict(error):
            raise
        print("conflict:", error.diag.message_primary)


def load(db, stream):
    return db.execute("SELECT version, id, type, data FROM es_load(%s)", (stream,)).fetchall()


def fold(events):
    balance = 0
    for event in events:
        match event.type:
            case "deposited":
                balance += event.data["amount"]
            case "withdrawn":
                balance -= event.data["amount"]
    return balance


class Refused(Exception):
    """The account has too little money."""


def withdraw(db, stream, amount, command_id):
    """Loads, decides and appends, again if another writer was faster. Returns the version."""
    for _ in range(10):
        events = load(db, stream)
        for event in events:
            if event.id == command_id:  # an earlier attempt, whose answer was lost
                return event.version
        if fold(events) < amount:
            raise Refused(f"only {fold(events)} left")
        try:
            return append(db, stream, events[-1].version, "withdrawn", {"amount": amount}, command_id).version
        except psycopg.DatabaseError as error:
            if not is_conflict(error):
                raise
    raise TimeoutError(f"too many writers of {stream}")


def withdraw_at_once(_):
    try:
        with connect() as db:
            withdraw(db, "account-1", 30, uuid.uuid4())
        return "done"
    except Refused as refusal:
        return str(refusal)


def withdraw_often(db):
    with ThreadPoolExecutor() as pool:
        print("four withdrawals of 30:", ", ".join(sorted(pool.map(withdraw_at_once, range(4)))))
    command_id = uuid.uuid4()
    print("withdrawn, version", withdraw(db, "account-1", 5, command_id))
    print("withdrawn again, version", withdraw(db, "account-1", 5, command_id))
    events = load(db, "account-1")
    print("balance", fold(events), "at version", events[-1].version)


def read_own_write(db):
    position = append(db, "account-1", 6, "deposited", {"amount": 20}, uuid.uuid4()).position
    db.execute("SELECT es_wait('balance', %s)", (position,))
    row = db.execute("SELECT amount FROM balance WHERE account = 'account-1'").fetchone()
    print("read model:", row.amount)


def consume(name, handled):
    """Handles events until there are no more."""
    with connect() as db:
        while True:
            events = db.execute("SELECT * FROM es_poll('mails', consumer => %s, wait => '1s')", (name,)).fetchall()
            if not events:
                return
            for event in events:
                handled.append(event)  # here the mail would be sent
            db.execute("SELECT es_ack('mails', %s)", (events[0].token,))


def consume_side_by_side(db):
    for stream in ("account-2", "account-3", "account-4"):
        db.execute("SELECT es_append_batch(%s, 'none', %s)", (stream, Jsonb([
            {"type": "opened", "data": {"owner": "Bob"}},
            {"type": "deposited", "data": {"amount": 7}}])))
    handled = []
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: consume(name, handled), ("mails-1", "mails-2")))
    for stream in sorted({event.stream for event in handled}):
        print(f"{stream}:", *(event.version for event in handled if event.stream == stream))


def listen(db):
    with connect() as listener:
        listener.execute('LISTEN "es_events:account"')
        last = db.execute("SELECT es_horizon() AS position").fetchone().position
        append(db, "account-4", 2, "withdrawn", {"amount": 7}, uuid.uuid4())
        for _ in listener.notifies():
            events = db.execute("SELECT stream, type FROM es_read_category('account', %s)", (last,)).fetchall()
            if events:
                break
        print("woken:", events[0].stream, events[0].type)


with connect() as db:
    open_account(db)
    withdraw_often(db)
    read_own_write(db)
    consume_side_by_side(db)
    listen(db)
