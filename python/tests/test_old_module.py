"""`databricks_oauth_rotator`: what programs have written for the Python tool goes on."""

import base64
import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from databricks_oauth_rotator import DatabricksOAuthRotator

#: The example of the Python tool's README, character by character.
EXAMPLE = '''
from databricks_oauth_rotator import DatabricksOAuthRotator

# Create rotator instance
rotator = DatabricksOAuthRotator(
    workspace_url="https://workspace.cloud.databricks.com",
    pg_host="instance-xyz.database.cloud.databricks.com",
    pg_username="user@company.com",
    rotation_interval=50  # minutes
)

# Run once
rotator.run_once()

# Or run as daemon
rotator.run_daemon()
'''

#: The lines that its README shows, without their times and what differs each time.
LINES = [
    "Starting OAuth token rotation cycle",
    "Successfully obtained token via OAuth M2M",
    "New token details:",
    "  - Subject: ",
    "  - Expires at: 20",
    "  - Valid for: 60 minutes",
    "Successfully updated /",
    "Token rotation completed successfully",
]

ENTRY = "instance-xyz.database.cloud.databricks.com:5432:databricks_postgres:user@company.com:"


def token(**claims):
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


def given(**more):
    return DatabricksOAuthRotator("https://dbc-1.example", "id", "s3cret-0000", "db.example", pg_username="id", **more)


@pytest.fixture
def home(stage, tmp_path, monkeypatch):
    """A home of its own, where the README's workspace is the stand-in."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "DBX_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", stage["STAGE_OLD_PROXY"])
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", stage["STAGE_OLD_CLIENT"])
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", stage["STAGE_OLD_SECRET"])
    return tmp_path


def test_the_signature_and_the_defaults_are_the_old_ones():
    parameters = list(inspect.signature(DatabricksOAuthRotator).parameters.values())
    assert [(one.name, one.default) for one in parameters] == [
        ("workspace_url", None),
        ("client_id", None),
        ("client_secret", None),
        ("pg_host", None),
        ("pg_port", "5432"),
        ("pg_database", "databricks_postgres"),
        ("pg_username", None),
        ("pgpass_file", "~/.pgpass"),
        ("log_file", "~/.databricks_oauth_rotator.log"),
        ("rotation_interval", 50),
    ]


def test_what_is_not_given_comes_from_the_environment_and_what_is_missing_is_named(monkeypatch):
    for name in ("DATABRICKS_HOST", "DATABRICKS_PG_HOST", "DATABRICKS_PG_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for attribute, variable in [
        ("workspace_url", "DATABRICKS_HOST"),
        ("pg_host", "DATABRICKS_PG_HOST"),
        ("pg_username", "DATABRICKS_PG_USERNAME"),
    ]:
        with pytest.raises(ValueError, match=re.escape(f"{attribute} is required (or set {variable})")):
            DatabricksOAuthRotator()
        monkeypatch.setenv(variable, f"of {attribute}")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "of the environment")
    rotator = DatabricksOAuthRotator(pg_host="given")
    assert (rotator.workspace_url, rotator.pg_host) == ("of workspace_url", "given")
    assert rotator.client_secret == "of the environment"
    assert rotator.pgpass_file == Path.home() / ".pgpass" and rotator.rotation_interval == 3000
    assert "environment" not in repr(rotator)


def test_a_secret_is_no_argument(stand_in):
    rotator = given(pgpass_file="/x/pgpass", log_file="/x/log", rotation_interval=45, pg_port=6432)
    assert rotator.run_once() and rotator.update_pgpass_file("eyJ.given.token")
    rotator.run_daemon()
    options = ["--workspace-url=https://dbc-1.example", "--pg-host=db.example", "--pg-port=6432"]
    options += ["--pg-database=databricks_postgres", "--pg-username=id", "--pgpass-file=/x/pgpass", "--log-file=/x/log"]
    runs = stand_in.runs()
    ends = [["--once"], ["rotate", "--token-stdin"], ["--interval", "45"]]
    assert [run[0][1:] for run in runs] == [options + end for end in ends]
    given(rotation_interval=7.5).run_daemon()
    assert stand_in.runs()[-1][0][-1] == "450s"
    for arguments, environment in runs:
        assert not any("s3cret" in word or "given" in word for word in arguments)
        assert environment["DATABRICKS_CLIENT_SECRET"] == "s3cret-0000" and environment["DATABRICKS_CLIENT_ID"] == "id"
        assert not any("given" in value for value in environment.values())


def test_its_log_goes_to_the_old_logger_and_failures_are_false(stand_in, caplog, capsys):
    stand_in.does("""
        print("2025-01-22 14:30:00 - WARNING - a token is late")
        print("2025-01-22 14:30:00 - ERROR - it was refused")
        sys.exit(1)
    """)
    with caplog.at_level(logging.INFO, logger="DatabricksOAuthRotator"):
        assert given().run_once() is False
    assert caplog.record_tuples == [
        ("DatabricksOAuthRotator", logging.WARNING, "a token is late"),
        ("DatabricksOAuthRotator", logging.ERROR, "it was refused"),
    ]
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ERROR - it was refused", shown[1])


def test_a_daemon_ends_when_it_is_told_to(stand_in):
    stand_in.does("""
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        open(here + '/up', 'w')
        while True: signal.pause()
    """)
    rotator = given()
    running = threading.Thread(target=rotator.run_daemon)
    running.start()
    until = time.monotonic() + 30
    while not (stand_in.directory / "up").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert rotator.running
    rotator.running = False
    running.join(30)
    assert not running.is_alive()


def test_what_a_token_says():
    now = int(time.time())
    claims = {"sub": "ada", "client_id": "c", "scope": "all-apis offline", "iss": "i", "aud": "a", "iat": now, "exp": now + 3600}
    info = given().get_token_info(token(**claims))
    assert info.pop("expires_in_minutes") in (59, 60)
    assert info == {
        "subject": "ada",
        "client_id": "c",
        "scopes": ["all-apis", "offline"],
        "issuer": "i",
        "audience": "a",
        "expires_at": datetime.fromtimestamp(now + 3600).isoformat(),
        "issued_at": datetime.fromtimestamp(now).isoformat(),
        "is_expired": False,
    }
    assert given().get_token_info(token(exp=now - 1))["is_expired"] is True
    assert set(given().get_token_info(token())) == {"subject", "client_id", "scopes", "issuer", "audience"}
    for broken in ("", "eyJ", "a.b", "a.b.c", "a.e30x.c", f"{token(exp='soon')}", "a.W10.c", 5):
        assert set(given().get_token_info(broken)) == {"error"}


def test_the_example_of_the_old_readme_runs_unchanged(home):
    script = home / "example.py"
    script.write_text(EXAMPLE)
    running = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    said = []
    try:
        for line in running.stdout:
            said.append(line)
            # Once, and as the daemon, which finds it live.
            if "Token rotation completed" in line or "alive" in line:
                if sum("Token rotation completed" in line or "alive" in line for line in said) == 2:
                    break
        log = home / ".databricks_oauth_rotator.log"
        text = log.read_text()
        running.send_signal(signal.SIGTERM)
        said += running.stdout.readlines()
        assert running.wait(30) == 0, "".join(said)
    finally:
        running.kill()
    rest = text
    for line in LINES:
        assert f" - INFO - {line}" in rest, f"{line!r} is missing or out of order in\n{text}"
        rest = rest.split(f" - INFO - {line}", 1)[1]
    assert any("Daemon stopped" in line for line in said)
    pgpass = home / ".pgpass"
    assert pgpass.read_text().startswith(ENTRY + "eyJ") and pgpass.stat().st_mode & 0o777 == 0o600


def test_the_commands_of_the_old_readme_do_what_they_did(home, stage, installed):
    environment = dict(os.environ, DATABRICKS_HOST="https://workspace.cloud.databricks.com")
    environment["DATABRICKS_PG_HOST"] = "instance-xyz.database.cloud.databricks.com"
    environment["DATABRICKS_PG_USERNAME"] = "user@company.com"
    environment["PATH"] = f"{installed / 'bin'}:/usr/bin:/bin"
    run = lambda line: subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, cwd=home)
    once = run("databricks-oauth-rotator --once")
    assert once.returncode == 0, once
    for line in LINES:
        assert f" - INFO - {line}" in once.stdout
    assert run("tail -50 ~/.databricks_oauth_rotator.log").stdout == once.stdout
    assert run("databricks-oauth-status").returncode == 0
    assert run("databricks-oauth-rotator --interval 45 --once --pg-port 5432 --pg-database databricks_postgres").returncode == 0
    for name in ("install", "restart", "uninstall"):
        refused = run(f"databricks-oauth-{name}")
        assert refused.returncode == 1 and refused.stderr.startswith("error: "), refused
    assert run("databricks-oauth-rotator --interval").returncode == 2


def test_a_token_of_ones_own_is_published_unless_it_is_dead_or_anothers(home, stage, capsys):
    others = "elsewhere:5432:app:bob:secret-0001\n"
    pgpass = home / ".pgpass"
    pgpass.write_text(others)
    pgpass.chmod(0o600)
    rotator = DatabricksOAuthRotator(
        "https://workspace.cloud.databricks.com",
        pg_host="instance-xyz.database.cloud.databricks.com",
        pg_username="user@company.com",
    )
    now = int(time.time())
    mine = token(sub="user@company.com", iat=now, exp=now + 3600)
    assert rotator.update_pgpass_file(mine) is True
    assert pgpass.read_text() == ENTRY + mine + "\n" + others
    assert "Successfully updated" in capsys.readouterr().out
    # What says nothing of itself is published as it is.
    assert rotator.update_pgpass_file("opaque-0123456789") is True
    before = ENTRY + "opaque-0123456789\n" + others
    assert pgpass.read_text() == before
    dead = token(sub="user@company.com", iat=now - 7200, exp=now - 3600)
    for refused in (dead, token(sub="bob@company.com", exp=now + 3600), "", "two words", "x" * 20_000):
        assert rotator.update_pgpass_file(refused) is False
        assert pgpass.read_text() == before
        said = capsys.readouterr().out
        assert " - ERROR - " in said and (not refused or refused not in said)
