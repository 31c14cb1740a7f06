"""Calls every function in each way in which psycopg 3 sends parameters (drivers.sql).

Every call is undone.  What was answered goes into the table said: the text of the first
column of the first row, or the SQLSTATE.
"""
import datetime
import json
import re
import uuid
from decimal import Decimal

import psycopg
from psycopg.types.json import Json, Jsonb
from psycopg.types.numeric import Int2, Int4, Int8

PLAIN = {"text": str, "function": str, "schema": str, "role": str, "class": str}
OIDS = {"version": 20, "int": 20, "text": 25, "function": 25, "json": 3802, "uuid": 2950, "time": 1184, "interval": 1186,
        "texts": 1009, "jsons": 3807, "uuids": 2951, "times": 1185, "bytea": 17, "byteas": 1001}


def interval(value):
    number, _, _ = value.partition(" ")
    return datetime.timedelta(seconds=int(number))


def native(kind, value):
    """The value as Python has it."""
    if kind == "version":
        return int(value) if value.isdigit() else value
    one = {"int": int, "uuid": uuid.UUID, "time": datetime.datetime.fromisoformat, "interval": interval,
           "bytea": lambda hexadecimal: bytes.fromhex(hexadecimal[2:])}
    if kind in one:
        return one[kind](value.replace("Z", "+00:00") if kind == "time" else value)
    if kind == "json":
        return Jsonb(json.loads(value))
    elements = {"texts": "text", "jsons": "json", "uuids": "uuid", "times": "time", "classes": "class", "byteas": "bytea"}
    if kind in elements:
        return [native(elements[kind], element) for element in json.loads(value)]
    return value


def wide(number):
    """Numbers of each type that psycopg has a class for."""
    return lambda kind, value: number(value) if kind in ("int", "version") and value.isdigit() else native(kind, value)


def answer(connection, ask):
    connection.execute("BEGIN")
    try:
        row = ask().fetchone()
        return None if row is None else row[0]
    except psycopg.Error as error:
        return error.sqlstate
    finally:
        connection.execute("ROLLBACK")


def libpq(connection, sql, kinds, values):
    """By the protocol's own call, with a type for each parameter."""
    def oid(kind, value):
        return 25 if kind == "version" and not value.isdigit() else OIDS.get(kind, 0)

    def ask():
        result = connection.pgconn.exec_params(
            sql.encode(), [value.encode() for value in values], [oid(k, v) for k, v in zip(kinds, values)])
        if result.status not in (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
        return type("Row", (), {"fetchone": lambda self: [(result.get_value(0, 0) or b"").decode()]})()
    return ask


def ways(connection, variant, sql, kinds, values, natives):
    """Yields the name of each way, and what asks so."""
    text = re.sub(r"\$\d+", "%s", sql.replace("%", "%%"))

    def execute(parameters, statement=text, cursor=connection.cursor, **how):
        return lambda: cursor().execute(statement, parameters, **how)

    if variant == "literal":
        yield "simple", lambda: psycopg.ClientCursor(connection).execute(sql)
        return
    yield "untyped", execute(values)
    yield "prepared", execute(values, prepare=True)
    yield "prepared again", execute(values, prepare=True)
    yield "client side", execute(values, cursor=lambda: psycopg.ClientCursor(connection))
    if variant != "plain":
        return
    objects = [native(k, v) for k, v in zip(kinds, natives)]
    yield "native", execute(objects)
    yield "native prepared", execute(objects, prepare=True)
    yield "native prepared again", execute(objects, prepare=True)
    yield "native, results binary", execute(objects, cursor=lambda: connection.cursor(binary=True))
    yield "native, client side", execute(objects, cursor=lambda: psycopg.ClientCursor(connection))
    for number in (Int2, Int4, Int8):
        if number is Int8 or all(len(v) < 5 for k, v in zip(kinds, values) if k == "int"):
            yield number.__name__, execute([wide(number)(k, v) for k, v in zip(kinds, natives)])
    if not {"class", "classes", "role", "schema"} & set(kinds):
        yield "native, binary", execute(objects, re.sub("%s", "%b", text))
        yield "typed", libpq(connection, sql, kinds, values)


def alone(connection):
    """What is psycopg's own: yields what it is, what is answered, and what must be."""
    append = "SELECT version FROM es_append('a-1', %s, 'a', %s)"
    yield "Json", answer(connection, lambda: connection.execute(append, (4, Json({})))), "42883"
    yield "Decimal", answer(connection, lambda: connection.execute(append, (Decimal(4), Jsonb({})))), "42883"
    yield "SELECT f()", answer(connection, lambda: connection.execute("SELECT es_append('a-1', 4, 'a')"))[:3], "(5,"
    yield "SELECT FROM f()", repr(answer(connection, lambda: connection.execute("SELECT * FROM es_append('a-1', 4, 'a')"))), "5"
    tags, body = ["b", "with, comma"], b"\x00\xff\\'"
    for form in (False, True):
        for part, value in (("tags", tags), ("body", body)):
            yield f"{part} of es_poll, binary {form}", str(answer(connection, lambda: connection.execute(
                f"SELECT {part} FROM es_poll('bytes', 'c')", binary=form)) == value), "True"


def main():
    connection = psycopg.connect(autocommit=True)
    said = []
    for number, variant, sql, kinds, values, natives in connection.execute(
            'SELECT id, variant, sql, kinds, "values", natives(kinds, "values") FROM calls ORDER BY id').fetchall():
        for way, ask in ways(connection, variant, sql, kinds, values, natives):
            said.append(("python", way, number, answer(connection, ask)))
    connection.cursor().executemany("INSERT INTO said VALUES (%s, %s, %s, %s)", said)
    for row in alone(connection):
        connection.execute("INSERT INTO said_alone VALUES ('python', %s, %s, %s)", row)


main()
