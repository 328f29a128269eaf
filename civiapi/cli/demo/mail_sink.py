"""A mail server on this machine that keeps what it gets and delivers nothing: where the demo's alerts arrive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

ANSWERS = {
    "EHLO": "250 demo",
    "HELO": "250 demo",
    "MAIL": "250 OK",
    "RCPT": "250 OK",
    "RSET": "250 OK",
    "NOOP": "250 OK",
}


class MailSink:
    """The mails that arrived, oldest first, and the port that takes them."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the mails of one connection (SMTP, RFC 5321: as much of it as a client needs that sends without TLS)."""
        answer = "220 demo"
        while answer:
            writer.write(f"{answer}\r\n".encode())
            await writer.drain()
            verb = (await reader.readline()).decode("ascii", "replace").strip()[:4].upper()
            if verb == "DATA":
                writer.write(b"354 End with a full stop\r\n")
                self.mails.append(await _read_mail(reader))
                answer = "250 OK"
            else:
                answer = ANSWERS.get(verb, "502 Not here") if verb not in ("QUIT", "") else ""
        writer.write(b"221 Bye\r\n")
        writer.close()


async def _read_mail(reader: asyncio.StreamReader) -> EmailMessage:
    lines: list[bytes] = []
    while (line := await reader.readline()) not in (b".\r\n", b""):
        lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
    return message_from_bytes(b"".join(lines), policy=default)


@asynccontextmanager
async def running_mail_sink() -> AsyncIterator[MailSink]:
    """A mail sink on a free port of this machine, while the block lasts."""
    sink = MailSink()
    server = await asyncio.start_server(sink.talk, "127.0.0.1", 0)
    sink.port = int(server.sockets[0].getsockname()[1])
    try:
        yield sink
    finally:
        server.close()
