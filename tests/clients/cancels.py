"""Two sessions run a long query each. One is canceled, and the other goes on."""

import threading
import time

import psycopg

from tries import tries

made = 0


def long_query(session, seconds, outcomes):
    try:
        outcomes[session] = session.execute("select pg_sleep(%s)", [seconds]).rowcount
    except psycopg.Error as error:
        outcomes[session] = error


def runs(session, by):
    query = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
    return by.execute(query, [session.info.backend_pid]).fetchone()[0] == 1


def cancel_one_of_two():
    global made
    made += 1
    outcomes = {}
    with psycopg.connect(autocommit=True) as one, psycopg.connect(autocommit=True) as other:
        with psycopg.connect(autocommit=True) as watcher:
            threads = [threading.Thread(target=long_query, args=[one, 60, outcomes])]
            threads.append(threading.Thread(target=long_query, args=[other, 2, outcomes]))
            for thread in threads:
                thread.start()
            while not (runs(one, watcher) and runs(other, watcher)) and len(outcomes) == 0:
                time.sleep(0.05)
        # The old way, and the new one.
        one.cancel() if made % 2 else one.cancel_safe()
        for thread in threads:
            thread.join()
        if not isinstance(outcomes[one], psycopg.errors.QueryCanceled):
            raise RuntimeError(f"the one was not canceled: {outcomes[one]}")
        if outcomes[other] != 1:
            raise RuntimeError(f"the other was: {outcomes[other]}")
        return one.info.backend_pid


tries(f"psycopg {psycopg.__version__}", cancel_one_of_two)
