import psycopg

from tries import tries


def connect():
    with psycopg.connect() as connection:
        return connection.info.backend_pid


tries(f"psycopg {psycopg.__version__}, libpq {psycopg.pq.version() // 10000}", connect)
