"""Live passwords for Databricks Lakebase in Python programs.

    import dbx_rotator

    live = dbx_rotator.credential("orders")
    psycopg.connect(**dbx_rotator.connect_kwargs("orders"))

The work is done by the program `dbx-rotator` that comes with this package: it signs in, renews, and keeps the password file. See
docs/python.md.
"""

from ._credential import Credential, async_credential, credential, forget
from ._errors import ConfigurationError, NotInstalled, RotatorError, SignInError, TemporaryError
from ._libraries import (
    async_connect_kwargs,
    asyncpg_kwargs,
    asyncpg_password,
    connect_kwargs,
    django_database,
    psycopg_async_pool_kwargs,
    psycopg_pool_kwargs,
    sqlalchemy_async_engine,
    sqlalchemy_engine,
    use_in_sqlalchemy,
)

__all__ = [
    "ConfigurationError",
    "Credential",
    "NotInstalled",
    "RotatorError",
    "SignInError",
    "TemporaryError",
    "async_connect_kwargs",
    "async_credential",
    "asyncpg_kwargs",
    "asyncpg_password",
    "connect_kwargs",
    "credential",
    "django_database",
    "forget",
    "program",
    "psycopg_async_pool_kwargs",
    "psycopg_pool_kwargs",
    "sqlalchemy_async_engine",
    "sqlalchemy_engine",
    "use_in_sqlalchemy",
]


def program() -> str:
    """The path of the program that does the work."""
    from . import _program

    return _program.find()
