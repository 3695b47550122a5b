"""Not a client to be proud of: it reads the credential once. If this one is let in for long, the others prove nothing."""

import psycopg

from tries import token, tries

kept = token()


def connect():
    with psycopg.connect(password=kept) as connection:
        return connection.info.backend_pid


tries(f"psycopg {psycopg.__version__}", connect)
