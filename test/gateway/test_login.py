"""The role by which the gateway connects: what it may not lend, and what the log warns of."""
import psycopg
import pytest

import harness
from harness import ask, request, until


class LoginAs(harness.Database):
    """The same database, for a gateway that connects as another role."""

    def __init__(self, database, user):
        super().__init__(database.name, database.host)
        self.user = user

    def conninfo(self, user=None):
        return super().conninfo(user or self.user)


@pytest.fixture(scope="module")
def loose(database):
    """A login role that has more than it should, and a superuser that it may become."""
    database.query("CREATE ROLE boss SUPERUSER")
    database.query("CREATE ROLE loose LOGIN CREATEDB IN ROLE boss, reader")
    return "loose"


def warnings(gateway):
    return [entry["message"].partition(", but ")[2] for entry in gateway.entries() if entry.get("event") == "login_role"]


def asked(gateway, keys, role):
    return ask(gateway, request("GET", "/v1/whoami", keys.jwt(role))).status


def test_superuser_is_not_lent(make_gateway, database, keys, loose):
    gateway = make_gateway(LoginAs(database, loose))
    assert asked(gateway, keys, "reader") == 200
    assert asked(gateway, keys, "boss") == 403
    assert asked(gateway, keys, loose) == 403
    assert database.value("SELECT pg_has_role('loose', 'boss', 'MEMBER')"), "SET ROLE would do it"


def test_superuser_that_logs_in_is_not_lent(make_gateway, database, keys):
    gateway = make_gateway(LoginAs(database, "postgres"))
    assert asked(gateway, keys, "reader") == 200
    for role in ("postgres", "boss"):
        assert asked(gateway, keys, role) == 403


def test_how_a_superuser_is_found(database, loose):
    """The pool asks for a privilege on a parameter that there is none of, which is quicker than pg_roles."""
    assert database.query("""SELECT rolname FROM pg_roles
                              WHERE rolsuper IS DISTINCT FROM
                                    has_parameter_privilege(to_regrole(quote_ident(rolname))::oid, 'superuser', 'SET')""") == []
    with pytest.raises((psycopg.errors.InvalidName, psycopg.errors.UndefinedObject)):
        database.query("GRANT SET ON PARAMETER superuser TO reader")


def test_warnings(make_gateway, database, loose):
    gateway = make_gateway(LoginAs(database, loose))
    found = until(lambda: warnings(gateway))
    assert found == ["it has CREATEDB", "it inherits the privileges of boss, reader",
                     "it may set boss, which is a superuser and is refused"]
    gateway = make_gateway(LoginAs(database, "postgres"))
    assert until(lambda: warnings(gateway)) == ["it is a superuser"]


def test_no_warning(make_gateway):
    gateway = make_gateway()
    assert ask(gateway, request("GET", "/readyz")).status == 200
    assert warnings(gateway) == []


def test_role_that_is_revoked(make_gateway, database, keys):
    """It ends with the next request, since nothing about roles is kept."""
    database.query("CREATE ROLE guest")
    database.query("GRANT guest TO gateway")
    gateway = make_gateway()
    assert asked(gateway, keys, "guest") == 200
    database.query("REVOKE guest FROM gateway")
    assert asked(gateway, keys, "guest") == 403
    database.query("GRANT guest TO gateway")
    assert asked(gateway, keys, "guest") == 200
    database.query("ALTER ROLE guest SUPERUSER")
    assert asked(gateway, keys, "guest") == 403
    database.query("ALTER ROLE guest NOSUPERUSER")
    assert asked(gateway, keys, "guest") == 200
