"""One session listens all the time, and hears at once what others say in sessions of their own."""

import psycopg

from tries import tries

listener = psycopg.connect(autocommit=True)
listener.execute("listen news")
said = 0


def notify_and_hear():
    global said
    said += 1
    with psycopg.connect(autocommit=True) as other:
        other.execute("select pg_notify('news', %s)", [str(said)])
        pid = other.info.backend_pid
    for heard in listener.notifies(timeout=20):
        if heard.payload == str(said):
            return pid
    raise TimeoutError(f"{said} was not heard")


tries(f"psycopg {psycopg.__version__}", notify_and_hear)
