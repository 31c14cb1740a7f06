import json
import psycopg
import pytest


@pytest.fixture
def rolled_back():
    """A transaction that leaves nothing."""
    with psycopg.connect("") as db:
        yield db
        db.rollback()


@pytest.fixture
def emptied():
    """An empty store, for a test that commits; it is emptied again afterwards."""
    with psycopg.connect("", autocommit=True) as db:
        db.execute("SELECT es_reset()")
        yield db
        db.execute("SELECT es_reset()")


def append(db, expected, type, **data):
    sql = "SELECT position FROM es_append('account-1', %s, %s, %s)"
    return db.execute(sql, [expected, type, json.dumps(data)]).fetchone()[0]


@pytest.mark.parametrize("amount, events, error", [
    (20, [{"type": "withdrawn", "data": {"amount": 20}}], None),
    (51, None, "only 50 left"),
])
def test_withdraw(rolled_back, amount, events, error):
    given = [{"type": "opened"}, {"type": "deposited", "data": {"amount": 50}}]
    sql = """SELECT events, error FROM es_test_decider('account.es_reduce', 'account.withdraw',
                                                       given => %s, command => %s)"""
    assert rolled_back.execute(sql, [json.dumps(given), json.dumps({"amount": amount})]).fetchone() == (events, error)


def test_balance(rolled_back):
    append(rolled_back, "none", "opened")
    position = append(rolled_back, "1", "deposited", amount=50)
    assert rolled_back.execute("SELECT es_run_projections('balance')").fetchone() == (2,)
    assert rolled_back.execute("SELECT es_wait('balance', %s)", [position]).fetchone() == (True,)
    assert rolled_back.execute("SELECT account, amount FROM balance").fetchall() == [("account-1", 50)]
    assert rolled_back.execute("SELECT type FROM es_poll('mails')").fetchall() == [("opened",), ("deposited",)]


def test_conflict(emptied):
    assert append(emptied, "none", "opened") == 1
    with psycopg.connect("", autocommit=True) as other:
        position = append(other, "1", "deposited", amount=7)
    with pytest.raises(psycopg.Error) as conflict:
        append(emptied, "1", "deposited", amount=5)
    assert conflict.value.sqlstate == "ES001"
    assert emptied.execute("SELECT es_wait('balance', %s)", [position]).fetchone() == (True,)    # a worker runs it
    assert emptied.execute("SELECT amount FROM balance").fetchone() == (7,)
