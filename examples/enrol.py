"""Decides on the events of a course and of a student, in Python, with the
driver psycopg 3.

    python3 enrol.py offer COURSE SEATS
    python3 enrol.py enrol COURSE STUDENT...

A course has a number of seats, and a student has at most five courses. It
connects by the usual variables: PGHOST, PGDATABASE, PGUSER ...
"""
import os
import random
import sys
import time
import uuid

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

RETRIES = int(os.environ.get("RETRIES", "20"))
connection = None


class Refused(Exception):
    pass


def offer(course, seats):
    """Returns a query, and the decision on the events that match it."""
    def decide(events):
        if events:
            raise Refused(f"course {course} exists")
        return [{"type": "offered", "data": {"seats": int(seats)}, "tags": [f"course:{course}"]}]

    return [{"types": ["offered"], "tags": [f"course:{course}"]}], decide


def enrol(course, student):
    course_tag, student_tag = f"course:{course}", f"student:{student}"

    def decide(events):
        seats = sum(event.data["seats"] for event in events if event.type == "offered")
        enrolled = [event for event in events if event.type == "enrolled"]
        if sum(course_tag in event.tags for event in enrolled) >= seats:
            raise Refused(f"course {course} is full")
        if sum(student_tag in event.tags for event in enrolled) >= 5:
            raise Refused(f"student {student} has 5 courses")
        if any(course_tag in event.tags and student_tag in event.tags for event in enrolled):
            raise Refused(f"student {student} is in course {course}")
        return [{"type": "enrolled", "tags": [course_tag, student_tag]}]

    return [{"types": ["offered", "enrolled"], "tags": [course_tag]},
            {"types": ["enrolled"], "tags": [student_tag]}], decide


def attempt(query, decide, command_id):
    """Queries, decides and appends, once. Returns the position of the command's
    last event."""
    events = connect().execute("SELECT * FROM es_query(%s)", (Jsonb(query),)).fetchall()
    first_id = uuid.uuid5(command_id, "1")
    for event in events:
        if event.id == first_id:  # an earlier attempt, whose answer was lost
            return event.position
    decided = decide(events)
    for number, event in enumerate(decided, 1):
        event["id"] = str(uuid.uuid5(command_id, str(number)))
    # the last event of this query, and not of the log
    after = events[-1].position if events else 0
    return connect().execute("SELECT position FROM es_append_if(%s, %s, %s::bigint)",
                             (Jsonb(decided), Jsonb(query), after)).fetchone().position


def execute(query, decide, command_id, retries=RETRIES):
    """Repeats the attempt until its result is known, at most RETRIES times."""
    pause = 0.01
    for retry in range(retries + 1):
        try:
            return attempt(query, decide, command_id)
        except psycopg.DatabaseError as error:
            # something came in between, or a deadlock
            conflict = error.sqlstate in ("ES007", "40P01")
            unknown = isinstance(error, psycopg.OperationalError)  # such as a lost connection
            if retry == retries or not (conflict or unknown):
                raise
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(pause * 2, 1)


def connect():
    global connection
    if connection is None or connection.closed:
        connection = psycopg.connect(autocommit=True, prepare_threshold=None, row_factory=namedtuple_row)
    return connection


def main():
    command, course, *arguments = sys.argv[1:]
    for argument in arguments:
        # made once for the command, and kept with it, so that each repetition has the same id
        command_id = uuid.uuid4()
        try:
            print(execute(*{"offer": offer, "enrol": enrol}[command](course, argument), command_id))
        except Refused as refusal:
            print(refusal)


if __name__ == "__main__":
    main()
