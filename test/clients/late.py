# examples/decide.py with a decision that is always too late: what its execute() does then.
import uuid

import decide

pauses = []
asked = []


def decide_late(balance, amount):
    asked.append(balance)
    decide.connect().execute("SELECT es_append('late-1', 'any', 'moved', '{\"amount\": 1}')")
    return [{"type": "moved", "data": {"amount": amount}}]


def outcome(retries):
    pauses.clear()
    asked.clear()
    try:
        decide.execute("late-1", 1, uuid.uuid4(), retries)
    except decide.psycopg.DatabaseError as error:
        return error.sqlstate


decide.decide = decide_late
decide.time.sleep = pauses.append
print(outcome(0), len(asked), len(pauses))
print(outcome(9), len(asked), len(pauses))
# half of 10 ms, 20 ms ... to all of it; a second is reached by the eighth
print(all(0.5 <= pause / min(0.01 * 2 ** i, 1) <= 1 for i, pause in enumerate(pauses)) and pauses[:7] == sorted(pauses[:7]))
first = pauses[:]
print(outcome(9), first != pauses)
