"""What the package costs, on this machine: run it in an environment that has the wheel, with a connection whose password is live.

    python measure.py [NAME]
"""

import os
import statistics
import subprocess
import sys
import time

import dbx_rotator


def middle(times, call):
    """The middle time of so many calls, in milliseconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1_000)
    return statistics.median(taken)


def run(*words):
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def imported():
    """In a process of its own, without the start of Python."""
    text = "import time; began = time.perf_counter(); import dbx_rotator; print((time.perf_counter() - began) * 1_000)"
    return float(subprocess.run([sys.executable, "-c", text], check=True, capture_output=True).stdout)


def anew(name):
    dbx_rotator.forget()
    dbx_rotator.credential(name)


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else None
    program = dbx_rotator.program()
    script = os.path.join(os.path.dirname(program), "databricks-oauth-rotator")
    dbx_rotator.credential(name)
    by_thousand = middle(31, lambda: [dbx_rotator.credential(name) for _ in range(1_000)])
    words = ["token", "--json"] + ([name] if name else [])
    for what, figure, unit in [
        ("import dbx_rotator", statistics.median(imported() for _ in range(31)), "ms"),
        ("credential() of this process", by_thousand, "us"),
        ("credential() from the password file", middle(101, lambda: anew(name)), "ms"),
        ("the program alone (token --json)", middle(101, run(program, *words)), "ms"),
        ("dbx-rotator --version", middle(31, run(program, "--version")), "ms"),
        ("databricks-oauth-rotator --version", middle(31, run(script, "--version")), "ms"),
    ]:
        print(f"{what:40} {figure:8.2f} {unit}")


if __name__ == "__main__":
    main()
