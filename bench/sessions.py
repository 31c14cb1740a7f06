"""Calls of sessions, measured by the processor time of the server's processes."""
import os

import psycopg


class Server:
    """A server, by its file postmaster.pid."""

    def __init__(self, pid_file):
        with open(pid_file, encoding="ascii") as file:
            self.postmaster = int(file.readline())

    def times(self):
        """Nanoseconds that each session has run for, by process id."""
        result = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
                if parent == self.postmaster:
                    with open(f"/proc/{pid}/schedstat", encoding="ascii") as schedstat:
                        result[int(pid)] = int(schedstat.read().split()[0])
            except OSError:
                pass  # it has ended
        return result


class Session:
    """A session that makes one call again and again. fails: the SQLSTATE that it may end with."""

    def __init__(self, server, database, prepared, sql, arguments, fails=None):
        self.server = server
        self.connection = psycopg.connect(dbname=database, autocommit=True)
        self.connection.prepare_threshold = 0 if prepared else None
        self.cursor = self.connection.cursor()
        self.sql, self.arguments, self.fails, self.number = sql, arguments, fails, 0
        self.call(60)

    def call(self, count):
        for _ in range(count):
            self.number += 1
            try:
                self.cursor.execute(self.sql, self.arguments(self.number))
                self.cursor.fetchall()
            except psycopg.Error as error:
                if self.fails is None or error.sqlstate != self.fails:
                    raise

    def measure(self, count):
        """Microseconds a call: of this session, and of the others."""
        before = self.server.times()
        self.call(count)
        after = self.server.times()
        pid = self.connection.info.backend_pid
        own = after[pid] - before[pid]
        others = sum(time - before.get(other, 0) for other, time in after.items() if other != pid)
        return own / count / 1000, others / count / 1000
