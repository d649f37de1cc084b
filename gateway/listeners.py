"""The sockets on which a gateway is reached, and how many it may have. Must not know what is served on them."""

import resource
import socket
from typing import Final

MOST_FILES: Final = 1_048_576


class PortTaken(Exception):
    """The port cannot be listened on."""


def bind(host: str, port: int, *, shared: bool = False, listens: bool = True) -> socket.socket:
    """A socket on this address, port 0 for any free one; raises PortTaken with what to do about it.

    `shared`: with others of our processes, among which the kernel spreads connections (docs/adr/0007). Without
    `listens` the port is only kept: no connection comes here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
        if listens:
            listener.listen(2048)
    except OSError as error:
        listener.close()
        hint = "stop what listens there, or set WARDGATE_PORT"
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; {hint}") from error
    return listener


def url_of(listener: socket.socket, port: int | None = None) -> str:
    """Where a socket can be reached; with `port`, another port of the same host."""
    host, own = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{own if port is None else port}"


def more_files() -> int:
    """Let this process open as many files as it may, sockets included, and tell how many. The usual limit of 1,024 is
    one that whoever opens as many connections takes from everybody else; it is there for `select`, which nothing here
    calls."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
