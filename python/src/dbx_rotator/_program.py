"""Where the program is that came with this package, and how it is run.

A secret never becomes an argument: it goes to the program through its environment or its standard input.
"""

from __future__ import annotations

import os
import sys

from ._errors import NotInstalled, RotatorError, error_of

# Set by type checkers: `typing` takes longer to import than all of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Dict, List, NoReturn, Optional, Sequence

NAME = "dbx-rotator"

#: The program gives up by itself after a minute of tries; this is for one that hangs.
LONGEST_RUN = 180.0

#: Between SIGTERM and SIGKILL.
LAST_WAIT = 5.0

_found: Optional[str] = None


def find() -> str:
    """The path of the program: beside this package where pip, pipx or uv have put both, else on PATH."""
    global _found
    if _found is None or not os.path.exists(_found):
        _found = next((path for path in _candidates() if os.access(path, os.X_OK)), None) or _on_path()
    return _found


def _candidates() -> List[str]:
    package = os.path.dirname(os.path.abspath(__file__))
    libraries = os.path.dirname(package)
    # PREFIX/lib/python3.x/site-packages, and what `pip install --target` makes.
    prefixes = [os.path.abspath(os.path.join(libraries, "..", "..", "..")), libraries]
    found = [os.path.join(prefix, "bin", NAME) for prefix in prefixes]
    # An editable installation has the package elsewhere.
    found.append(os.path.join(sys.prefix, "bin", NAME))
    return found


def _on_path() -> str:
    import shutil

    found = shutil.which(NAME)
    if found is None:
        hint = "install it with its package: pip install --force-reinstall dbx-rotator"
        raise NotInstalled(f"the program {NAME} is neither beside its Python package nor on PATH", hint=hint)
    return found


def become(name: str, arguments: Sequence[str]) -> NoReturn:
    """Takes the program in place of this process, under a name that it knows: that of a script beside it."""
    try:
        os.execv(_beside(name) or find(), [name, *arguments])
    except RotatorError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.code)


def _beside(script: str) -> Optional[str]:
    # A bare name is none of a script: in the working directory anybody may have put anything.
    if not os.path.dirname(script):
        return None
    path = os.path.join(os.path.dirname(os.path.realpath(script)), NAME)
    return path if os.access(path, os.X_OK) else None


def output_of(
    arguments: Sequence[str], *, variables: Optional[Dict[str, str]] = None, given: Optional[str] = None
) -> str:
    """What the program prints; `given` is what it reads.

    Raises a RotatorError with what it says where it ends with another exit code than 0.
    """
    import subprocess

    words = [find(), *arguments]
    environment = dict(os.environ, **variables) if variables else None
    # Its input is never ours: it must not wait for a person.
    stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
    child = subprocess.Popen(
        words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, close_fds=True
    )
    try:
        out, said = child.communicate(None if given is None else given.encode(), timeout=LONGEST_RUN)
    except BaseException as failure:
        end(child)
        if isinstance(failure, subprocess.TimeoutExpired):
            message = f"{NAME} {arguments[0]} has not ended within {LONGEST_RUN:.0f} s"
            raise error_of(75, message, "try again; `dbx-rotator check` may find out why") from None
        raise
    if child.returncode != 0:
        raise error_of_output(child.returncode, said.decode(errors="replace"))
    return out.decode()


def end(child: subprocess.Popen[bytes]) -> None:
    """Ends it, as gently as it lets us."""
    import subprocess

    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(LAST_WAIT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def error_of_output(code: int, said: str) -> RotatorError:
    """What it said on its standard error, as an exception."""
    message: List[str] = []
    hint: List[str] = []
    into: Optional[List[str]] = None
    for line in said.splitlines():
        for start, part in (("error: ", message), ("hint: ", hint), ("warning: ", None)):
            if line.startswith(start):
                into, line = part, line[len(start) :]
                break
        if into is not None:
            into.append(line)
    text = "\n".join(message).strip() or said.strip() or f"{NAME} ended with exit code {code} and said nothing"
    return error_of(code, text, "\n".join(hint).strip() or None)
