"""Live credentials, kept in this process until they are due.

Whoever needs a new one at the same time, in threads or in tasks, shares one run of the program, and its result or failure. Between
processes the program itself sees to that.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock

from ._errors import ConfigurationError, RotatorError

# Set by type checkers: `typing` takes longer to import than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from datetime import datetime
    from typing import Any, Callable, Dict, List, Optional, Tuple

#: A credential with less than this left may expire before it is used (in seconds).
LEAST_VALID = 30.0

#: How long one that is due, and could not be renewed yet, is handed out before the program is asked again. It tries no sooner itself.
ASK_AGAIN = 15.0


class Credential:
    """A live password for PostgreSQL, and where it logs in. It never changes."""

    __slots__ = ("connection", "password", "user", "host", "port", "database", "expires_at", "sslmode", "sslrootcert")

    #: The name of the connection.
    connection: str
    password: str
    user: str
    host: str
    port: int
    database: str
    #: When it expires, in UTC. The server checks this only at login: open sessions stay open.
    expires_at: datetime
    #: libpq's `sslmode`; None where PGSSLMODE asks for more than the connection does.
    sslmode: Optional[str]
    #: libpq's `sslrootcert`; None where the client finds its authorities by itself.
    sslrootcert: Optional[str]

    def __init__(self, **values: Any) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Credential cannot be changed: ask for another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Credential cannot be changed: ask for another one")

    def __repr__(self) -> str:
        place = f"{self.user!r} at {self.host}:{self.port}/{self.database}"
        return f"<Credential {self.connection!r} of {place}, until {self.expires_at:%Y-%m-%d %H:%M:%S} UTC>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Credential is not to be stored: each process asks for its own")


class _Kept:
    """A credential, and until when it is handed out, by a clock that counts sleep."""

    __slots__ = ("credential", "ask_at", "dead_at")

    def __init__(self, credential: Credential, ask_at: float, dead_at: float) -> None:
        self.credential = credential
        self.ask_at = ask_at
        self.dead_at = dead_at


class _Flight:
    """One run of the program, and who waits for it."""

    __slots__ = ("name", "least", "ended", "result", "failure", "callbacks")

    def __init__(self, name: Optional[str], least: float) -> None:
        import threading

        self.name = name
        self.least = least
        self.ended = threading.Event()
        self.result: Optional[Credential] = None
        #: None with no result: whoever ran it was interrupted.
        self.failure: Optional[RotatorError] = None
        self.callbacks: List[Callable[[], None]] = []


# time.monotonic() stands still while the machine sleeps, which a token does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None) or getattr(time, "CLOCK_MONOTONIC", None)


def _now() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


_lock = allocate_lock()
_kept: Dict[Optional[str], _Kept] = {}
_flights: Dict[Optional[str], _Flight] = {}


def _after_fork() -> None:
    # The threads that held these are not in the child.
    global _lock
    _lock = allocate_lock()
    _flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def credential(name: Optional[str] = None, *, min_valid: Optional[float] = None) -> Credential:
    """A live credential of the connection with this name, with at least `min_valid` seconds (30) of its life left.

    The name may be left out where there is only one connection. The program is asked when there is none in this process, or when it is
    due; it renews what has to be renewed, which takes a sign-in. Safe to call from any thread.

    Raises a RotatorError where there is no live credential and none can be had.
    """
    least = LEAST_VALID if min_valid is None else min_valid
    while True:
        kept = _of_this_process(name, least)
        if kept is not None:
            return kept
        flight, is_ours = _join(name, least)
        if is_ours:
            _carry_out(flight)
        else:
            flight.ended.wait()
        if flight.result is not None:
            return flight.result
        if flight.failure is not None:
            raise flight.failure.again()


async def async_credential(name: Optional[str] = None, *, min_valid: Optional[float] = None) -> Credential:
    """The same as `credential`, without holding up the event loop."""
    import asyncio
    import threading

    least = LEAST_VALID if min_valid is None else min_valid
    while True:
        kept = _of_this_process(name, least)
        if kept is not None:
            return kept
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        flight, is_ours = _join(name, least)
        _call_at_end(flight, lambda: _wake(loop, over))
        if is_ours:
            threading.Thread(target=_carry_out, args=(flight,), name="dbx_rotator", daemon=True).start()
        await over
        if flight.result is not None:
            return flight.result
        if flight.failure is not None:
            raise flight.failure.again()


def _wake(loop: asyncio.AbstractEventLoop, over: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(lambda: None if over.done() else over.set_result(None))
    except RuntimeError:
        # The loop was closed meanwhile: nobody waits any more.
        pass


def forget(name: Optional[str] = None) -> None:
    """Forgets what this process keeps of this connection, or of all: the next call asks the program.

    For a server that refuses a password which should live, and after a change of the configuration.
    """
    with _lock:
        for key in [name] if name is not None else list(_kept):
            _kept.pop(key, None)
        # It may have been asked for under no name.
        _kept.pop(None, None)


def _of_this_process(name: Optional[str], least: float) -> Optional[Credential]:
    kept = _kept.get(name)
    if kept is None:
        return None
    now = _now()
    return kept.credential if now < kept.ask_at and now + least < kept.dead_at else None


def _join(name: Optional[str], least: float) -> Tuple[_Flight, bool]:
    """The run to wait for, and whether the caller has to carry it out."""
    with _lock:
        flight = _flights.get(name)
        # One that was started for less may not be enough.
        if flight is not None and flight.least >= least:
            return flight, False
        flight = _Flight(name, least)
        _flights[name] = flight
        return flight, True


def _call_at_end(flight: _Flight, callback: Callable[[], None]) -> None:
    with _lock:
        if not flight.ended.is_set():
            flight.callbacks.append(callback)
            return
    callback()


def _carry_out(flight: _Flight) -> None:
    try:
        kept = _ask(flight.name, flight.least)
        with _lock:
            _kept[flight.name] = kept
        flight.result = kept.credential
    except RotatorError as failure:
        flight.failure = failure
    except Exception as failure:
        flight.failure = RotatorError(f"cannot run the program: {failure}", code=70)
    finally:
        with _lock:
            if _flights.get(flight.name) is flight:
                del _flights[flight.name]
            flight.ended.set()
            callbacks = flight.callbacks
        for callback in callbacks:
            callback()


def _ask(name: Optional[str], least: float) -> _Kept:
    """Runs the program."""
    import json

    from . import _program

    if name is not None and (not name or name.startswith("-")):
        raise ConfigurationError(f"a connection cannot be named {name!r}", code=64)
    words = ["token", "--json", "--min-valid", f"{int(least + 0.999)}s"]
    # What it says is older than now, so that it is kept a little shorter.
    asked_at = _now()
    answer = json.loads(_program.output_of(words if name is None else [*words, name]))
    if "host" not in answer:
        hint = "use the one that came with this package: pip install --force-reinstall dbx-rotator"
        raise RotatorError(f"{_program.find()} is older than this package", code=70, hint=hint)
    left, due = float(answer["expires_in_seconds"]), float(answer["due_in_seconds"])
    made = Credential(
        connection=answer["connection"],
        password=answer["token"],
        user=answer["user"],
        host=answer["host"],
        port=answer["port"],
        database=answer["database"],
        expires_at=_moment(answer["expires_at"]),
        sslmode=answer["sslmode"],
        sslrootcert=answer["sslrootcert"],
    )
    # One that is due while it lives could not be renewed in a moment.
    pause = due if due > 0 else min(ASK_AGAIN, left / 4)
    return _Kept(made, asked_at + pause, asked_at + left)


def _moment(text: str) -> datetime:
    """RFC 3339 in UTC, with any number of digits, for every Python since 3.8."""
    from datetime import datetime, timezone

    whole, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return moment.replace(microsecond=int(fraction[:6].ljust(6, "0"))) if fraction else moment
