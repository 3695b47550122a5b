"""Listens as a socket unit of systemd does, and starts a program for the first client, and again when that has ended and one waits.

usage: activated.py SOCKET PORT PROGRAM ARGUMENTS...
"""

import os
import select
import signal
import socket
import sys

SOCKET, PORT, COMMAND = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
FIRST = 3  # of sd_listen_fds(3)

os.makedirs(os.path.dirname(SOCKET), mode=0o700, exist_ok=True)
unix = socket.socket(socket.AF_UNIX)
unix.bind(SOCKET)
os.chmod(SOCKET, 0o600)
tcp = socket.socket(socket.AF_INET)
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind(("127.0.0.1", PORT))
listening = [unix, tcp]
for one in listening:
    one.listen()
child = 0


def stop(*_):
    if child:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    os._exit(0)


signal.signal(signal.SIGTERM, stop)
print("listening", file=sys.stderr, flush=True)
while True:
    select.select(listening, [], [])
    print("starts", file=sys.stderr, flush=True)
    child = os.fork()
    if child == 0:
        # Beyond the place where they go, so that none is overwritten.
        copies = [os.dup2(one.fileno(), 20 + number) for number, one in enumerate(listening)]
        for number, copy in enumerate(copies):
            os.dup2(copy, FIRST + number)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(listening)))
        os.execvp(COMMAND[0], COMMAND)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    child = 0
    print(f"ended with {status}", file=sys.stderr, flush=True)
