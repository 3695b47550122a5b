"""Connects anew again and again, by one library with our help, for as long as it is told; prints a line for each try.

    python churn.py MODE
"""

import asyncio
import sys
import time

import dbx_rotator
from dbx_rotator import _credential

#: Between two tries, in seconds.
PAUSE = 0.5

NAME = "orders"
QUERY = "select pg_backend_pid()"


def tries(connect):
    while True:
        try:
            said = f"ok {connect()} {fingerprint()}"
        except Exception as error:
            said = " ".join(["failed:", type(error).__name__, *str(error).split()])
        print(said, flush=True)
        time.sleep(PAUSE)


async def async_tries(connect):
    while True:
        try:
            said = f"ok {await connect()} {fingerprint()}"
        except Exception as error:
            said = " ".join(["failed:", type(error).__name__, *str(error).split()])
        print(said, flush=True)
        await asyncio.sleep(PAUSE)


def fingerprint():
    """Which password it is, without saying it."""
    kept = _credential._kept.get(NAME)
    return "none" if kept is None else kept.credential.expires_at.timestamp()


def psycopg():
    import psycopg

    def connect():
        with psycopg.connect(**dbx_rotator.connect_kwargs(NAME)) as connection:
            return connection.info.backend_pid

    tries(connect)


def psycopg2():
    import psycopg2

    def connect():
        connection = psycopg2.connect(**dbx_rotator.connect_kwargs(NAME))
        try:
            return connection.get_backend_pid()
        finally:
            connection.close()

    tries(connect)


def psycopg_pool():
    import psycopg_pool

    # Sessions are never handed out twice, so that each is a login.
    pool = psycopg_pool.ConnectionPool(
        min_size=1, max_size=2, max_lifetime=0.001, open=True, **dbx_rotator.psycopg_pool_kwargs(NAME)
    )

    def connect():
        with pool.connection(timeout=20) as connection:
            return connection.info.backend_pid

    tries(connect)


def psycopg_async_pool():
    import psycopg_pool

    async def main():
        arguments = dbx_rotator.psycopg_async_pool_kwargs(NAME)
        async with psycopg_pool.AsyncConnectionPool(
            min_size=1, max_size=2, max_lifetime=0.001, open=False, **arguments
        ) as pool:

            async def connect():
                async with pool.connection(timeout=20) as connection:
                    return connection.info.backend_pid

            await async_tries(connect)

    asyncio.run(main())


def sqlalchemy():
    import sqlalchemy

    engine = dbx_rotator.sqlalchemy_engine(NAME, pool_pre_ping=True, pool_recycle=0)

    def connect():
        with engine.connect() as connection:
            return connection.scalar(sqlalchemy.text(QUERY))

    tries(connect)


def sqlalchemy_asyncpg():
    import sqlalchemy

    engine = dbx_rotator.sqlalchemy_async_engine(NAME, pool_recycle=0)

    async def connect():
        async with engine.connect() as connection:
            return await connection.scalar(sqlalchemy.text(QUERY))

    asyncio.run(async_tries(connect))


def asyncpg():
    import asyncpg

    async def main():
        arguments = await dbx_rotator.asyncpg_kwargs(NAME)
        async with asyncpg.create_pool(min_size=1, max_size=2, max_queries=1, **arguments) as pool:
            await async_tries(lambda: pool.fetchval(QUERY))

    asyncio.run(main())


def of_django(**more):
    import django
    from django.conf import settings
    from django.db import connection

    settings.configure(DATABASES={"default": dbx_rotator.django_database(NAME, **more)})
    django.setup()

    def connect():
        try:
            with connection.cursor() as cursor:
                cursor.execute(QUERY)
                return cursor.fetchone()[0]
        finally:
            connection.close()

    tries(connect)


def django():
    of_django()


def django_pool():
    of_django(OPTIONS={"pool": {"min_size": 1, "max_size": 2, "max_lifetime": 0.001}})


def keeps_its_password():
    """What must be refused, or the rest proves nothing."""
    import psycopg

    arguments = dbx_rotator.connect_kwargs(NAME)

    def connect():
        with psycopg.connect(**arguments) as connection:
            return connection.info.backend_pid

    tries(connect)


MODES = [
    psycopg,
    psycopg2,
    psycopg_pool,
    psycopg_async_pool,
    sqlalchemy,
    sqlalchemy_asyncpg,
    asyncpg,
    django,
    django_pool,
    keeps_its_password,
]

if __name__ == "__main__":
    # The tokens live for seconds: half a minute is more than they ever have.
    _credential.LEAST_VALID = 2.0
    {mode.__name__: mode for mode in MODES}[sys.argv[1]]()
