"""What must hold of appends and of event streams, whatever was killed meanwhile.

The judges are functions of what clients have noted and of what the database has. They return what is wrong, as
sentences, so that a test can also show that each of them finds what it is for (test_kill.py).
"""
import collections


class Append:
    """One event that a client wanted to be stored: what it sent, and each answer that it got."""

    def __init__(self, event_id, stream, number):
        self.id = event_id
        self.stream = stream
        self.number = number                  # in data, unique for the client
        self.answers = []                     # (status, version, position); the last two None where not stored

    def stored(self):
        return [answer[1:] for answer in self.answers if answer[0] == 201]


def judge_appends(appends, rows):
    """Compares appends with the rows (id, stream, version, position, number) of the log."""
    wrong = []
    found = collections.defaultdict(list)
    for row in rows:
        found[row[0]].append(row)
    sent = {append.id: append for append in appends}
    for append in appends:
        rows_of_it = found.get(append.id, [])
        results = set(append.stored())
        if len(rows_of_it) > 1:
            wrong.append(f"{append.id} is stored {len(rows_of_it)} times")
        if len(results) > 1:
            wrong.append(f"{append.id} has several results: {results}")
        if results and not rows_of_it:
            wrong.append(f"{append.id} was answered 201 and is not stored")
        for _, stream, version, position, number in rows_of_it:
            if (stream, number) != (append.stream, append.number):
                wrong.append(f"{append.id} is stored as {stream} {number}, not {append.stream} {append.number}")
            if results and (version, position) not in results:
                wrong.append(f"{append.id} is stored as {version} at {position}, and was answered as {results}")
        if append.answers and append.answers[-1][0] != 201:
            wrong.append(f"{append.id} came to no result: {append.answers[-3:]}")
    for event_id in found:
        if event_id not in sent:
            wrong.append(f"{event_id} is stored, and nobody sent it")
    numbers = collections.defaultdict(list)
    for row in rows:
        numbers[row[1]].append((row[2], row[4]))
    for stream, entries in numbers.items():
        entries.sort()
        if [version for version, _ in entries] != list(range(1, len(entries) + 1)):
            wrong.append(f"the versions of {stream} have a gap or a repetition")
        if [number for _, number in entries] != sorted(number for _, number in entries):
            wrong.append(f"the events of {stream} are not in the order in which they were sent")
    return wrong


def judge_stream(received, positions):
    """Compares the positions that a follower got, in their order over all of its connections, with those of the log."""
    wrong = []
    for before, after in zip(received, received[1:]):
        if after == before:
            wrong.append(f"{after} came twice")
        elif after < before:
            wrong.append(f"{after} came after {before}")
    missing = sorted(set(positions) - set(received))
    if missing:
        wrong.append(f"{len(missing)} events did not come, the first at {missing[0]}")
    foreign = sorted(set(received) - set(positions))
    if foreign:
        wrong.append(f"{len(foreign)} events came that the log does not have, the first at {foreign[0]}")
    return wrong
