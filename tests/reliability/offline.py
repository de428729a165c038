"""Runs ``tools/alone/commands.py`` where no server can be reached and where files' modes bind root, too.

Usage: offline.py COMMANDS_PY RESULTS < COMMANDS, as that script's own. It imports nothing of the repository, which is
shut out.
"""

import ctypes
import os
import runpy
import socket
import sys

NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
OVERRIDE = 1 << 1  # CAP_DAC_OVERRIDE: root's right to write what is read-only


def refuse(event: str, arguments: tuple) -> None:
    """An audit hook, which nothing in this process can take away."""
    if event in NETWORK:
        raise PermissionError(f"{event} is refused here: {arguments}")


def obey_modes() -> None:
    """Give up root's right for good."""
    if os.geteuid() == 0:
        library, header, rights = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        library.capget(header, rights)
        rights[0] &= ~OVERRIDE
        library.capset(header, rights)


def require_obstacles(readonly: str) -> None:
    """End if a server can be asked for or a read-only folder be written to: nothing would be shown then."""
    for attempt in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: os.mkdir(os.path.join(readonly, "x"))):
        try:
            attempt()
        except PermissionError:
            continue
        sys.exit("nothing stands in the way of these runs")


if __name__ == "__main__":
    _, script, results, readonly = sys.argv
    sys.addaudithook(refuse)
    obey_modes()
    require_obstacles(readonly)
    sys.argv = [script, results]
    runpy.run_path(script, run_name="__main__")
