"""What is in a wheel: of the tests' own, and of each that `dist/build wheels` has made."""

import hashlib
import base64
import csv
import io
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

#: What pip downloads.
LARGEST = 3_000_000

PROGRAMS = ["dbx-rotator", *(f"databricks-oauth-{name}" for name in ("rotator", "install", "status", "restart", "uninstall"))]


def wheels():
    named = os.environ.get("DBX_ROTATOR_WHEEL")
    made = Path(os.environ.get("STAGE_SOURCE") or Path(__file__).parents[2]) / "target/wheels"
    return sorted({path.resolve() for path in [*([Path(named)] if named else []), *made.glob("*.whl")]})


@pytest.fixture(params=wheels() or [None], ids=lambda path: path.name if path else "none")
def archive(request):
    if request.param is None:
        pytest.skip("there is no wheel: dist/build wheels native")
    with zipfile.ZipFile(request.param) as opened:
        yield request.param, opened


def version(source):
    return re.search(r'(?m)^version = "(.*)"', (source / "Cargo.toml").read_text())[1]


def test_it_is_small_and_has_exactly_what_it_shall_have(archive, source):
    path, opened = archive
    assert path.stat().st_size <= LARGEST, path.stat().st_size
    own = f"dbx_rotator-{version(source)}"
    names = set(opened.namelist())
    modules = {
        str(file.relative_to(source / "python/src"))
        for file in (source / "python/src").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    scripts = {f"{own}.data/scripts/{name}" for name in PROGRAMS}
    information = {name for name in names if name.startswith(f"{own}.dist-info/")}
    assert names == modules | scripts | information, names ^ (modules | scripts | information)
    assert f"{own}.dist-info/licenses/LICENSE" in names
    for one in opened.infolist():
        # Nothing of when and by whom it was made; and programs can be executed.
        assert one.date_time[0] == 1980, one
        mode = one.external_attr >> 16
        assert mode & 0o777 == (0o755 if one.filename in scripts else 0o644), one


def test_its_record_and_its_metadata_are_right(archive, source):
    path, opened = archive
    information = f"dbx_rotator-{version(source)}.dist-info"
    for name, told, _ in csv.reader(io.StringIO(opened.read(f"{information}/RECORD").decode())):
        if told:
            digest = base64.urlsafe_b64encode(hashlib.sha256(opened.read(name)).digest()).decode().rstrip("=")
            assert told == f"sha256={digest}", name
    metadata = opened.read(f"{information}/METADATA").decode()
    for line in (f"Version: {version(source)}", "Requires-Python: >=3.8", "License-Expression: Apache-2.0"):
        assert f"{line}\n" in metadata
    assert "Requires-Dist" not in metadata
    about = opened.read(f"{information}/WHEEL").decode()
    tags = re.findall(r"(?m)^Tag: py3-none-(.*)$", about)
    assert sorted(tags) == sorted(path.stem.split("-", 4)[4].split(".")), about
    for name in opened.namelist():
        text = opened.read(name)
        assert str(source).encode() not in text and os.environ.get("STAGE_HOME", "/no/home").encode() + b"/.cargo" not in text, name


def test_the_program_is_one_for_its_tag(archive):
    path, opened = archive
    (name,) = [name for name in opened.namelist() if name.endswith(".data/scripts/dbx-rotator")]
    head = opened.read(name)
    if "-macosx_" in path.name:
        (magic, processor) = struct.unpack("<II", head[:8])
        assert (magic, processor) == (0xFEEDFACF, {"x86_64": 0x01000007, "arm64": 0x0100000C}[path.stem.split("_11_0_")[1]])
        return
    assert head[:5] == b"\x7fELF\x02"
    (machine,) = struct.unpack("<H", head[18:20])
    assert machine == {"x86_64": 62, "aarch64": 183}[re.search(r"(x86_64|aarch64)\.whl$", path.name)[1]]
    needed = {int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", head)}
    promised = re.search(r"manylinux_2_(\d+)", path.name)
    if promised:
        assert needed and max(needed) <= int(promised[1]), needed
    else:
        assert "-musllinux_1_2" in path.name and not needed


def test_twine_takes_it(archive):
    path, _ = archive
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", path], capture_output=True, text=True)
    assert done.returncode == 0 and "PASSED" in done.stdout, done.stdout + done.stderr
