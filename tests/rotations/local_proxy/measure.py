"""Measures through libpq, as it is told by PGHOST and its kin: `latency`, `session`, or `idle COUNT`. Prints one number at a time."""

import statistics
import sys
import time

from psycopg import pq


def connect():
    connection = pq.PGconn.connect(b"")
    if connection.status != pq.ConnStatus.OK:
        sys.exit(connection.error_message.decode())
    return connection


def timed(count, act):
    """The median of so many, in microseconds."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1e6, 1)


def latency():
    connection = connect()

    def ask():
        if connection.exec_(b"select 1").status != pq.ExecStatus.TUPLES_OK:
            sys.exit(connection.error_message.decode())

    timed(200, ask)
    print(timed(4000, ask))


def session():
    opened = []
    timed(5, lambda: connect().finish())
    print(timed(60, lambda: opened.append(connect()) or opened.pop().exec_(b"select 1")))


def idle(count):
    """Holds them until standard input ends."""
    opened = [connect() for _ in range(count)]
    print(len(opened), flush=True)
    sys.stdin.read()


match sys.argv[1:]:
    case ["latency"]:
        latency()
    case ["session"]:
        session()
    case ["idle", count]:
        idle(int(count))
