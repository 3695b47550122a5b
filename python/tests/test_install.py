"""The wheel, installed as people do it, on a PATH without Rust: in fresh environments of each Python that there is here."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ["rotator", "install", "status", "restart", "uninstall"]
OLDEST, NEWEST = 8, 15


def pythons():
    """Each Python 3 that there is here, by its minor version."""
    places = os.environ.get("STAGE_PATH", os.environ["PATH"]).split(":")
    home = os.environ.get("STAGE_HOME", os.environ.get("HOME", ""))
    found = {}
    for minor in range(OLDEST, NEWEST):
        versions = f"{home}/.pyenv/versions/3.{minor}.*/bin/python3"
        for path in [*(f"{place}/python3.{minor}" for place in places), *sorted(glob.glob(versions))]:
            # One of pyenv's own may stand for a version that is not chosen.
            if os.access(path, os.X_OK) and "/shims/" not in path:
                found.setdefault(minor, path)
    return found


PYTHONS = pythons()


class Environment:
    def __init__(self, directory, home):
        self.directory = directory
        self.variables = {"HOME": str(home), "PATH": f"{directory / 'bin'}:/usr/bin:/bin", "TMPDIR": str(home)}
        for name in ("PIP_CERT", "PIP_INDEX_URL", "USER", "LANG"):
            if name in os.environ:
                self.variables[name] = os.environ[name]
        self.home = home

    def run(self, *words, code=0, **more):
        """What a command says on both outputs; the code that it must end with."""
        done = subprocess.run(
            [str(word) for word in words], env={**self.variables, **more}, cwd=self.home, capture_output=True, text=True
        )
        assert done.returncode == code, f"{words} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def python(self, text):
        return self.run(self.directory / "bin/python", "-c", text).strip()


@pytest.fixture
def uv(stage):
    return os.path.join(os.path.dirname(sys.executable), "uv")


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def made(python, home, uv):
    environment = Environment(home / "venv", home)
    environment.run(uv, "venv", "--quiet", "--offline", "--python", python, environment.directory)
    return environment


def version(source):
    return re.search(r'(?m)^version = "(.*)"', (source / "Cargo.toml").read_text())[1]


def works(environment, source):
    """The program, its six names, and both modules."""
    assert shutil.which("cargo", path=environment.variables["PATH"]) is None
    assert environment.run("dbx-rotator", "--version").strip() == f"dbx-rotator {version(source)}"
    for name in NAMES:
        assert f"Usage: databricks-oauth-{name}" in environment.run(f"databricks-oauth-{name}", "--help")
        environment.run(f"databricks-oauth-{name}", "--no-such-option", code=2)


def may_have_a_service(environment):
    """Whatever else is missing here for one."""
    said = subprocess.run(
        ["dbx-rotator", "service", "install"], env=environment.variables, cwd=environment.home, capture_output=True, text=True
    )
    assert said.returncode != 0 and "a service cannot start" not in said.stderr, said.stderr


def test_there_are_two_pythons_at_least(stage):
    if len(PYTHONS) < 2:
        pytest.skip(f"only {sorted(PYTHONS)} of Python 3 are here")


@pytest.mark.parametrize("minor", range(OLDEST, NEWEST))
def test_in_a_fresh_environment_of_each_python(minor, home, wheel, uv, source):
    if minor not in PYTHONS:
        pytest.skip(f"there is no Python 3.{minor} here")
    environment = made(PYTHONS[minor], home, uv)
    environment.run(uv, "pip", "install", "--quiet", "--offline", "--python", environment.directory, wheel)
    works(environment, source)
    # Not what lies in the working directory under that name.
    trap = home / "dbx-rotator"
    trap.write_text("#!/bin/sh\necho trapped\n")
    trap.chmod(0o755)
    assert environment.run("python", "-m", "dbx_rotator", "--version").strip() == f"dbx-rotator {version(source)}"
    told = environment.python("""if True:
        import json, sys, dbx_rotator
        from databricks_oauth_rotator import DatabricksOAuthRotator
        rotator = DatabricksOAuthRotator("https://x.example", "id", "s3cret", "h", pg_username="u")
        try:
            dbx_rotator.credential("orders")
        except dbx_rotator.ConfigurationError as error:
            print(json.dumps([sys.version_info[1], dbx_rotator.program(), error.code, error.hint]))
    """)
    may_have_a_service(environment)
    seen, program, code, hint = json.loads(told)
    assert (seen, program, code) == (minor, str(environment.directory / "bin/dbx-rotator"), 78) and hint


def test_pip_installs_it_and_its_uninstall_leaves_what_is_the_users(home, wheel, source):
    """With the pip that people have; what the page says is left behind is."""
    python = PYTHONS.get(11) or sys.executable
    environment = Environment(home / "venv", home)
    environment.run(python, "-m", "venv", environment.directory)
    environment.run("pip", "install", "--quiet", "--no-index", wheel)
    works(environment, source)
    config = home / ".config/dbx-rotator/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[[workspace]]\nhost = 'https://x.example'\n[[connection]]\nhost = 'h'\nuser = 'u'\n")
    kept = home / ".pgpass"
    kept.write_text("h:5432:databricks_postgres:u:eyJ\n")
    environment.run("pip", "uninstall", "--quiet", "--yes", "dbx-rotator")
    left = [path for path in (environment.directory / "bin").iterdir() if "rotator" in path.name or "databricks" in path.name]
    site = environment.python("import sysconfig; print(sysconfig.get_path('purelib'))")
    left += [path for path in Path(site).iterdir() if "rotator" in path.name]
    assert left == [] and config.exists() and kept.exists()


def test_uv_and_pipx_put_its_commands_on_path(home, wheel, uv, source):
    environment = Environment(home / ".local", home)
    environment.variables["PATH"] = f"{home / '.local/bin'}:{os.path.dirname(sys.executable)}:/usr/bin:/bin"
    python = PYTHONS.get(11) or sys.executable
    environment.run(uv, "tool", "install", "--quiet", "--offline", "--python", python, wheel)
    works(environment, source)
    assert (home / ".local/bin/databricks-oauth-status").exists()
    may_have_a_service(environment)
    environment.run(uv, "tool", "uninstall", "--quiet", "dbx-rotator")
    assert not (home / ".local/bin/dbx-rotator").exists()
    pipx = os.path.join(os.path.dirname(sys.executable), "pipx")
    environment.run(pipx, "install", "--backend", "uv", "--python", python, wheel)
    works(environment, source)
    may_have_a_service(environment)


def test_a_service_is_refused_from_where_it_would_vanish(home, wheel, uv, stage):
    """By `uvx`, by `pipx run`, and from an environment below a directory that the system empties."""
    environment = Environment(home / "venv", home)
    install = [wheel, "dbx-rotator", "service", "install"]
    uvx = [uv, "tool", "run", "--quiet", "--offline", "--python", sys.executable, "--from", *install]
    pipx = [os.path.join(os.path.dirname(sys.executable), "pipx"), "run", "--backend", "uv", "--spec", *install]
    environment.variables["PATH"] = f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"
    for words in (uvx, pipx):
        said = environment.run(*words, code=78)
        assert "it is in a cache" in said and "pipx install dbx-rotator" in said, said
    temporary = home / "emptied"
    temporary.mkdir()
    other = made(sys.executable, temporary, uv)
    other.run(uv, "pip", "install", "--quiet", "--offline", "--python", other.directory, wheel)
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    said = other.run("dbx-rotator", "service", "install", code=78, TMPDIR=str(temporary), HOME=str(elsewhere))
    assert "is emptied by the system" in said, said


def test_beside_the_python_tool_whoever_was_installed_last_has_the_commands(home, wheel, uv, stage):
    """A stand-in for its package, whose commands and module have the same names."""
    environment = made(sys.executable, home, uv)
    old = home / "old"
    old.mkdir()
    archive = old / "databricks_oauth_rotator-1.0.0-py3-none-any.whl"
    make_old_wheel(archive)
    install = lambda what, *more: environment.run(
        uv, "pip", "install", "--quiet", "--offline", "--python", environment.directory, *more, what
    )
    winner = lambda: environment.run("databricks-oauth-rotator", "--help")
    install(archive)
    assert "the Python tool" in winner()
    install(wheel)
    assert "Usage: databricks-oauth-rotator" in winner()
    # Its removal takes along what has the same names; to install ours again brings it back.
    environment.run(uv, "pip", "uninstall", "--quiet", "--python", environment.directory, "databricks-oauth-rotator")
    assert not (environment.directory / "bin/databricks-oauth-rotator").exists()
    install(wheel, "--reinstall")
    assert "Usage: databricks-oauth-rotator" in winner()


def make_old_wheel(path):
    import zipfile

    info = "databricks_oauth_rotator-1.0.0.dist-info"
    files = {
        "databricks_oauth_rotator/__init__.py": "def main():\n    print('the Python tool')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: databricks-oauth-rotator\nVersion: 1.0.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ndatabricks-oauth-rotator = databricks_oauth_rotator:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
