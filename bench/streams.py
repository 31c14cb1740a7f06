"""The client of bench/streams: many event streams in one process, and what they cost the gateway.

    streams.py URL TOKEN PID CONNINFO IDLE FOLLOWERS ROUNDS
"""
import re
import select
import socket
import statistics
import sys
import time
import urllib.parse

import psycopg


class Streams:
    """Event streams of one filter, read by one epoll."""

    def __init__(self, url, token, count, query=""):
        where = urllib.parse.urlparse(url)
        self.epoll = select.epoll()
        self.sockets = {}
        self.last = {}                         # of each socket, the end of what it has got
        self.events = {}
        head = (f"GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                f"Accept: text/event-stream\r\n\r\n").encode()
        for _ in range(count):
            client = socket.create_connection((where.hostname, where.port))
            client.sendall(head)
            client.setblocking(False)
            self.sockets[client.fileno()] = client
            self.last[client.fileno()] = b""
            self.events[client.fileno()] = 0
            self.epoll.register(client.fileno(), select.EPOLLIN)

    def read(self, timeout):
        """Reads what is there; returns the moment before which the last event of it had come, or None."""
        found = None
        for number, _ in self.epoll.poll(timeout):
            data = self.sockets[number].recv(65536)
            if not data:
                raise EOFError(self.last[number])
            text = self.last[number] + data
            count = text.count(b"\ndata: ")
            if count:
                self.events[number] += count
                found = time.monotonic()
                text = text[text.rindex(b"\ndata: ") + 7:]
            self.last[number] = text[-8192:]
        return found

    def until(self, count, patience=120):
        """Reads until each has had so many events; returns when the last one had."""
        end = time.monotonic() + patience
        moment = None
        missing = sum(events < count for events in self.events.values())
        while missing:
            moment = self.read(1) or moment
            missing = sum(events < count for events in self.events.values())
            if time.monotonic() > end:
                raise TimeoutError(f"{missing} of {len(self.events)} streams miss events")
        return moment

    def close(self):
        for client in self.sockets.values():
            client.close()


def status(pid, name):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"{name}:\s+(\d+)", file.read())[1])


def cpu(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def append(session, stream):
    return session.execute("SELECT position FROM es_append(%s, 'any', 'measured', %s)",
                           (stream, '{"value": 21.5, "unit": "C", "place": "hall 7, east"}')).fetchone()[0]


def idle(url, token, pid, session, count):
    """Streams that nothing comes for."""
    before = status(pid, "VmRSS")
    begin = time.monotonic()
    streams = Streams(url, token, count, "?category=silent")
    append(session, "silent-1")
    streams.until(1)
    took = time.monotonic() - begin
    rss = status(pid, "VmRSS")
    used = cpu(pid)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        append(session, "loud-1")
        streams.read(0.1)
    used = (cpu(pid) - used) / 30
    print(f"{count} idle event streams: {rss / 1024:.1f} MB resident ({(rss - before) / count:.1f} kB each, peak "
          f"{status(pid, 'VmHWM') / 1024:.1f} MB), opened in {took:.1f} s, {used * 100:.1f} % of a processor while others append")
    begin = time.monotonic()
    append(session, "silent-1")
    print(f"one event to all {count}: {(streams.until(2) - begin) * 1000:.0f} ms")
    streams.close()


def fan_out(url, token, session, count, rounds):
    streams = Streams(url, token, count)
    append(session, "measured-1")
    expected = session.execute("SELECT count(*) FROM es_events").fetchone()[0]
    streams.until(expected)
    times = []
    for _ in range(rounds):
        time.sleep(0.1)
        begin = time.monotonic()
        append(session, "measured-1")
        expected += 1
        times.append((streams.until(expected) - begin) * 1000)
    times.sort()
    print(f"one event to {count} event streams, from before the append until the last has it: median "
          f"{statistics.median(times):.1f} ms, 95 % {times[int(len(times) * 0.95)]:.1f} ms, longest {times[-1]:.1f} ms")
    streams.close()


def busy(url, token, session, count):
    """The streams keep up with a log that is appended to."""
    streams = Streams(url, token, count)
    events = session.execute("SELECT count(*) FROM es_events").fetchone()[0]
    streams.until(events)
    begin = time.monotonic()
    for _ in range(200):
        session.execute("SELECT count(*) FROM generate_series(1, 50) i, LATERAL es_append('many-' || i, 'any', 'n', '{}')")
        events += 50
        streams.read(0)
    took = streams.until(events) - begin
    print(f"10000 events to {count} event streams: {took:.1f} s, {10000 * count / took:.0f} events a second sent")
    streams.close()


def main():
    url, token, pid, conninfo, idle_count, followers, rounds = sys.argv[1:]
    with psycopg.connect(conninfo, autocommit=True) as session:
        fan_out(url, token, session, int(followers), int(rounds))
        busy(url, token, session, 100)
        idle(url, token, int(pid), session, int(idle_count))


main()
