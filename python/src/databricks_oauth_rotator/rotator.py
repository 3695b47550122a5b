"""What programs have written for the Python tool: the same class, defaults, log and return values."""

import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Union

from dbx_rotator import RotatorError, _program

from . import _token

if TYPE_CHECKING:
    import subprocess

#: The name that the program knows the old options, exit codes and log lines by.
_NAME = "databricks-oauth-rotator"

#: `2025-01-22 14:30:00 - INFO - Starting OAuth token rotation cycle`
_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ([A-Z]+) - (.*)")


class DatabricksOAuthRotator:
    """Gets OAuth tokens of a Databricks workspace and keeps one in a password file.

    What is not given comes from DATABRICKS_HOST, DATABRICKS_CLIENT_ID, DATABRICKS_CLIENT_SECRET, DATABRICKS_PG_HOST and
    DATABRICKS_PG_USERNAME. The interval is in minutes. A ValueError says what is missing.
    """

    def __init__(
        self,
        workspace_url: Optional[str] = None,
        client_id: Optional[str] = None,
        client_secret: Optional[str] = None,
        pg_host: Optional[str] = None,
        pg_port: Union[str, int] = "5432",
        pg_database: str = "databricks_postgres",
        pg_username: Optional[str] = None,
        pgpass_file: Union[str, "os.PathLike[str]"] = "~/.pgpass",
        log_file: Union[str, "os.PathLike[str]"] = "~/.databricks_oauth_rotator.log",
        rotation_interval: float = 50,
    ) -> None:
        self.workspace_url = workspace_url or os.getenv("DATABRICKS_HOST")
        self.client_id = client_id or os.getenv("DATABRICKS_CLIENT_ID")
        self.client_secret = client_secret or os.getenv("DATABRICKS_CLIENT_SECRET")
        self.pg_host = pg_host or os.getenv("DATABRICKS_PG_HOST")
        self.pg_port = pg_port
        self.pg_database = pg_database
        self.pg_username = pg_username or os.getenv("DATABRICKS_PG_USERNAME")
        self.pgpass_file = Path(pgpass_file).expanduser()
        self.log_file = Path(log_file).expanduser()
        #: In seconds.
        self.rotation_interval = rotation_interval * 60
        needed = {"workspace_url": "DATABRICKS_HOST", "pg_host": "DATABRICKS_PG_HOST", "pg_username": "DATABRICKS_PG_USERNAME"}
        for attribute, variable in needed.items():
            if not getattr(self, attribute):
                raise ValueError(f"{attribute} is required (or set {variable})")
        self.logger = _logger()
        self._running = True
        self._child: "Optional[subprocess.Popen[bytes]]" = None

    def __repr__(self) -> str:
        return f"<DatabricksOAuthRotator of {self.pg_username!r} at {self.pg_host}, {self.workspace_url}>"

    # ---- rotations ----

    def run_once(self) -> bool:
        """Gets a token and publishes it; returns whether that went well. The log says why not."""
        return self._ends_well([*self._options(), "--once"])

    rotate_token = run_once

    def run_daemon(self) -> None:
        """Stays, and renews before anything expires, at the latest after the interval, until SIGTERM, Ctrl-C or `running = False`."""
        self._running = True
        before = self._heed_signals()
        try:
            self._ends_well([*self._options(), "--interval", self._interval()], stays=True)
        except KeyboardInterrupt:
            pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.logger.info("Daemon stopped")

    @property
    def running(self) -> bool:
        """Whether `run_daemon` goes on; set it to False to end that."""
        return self._running

    @running.setter
    def running(self, goes_on: bool) -> None:
        self._running = goes_on
        child = self._child
        if not goes_on and child is not None and child.poll() is None:
            child.terminate()

    # ---- tokens ----

    def get_token_info(self, token: str) -> Dict[str, Any]:
        """What a token says about itself; the signature is not verified. `{"error": ...}` for what is not a token."""
        try:
            return _token.info(token)
        except ValueError as error:
            self.logger.error("Error decoding token: %s", error)
            return {"error": str(error)}

    def update_pgpass_file(self, new_token: str) -> bool:
        """Writes a token that you have into the password file; returns whether it is there. An expired one is refused."""
        return self._ends_well([*self._options(), "rotate", "--token-stdin"], given=new_token)

    # ---- the program ----

    def _options(self) -> List[str]:
        options = {
            "--workspace-url": self.workspace_url,
            "--pg-host": self.pg_host,
            "--pg-port": self.pg_port,
            "--pg-database": self.pg_database,
            "--pg-username": self.pg_username,
            "--pgpass-file": self.pgpass_file,
            "--log-file": self.log_file,
        }
        # In one word, so that a value cannot be taken for an option.
        return [f"{option}={value}" for option, value in options.items()]

    def _interval(self) -> str:
        minutes, seconds = divmod(round(self.rotation_interval), 60)
        return f"{minutes * 60 + seconds}s" if seconds else str(minutes)

    def _variables(self) -> Dict[str, str]:
        """The environment with the client: its secret is no argument, which every user of the machine could read."""
        own = {"DATABRICKS_CLIENT_ID": self.client_id, "DATABRICKS_CLIENT_SECRET": self.client_secret}
        return dict(os.environ, **{name: value for name, value in own.items() if value})

    def _heed_signals(self) -> Dict[int, Any]:
        """Handles them as the Python tool did, where that can be: Python lets only the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return {}

        def stop(number: int, _: Any) -> None:
            self.logger.info("Received signal %s. Shutting down gracefully...", number)
            self.running = False

        return {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}

    def _ends_well(self, words: List[str], *, given: Optional[str] = None, stays: bool = False) -> bool:
        import subprocess

        pipe = subprocess.PIPE
        try:
            program = _program.find()
            child = subprocess.Popen(
                [_NAME, *words],
                executable=program,
                env=self._variables(),
                stdin=subprocess.DEVNULL if given is None else pipe,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which hands it on.
                start_new_session=stays,
            )
        except (OSError, RotatorError) as error:
            self.logger.error("cannot run the program: %s", error)
            return False
        if stays:
            self._child = child
            self.running = self._running
        try:
            return self._follow(child, given)
        finally:
            self._child = None
            _program.end(child)

    def _follow(self, child: "subprocess.Popen[bytes]", given: Optional[str]) -> bool:
        """Hands on what it logs, until its end."""
        if given is not None and child.stdin is not None:
            try:
                child.stdin.write(given.encode())
                child.stdin.close()
            except BrokenPipeError:
                # It has ended already, and says why.
                pass
            child.stdin = None
        assert child.stdout is not None
        for line in child.stdout:
            self._log(line.decode(errors="replace").rstrip())
        return child.wait() == 0

    def _log(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        if found:
            self.logger.log(getattr(logging, found[1], logging.INFO), "%s", found[2])
        elif line:
            self.logger.error("%s", line)


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is standard output at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


def _logger() -> logging.Logger:
    """The logger of the Python tool. The program writes the log file itself."""
    logger = logging.getLogger("DatabricksOAuthRotator")
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.setLevel(logging.INFO)
        console = _Console()
        console.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(console)
    return logger
