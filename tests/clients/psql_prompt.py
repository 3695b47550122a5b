"""psql at its prompt: its session is cut when the token it began with is long dead. It resets itself, and `\\c` works, too."""

import os
import pty
import re
import subprocess
import sys
import time

from tries import tries

mine, its = pty.openpty()
psql = subprocess.Popen([os.environ["PSQL"], "-X", "-P", "pager=off"], stdin=its, stdout=its, stderr=its, start_new_session=True)
os.close(its)


def until(pattern):
    said = ""
    while not (found := re.search(pattern, said)):
        more = os.read(mine, 4096).decode()
        said += more
        if not more or "Failed" in said or "FATAL:  28" in said:
            raise RuntimeError(said)
    return found


def type_in(line, pattern):
    os.write(mine, line.encode() + b"\n")
    return until(pattern)


def connect():
    time.sleep(float(os.environ.get("PROMPT_SECONDS", "25")))
    type_in("select pg_terminate_backend(pg_backend_pid());", "Succeeded")
    type_in("\\c", "You are now connected")
    return type_in("select 'it is ' || pg_backend_pid();", r"it is (\d+)")[1]


until("=>|=#")
tries("psql " + subprocess.check_output([os.environ["PSQL"], "--version"], text=True).split()[2], connect)
