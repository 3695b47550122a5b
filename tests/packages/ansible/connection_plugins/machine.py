"""Enters a test machine (tests/support/machine.rs) from its host: its cgroups first, then all its namespaces."""

import os
import shutil

from ansible.plugins.connection import ConnectionBase
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
name: machine
short_description: enters a container by the process id of its first process
description: As nsenter(1) does.
author: The dbx-rotator authors
options:
  leader:
    description: The process id of the machine's systemd, on the host.
    vars: [{name: ansible_machine_leader}]
  door:
    description: The file cgroup.procs of the machine's cgroup for guests.
    vars: [{name: ansible_machine_door}]
"""

ENTER = 'echo $$ >"$1" && shift && exec nsenter "$@"'
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Connection(Local):
    """Commands run in the machine; files are copied by its root directory in /proc."""

    transport = "machine"
    has_pipelining = True

    def exec_command(self, cmd, in_data=None, sudoable=True):
        leader = str(self.get_option("leader"))
        words = ["sh", "-c", ENTER, "enter", self.get_option("door"), "--all", "--target", leader, "--", "/usr/bin/env", "-i",
                 "-C", "/root", "PATH=" + PATH, "HOME=/root", "USER=root", "LANG=C.UTF-8", "/bin/sh", "-c", cmd]
        return super().exec_command(b" ".join(quoted(word) for word in words), in_data=in_data, sudoable=False)

    def _inside(self, path):
        return f"/proc/{self.get_option('leader')}/root" + os.path.normpath(os.path.join("/root", path))

    def put_file(self, in_path, out_path):
        ConnectionBase.put_file(self, in_path, out_path)
        shutil.copyfile(in_path, self._inside(out_path))

    def fetch_file(self, in_path, out_path):
        ConnectionBase.fetch_file(self, in_path, out_path)
        shutil.copyfile(self._inside(in_path), out_path)


def quoted(word):
    return b"'" + word.encode().replace(b"'", b"'\\''") + b"'"
