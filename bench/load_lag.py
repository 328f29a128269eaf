"""How long Contact.get takes, one at a time over a kept-open connection: alone, and while something else goes on."""

import socket
import statistics
import time
from collections.abc import Callable

from bench.load import Link


def latencies(
    address: tuple[str, int], request: bytes, going_on: Callable[[], bool], pause: float = 0.005
) -> list[float]:
    """Seconds of each request sent one after another while *going_on* says so, *pause* seconds between."""
    link = Link(address)
    laps = []
    while going_on():
        begun = time.perf_counter()
        link.socket.sendall(request)
        while link.answer() is None:
            read = link.socket.recv(262_144)
            if not read:
                raise SystemExit("the server closed the connection")
            link.read += read
        laps.append(time.perf_counter() - begun)
        time.sleep(pause)
    link.socket.shutdown(socket.SHUT_RDWR)
    link.socket.close()
    return laps


def percentile(laps: list[float], share: int) -> float:
    """The *share*-th percentile, in milliseconds."""
    return round(statistics.quantiles(laps, n=100)[share - 1] * 1000, 2)
