"""HTTP requests over kept-open connections: as many as the server answers, or one at a time with the time of each.

Cheap enough that the server is what is measured: one thread, one epoll, and no more of an answer read than its length.
"""

import math
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to: requests a second, and how many answers were not HTTP 200."""

    per_second: float
    refused: int


class Link:
    """A kept-open connection with what was read of the next answer."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""

    def answer(self) -> bytes | None:
        """One whole answer if it has arrived."""
        end = self.read.find(HEAD_END)
        if end < 0:
            return None
        head = self.read[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        whole = end + len(HEAD_END) + length
        if len(self.read) < whole:
            return None
        answer, self.read = self.read[:whole], self.read[whole:]
        return answer


def fire(
    address: tuple[str, int], request: bytes, *, concurrency: int, seconds: float = math.inf, most: float = math.inf
) -> Load:
    """Keep *concurrency* requests under way for *seconds* (of wall time), or until *most* answers, and count these."""
    links = {}
    poll = select.epoll()
    for _ in range(concurrency):
        link = Link(address)
        links[link.socket.fileno()] = link
        poll.register(link.socket, select.EPOLLIN)
        link.socket.sendall(request)
    done = refused = 0
    begun = time.perf_counter()
    until = begun + seconds
    while (now := time.perf_counter()) < until and done < most:
        for number, _event in poll.poll(1):
            link = links[number]
            link.read += link.socket.recv(262_144)
            answer = link.answer()
            if answer is not None:
                done += 1
                refused += not answer.startswith(b"HTTP/1.1 200")
                link.socket.sendall(request)
    for link in links.values():
        link.socket.close()
    return Load(done / (now - begun), refused)


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


def main() -> None:
    """``python -m bench.load PORT COUNT AT_ONCE``: send the request on standard input so often."""
    port, count, at_once = map(int, sys.argv[1:])
    load = fire(("127.0.0.1", port), sys.stdin.buffer.read(), concurrency=at_once, most=count)
    raise SystemExit(load.refused)


def post(path: str, body: bytes, kind: str, headers: dict[str, str]) -> bytes:
    """The bytes of a POST."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + HEAD_END + body


if __name__ == "__main__":
    main()
