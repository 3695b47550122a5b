"""What the tests share: a stand-in for the program, which counts its runs, and the stage that tests/rotations/python.rs sets."""

import json
import os
import stat
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dbx_rotator import _credential, _program

#: The answer of the program, as src/cli/token.rs makes it.
ANSWER = {
    "version": 1,
    "connection": "orders",
    "token": "eyJ.first.token",
    "expires_at": "2099-01-02T03:04:05.123456789Z",
    "expires_in_seconds": 3600,
    "due_in_seconds": 2400,
    "host": "db.example",
    "port": 5432,
    "database": "databricks_postgres",
    "user": "ada@example.com",
    "sslmode": "require",
    "sslrootcert": None,
}


class StandIn:
    """A program in the place of the real one: it notes each run, and does what it is told."""

    def __init__(self, directory, monkeypatch):
        self.directory = directory
        self.path = directory / "dbx-rotator"
        monkeypatch.setattr(_program, "_found", str(self.path))
        self.answers()

    def does(self, script):
        note = f'#!{sys.executable}\nimport json, os, sys, time\nhere = {str(self.directory)!r}\n'
        note += "open(f'{here}/runs', 'a').write(json.dumps([sys.argv, dict(os.environ)]) + '\\n')\n"
        self.path.write_text(note + textwrap.dedent(script))
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def answers(self, **changes):
        self.does(f"print(json.dumps({ {**ANSWER, **changes}!r}))")

    def fails(self, code, said):
        self.does(f"sys.stderr.write({said!r}); sys.exit({code})")

    def waits_for(self, name, **changes):
        """Answers once this file is there."""
        answer = {**ANSWER, **changes}
        self.does(f"while not os.path.exists(here + '/{name}'): time.sleep(0.01)\nprint(json.dumps({answer!r}))")

    def let_go(self, name):
        (self.directory / name).write_text("")

    def await_runs(self, number):
        until = time.monotonic() + 30
        while len(self.runs()) < number:
            assert time.monotonic() < until, self.runs()
            time.sleep(0.005)

    def runs(self):
        """The arguments and the environment of each run."""
        path = self.directory / "runs"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(autouse=True)
def nothing_kept():
    _credential._kept.clear()
    yield
    _credential._kept.clear()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    return StandIn(tmp_path, monkeypatch)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 1_000.0

    monkeypatch.setattr(_credential, "_now", lambda: Clock.now)
    return Clock


@pytest.fixture(scope="session")
def source():
    return Path(os.environ.get("STAGE_SOURCE") or Path(__file__).parents[2])


@pytest.fixture(scope="session")
def stage():
    """The workspaces and the PostgreSQL, by the environment that leads there."""
    if "STAGE_LIFE" not in os.environ:
        pytest.skip("nobody has set the stage: tests/run python")
    return os.environ


@pytest.fixture(scope="session")
def wheel():
    named = os.environ.get("DBX_ROTATOR_WHEEL")
    if not named:
        pytest.skip("there is no wheel: dist/build wheels native, and DBX_ROTATOR_WHEEL names it")
    return Path(named)


@pytest.fixture(scope="session")
def installed(stage):
    """Where the wheel is that this process imports: put there by `pip install --target`."""
    return Path(stage["STAGE_INSTALLED"])


def pytest_collection_modifyitems(items):
    # They go on beside all others, and are looked at last.
    items.sort(key=lambda item: "three_lives" in item.nodeid)
