"""Which machine and process this is."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

__all__ = ["host_id", "process_name"]

_MACHINE_ID = Path("/etc/machine-id")


def host_id() -> str:
    """A text that stays the same on one machine: from systemd's machine id, else the host's name.

    In a container without a machine id this is the container's host name: give it a fixed one.
    """
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        machine = ""
    # machine-id(5) asks that the id itself is not handed out, only something derived from it.
    return hashlib.sha256(b"layer2 store " + machine.encode()).hexdigest()[:32] if machine else socket.gethostname()


def process_name() -> str:
    """What tells a person which process holds a store."""
    return f"process {os.getpid()} on {socket.gethostname()}"
