import psycopg2

from tries import tries


def connect():
    connection = psycopg2.connect("")
    try:
        return connection.get_backend_pid()
    finally:
        connection.close()


tries(f"psycopg2 {psycopg2.__version__.split()[0]}, libpq {psycopg2.extensions.libpq_version() // 10000}", connect)
