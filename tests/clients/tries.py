"""What every client in Python does: connect anew again and again, and print a line for each try."""

import os
import time


def token():
    with open(os.environ["TOKEN_FILE"]) as file:
        return file.read()


def tries(version, connect):
    """`connect` opens a session of its own and returns the server's process."""
    print("version", version, flush=True)
    while True:
        try:
            print("ok", connect(), flush=True)
        except Exception as error:
            print("failed:", type(error).__name__, *str(error).split(), flush=True)
        time.sleep(0.5)
