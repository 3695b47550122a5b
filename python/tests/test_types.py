"""Both modules are typed, and so is what uses them."""

import subprocess
import sys

USE = """
import asyncio
from datetime import datetime
from typing import Any, Dict, Optional

import dbx_rotator
from databricks_oauth_rotator import DatabricksOAuthRotator

live: dbx_rotator.Credential = dbx_rotator.credential("orders", min_valid=60)
until: datetime = live.expires_at
mode: Optional[str] = live.sslmode
port: int = live.port
arguments: Dict[str, Any] = dbx_rotator.connect_kwargs()
entry: Dict[str, Any] = dbx_rotator.django_database("orders", CONN_MAX_AGE=0)


async def main() -> str:
    return (await dbx_rotator.async_credential("orders")).password + await dbx_rotator.asyncpg_password("orders")()


asyncio.run(main())
went_well: bool = DatabricksOAuthRotator("https://x.example", pg_host="h", pg_username="u").run_once()
"""

WRONG = "\ndbx_rotator.credential(5)\nlive.password = 'x'.encode()\nDatabricksOAuthRotator(port=5)\n"


def mypy(stage, *words):
    cache = f"{stage['STAGE_CACHE']}/mypy"
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, *words]
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


def test_mypy_finds_nothing_in_them_and_all_that_is_wrong_in_their_use(stage, source, installed, tmp_path):
    ours = mypy(stage, "--config-file", source / "python/pyproject.toml", source / "python/src")
    assert ours.returncode == 0, ours.stdout + ours.stderr
    use = tmp_path / "use.py"
    use.write_text(USE + WRONG)
    told = mypy(stage, "--config-file=", use).stdout
    lines = len(USE.splitlines()) + len(WRONG.splitlines())
    faults = [line for line in told.splitlines() if ": error:" in line]
    assert len(faults) == 3 and all(int(line.split(":")[1]) > len(USE.splitlines()) for line in faults), (lines, told)
