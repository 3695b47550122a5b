"""Live passwords for the libraries that connect. Each is imported only when its function is called."""

from __future__ import annotations

from ._credential import Credential, async_credential, credential

# Set by type checkers: `typing` takes longer to import than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext
    from typing import Any, Awaitable, Callable, Dict, Optional

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


def connect_kwargs(name: Optional[str] = None) -> Dict[str, Any]:
    """The arguments of `psycopg.connect()` and `psycopg2.connect()`, as libpq names them. For one connect: ask again for the next."""
    return _of_libpq(credential(name))


async def async_connect_kwargs(name: Optional[str] = None) -> Dict[str, Any]:
    """The same for `psycopg.AsyncConnection.connect()`, without holding up the event loop."""
    return _of_libpq(await async_credential(name))


def _of_libpq(live: Credential) -> Dict[str, Any]:
    values = {
        "host": live.host,
        "port": live.port,
        "dbname": live.database,
        "user": live.user,
        "password": live.password,
        "sslmode": live.sslmode,
        "sslrootcert": live.sslrootcert,
    }
    return {name: value for name, value in values.items() if value is not None}


# ---- psycopg_pool ----


def psycopg_pool_kwargs(name: Optional[str] = None) -> Dict[str, Any]:
    """Arguments for `psycopg_pool.ConnectionPool()`: each session that it opens logs in with a live password.

    What else the sessions shall have goes into the pool's own `kwargs`, and wins.
    """
    return {"connection_class": live_connection_class(name)}


def live_connection_class(name: Optional[str] = None) -> Any:
    """A `psycopg.Connection` that knows where to log in."""
    from typing import Any

    import psycopg

    class LiveConnection(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            return super().connect(conninfo, **{**connect_kwargs(name), **kwargs})

    return LiveConnection


def psycopg_async_pool_kwargs(name: Optional[str] = None) -> Dict[str, Any]:
    """The same for `psycopg_pool.AsyncConnectionPool()`."""
    from typing import Any

    import psycopg

    class LiveConnection(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            return await super().connect(conninfo, **{**await async_connect_kwargs(name), **kwargs})

    return {"connection_class": LiveConnection}


# ---- asyncpg ----


def asyncpg_password(name: Optional[str] = None) -> Callable[[], Awaitable[str]]:
    """A function for `password=` of `asyncpg.connect()` and `asyncpg.create_pool()`, which call it at each login."""

    async def password() -> str:
        return (await async_credential(name)).password

    return password


async def asyncpg_kwargs(name: Optional[str] = None) -> Dict[str, Any]:
    """All arguments that `asyncpg.connect()` and `asyncpg.create_pool()` need; the password is asked for at each login."""
    live = await async_credential(name)
    values = _of_others(live, "ssl")
    values["password"] = asyncpg_password(name)
    return values


def _of_others(live: Credential, tls: str) -> Dict[str, Any]:
    """For drivers that are not libpq; `tls` is their word for a context."""
    values: Dict[str, Any] = {
        "host": live.host,
        "port": live.port,
        "database": live.database,
        "user": live.user,
        "password": live.password,
    }
    context = tls_context(live)
    if context is not None:
        values[tls] = context
    return values


def tls_context(live: Credential) -> Optional[SSLContext]:
    """What libpq would do for its `sslmode`; None where the environment has the last word."""
    import ssl

    if live.sslmode is None:
        return None
    root = live.sslrootcert if live.sslrootcert != "system" else None
    context = ssl.create_default_context(cafile=root)
    if live.sslmode == "verify-ca":
        context.check_hostname = False
    elif live.sslmode != "verify-full":
        # Whatever certificate the server has. libpq verifies it where it is told of an authority.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE if root is None else ssl.CERT_REQUIRED
    return context


# ---- SQLAlchemy ----


def sqlalchemy_engine(name: Optional[str] = None, *, driver: str = "psycopg", **options: Any) -> Engine:
    """An engine whose sessions log in with a live password; `options` are those of `sqlalchemy.create_engine()`."""
    from sqlalchemy import create_engine

    engine = create_engine(f"postgresql+{driver}://", **options)
    use_in_sqlalchemy(engine, name)
    return engine


def sqlalchemy_async_engine(name: Optional[str] = None, *, driver: str = "asyncpg", **options: Any) -> AsyncEngine:
    """The same as `sqlalchemy.ext.asyncio.create_async_engine()` makes."""
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(f"postgresql+{driver}://", **options)
    use_in_sqlalchemy(engine, name)
    return engine


def use_in_sqlalchemy(engine: Engine | AsyncEngine, name: Optional[str] = None) -> None:
    """Lets an engine that exists already log in with live passwords: at each connect of its pool (`do_connect`).

    Host, port, user and database become those of the connection, whatever the engine's URL says.
    """
    from sqlalchemy import event

    synchronous = getattr(engine, "sync_engine", engine)

    @event.listens_for(synchronous, "do_connect")
    def log_in(dialect: Any, record: Any, arguments: Any, parameters: Dict[str, Any]) -> None:
        if getattr(dialect, "is_async", False):
            from sqlalchemy.util import await_only

            live = await_only(async_credential(name))
        else:
            live = credential(name)
        parameters.update(_for_driver(dialect.driver, live))


def _for_driver(driver: str, live: Credential) -> Dict[str, Any]:
    if driver == "asyncpg":
        return _of_others(live, "ssl")
    if driver == "pg8000":
        return _of_others(live, "ssl_context")
    return _of_libpq(live)


# ---- Django ----


def django_database(name: Optional[str] = None, **settings: Any) -> Dict[str, Any]:
    """An entry of Django's DATABASES. Nothing is asked before the first connect, so that settings load anywhere.

    `settings` are those of Django: what is named there, such as NAME or HOST, wins.
    """
    options = dict(settings.pop("OPTIONS", {}), dbx_rotator=name)
    return {"ENGINE": "dbx_rotator.django", "NAME": "", **settings, "OPTIONS": options}
