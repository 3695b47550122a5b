"""docs/python.md, from its top to its end: each block is run, or says above it what it would need."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: The tokens of the stage live for seconds, and are asked for with more than that left otherwise.
FIRST = "from dbx_rotator import _credential; _credential.LEAST_VALID = 2.0; "

#: What makes a connect of a block that only has settings.
THEN = {
    "DATABASES = ": """
import django
from django.conf import settings
from django.db import connection
settings.configure(DATABASES=DATABASES)
django.setup()
with connection.cursor() as cursor:
    cursor.execute("select current_user")
    print(cursor.fetchone())
""",
}


def page():
    return Path(os.environ.get("STAGE_SOURCE") or Path(__file__).parents[2], "docs/python.md").read_text()


def blocks(language):
    """Each block of this language that is to be run, with its line."""
    found, before, text = [], "", page()
    for match in re.finditer(r"(?m)^(.*)\n+?^```(\w+)\n((?:.|\n)*?)^```$", text):
        before, own, block = match.groups()
        if own == language and not before.startswith("<!-- not run: needs "):
            found.append(pytest.param(block, id=f"line-{text.count(chr(10), 0, match.start(2)) + 1}"))
    return found


def test_there_is_something_to_run():
    assert len(blocks("python")) > 9 and len(blocks("sh")) > 1
    assert set(re.findall(r"(?m)^```(\w+)$", page())) == {"python", "sh"}


@pytest.mark.parametrize("block", blocks("python"))
def test_what_the_page_shows_in_python_works(block, stage, tmp_path):
    ends = "".join(more for start, more in THEN.items() if start in block)
    script = tmp_path / "block.py"
    script.write_text(block + ends)
    environment = dict(os.environ)
    if "workspace.cloud.databricks.com" in block:
        environment = {name: value for name, value in environment.items() if not name.startswith("XDG_")}
        environment.update(
            HOME=str(tmp_path),
            HTTPS_PROXY=stage["STAGE_OLD_PROXY"],
            DATABRICKS_CLIENT_ID=stage["STAGE_OLD_CLIENT"],
            DATABRICKS_CLIENT_SECRET=stage["STAGE_OLD_SECRET"],
        )
    run = f"{FIRST}exec(compile(open({str(script)!r}).read(), 'page', 'exec'))"
    done = subprocess.run([sys.executable, "-c", run], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it shows something"
    if "current_user" in block + ends:
        assert set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.stdout)) == {stage["STAGE_USER"]}


@pytest.mark.parametrize("block", blocks("sh"))
def test_what_the_page_tells_to_type_works(block, wheel, tmp_path, stage):
    variables = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/.local/bin:{os.path.dirname(sys.executable)}:/usr/bin:/bin"}
    # The index that the wheel is not on yet.
    variables.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheel.parent), PIP_DISABLE_PIP_VERSION_CHECK="1")
    variables.update(UV_NO_INDEX="1", UV_FIND_LINKS=str(wheel.parent), UV_OFFLINE="1", UV_PYTHON=sys.executable)
    done = subprocess.run(["sh", "-ec", block], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("dbx-rotator ")
