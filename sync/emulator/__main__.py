"""``python -m sync.emulator``: run an emulator until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path

from sync.emulator.data.exports import load
from sync.emulator.data.generate import generate
from sync.emulator.model.state import DEFAULT_KEY
from sync.emulator.server.running import serve
from sync.emulator.world import World

MAX_BAD_ROWS_SHOWN = 20


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    made = argparse.ArgumentParser(prog="python -m sync.emulator", description=__doc__)
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=8011)
    made.add_argument("--load", type=Path, action="append", default=[], help="export folder or CSV, snapshot, seed")
    made.add_argument("--members", type=int, default=0, help="generate so many members")
    made.add_argument("--seed", type=int, default=0, help="for everything random")
    made.add_argument("--key", default=DEFAULT_KEY, help="API key of the first account, ending in its data centre")
    made.add_argument("--latency", type=float, default=0.0, metavar="MS", help="milliseconds before each answer")
    made.add_argument("--control", action="store_true", help="open /_emulator/")
    return made


def prepare(*, seed: int = 0, key: str = DEFAULT_KEY, paths: list[Path] | None = None, members: int = 0) -> World:
    """Return a world loaded from *paths*, with generated members; rows left out are listed on stderr.

    Raises FileNotFoundError, and ValueError for a file that is no export, snapshot or seed.
    """
    world = World(seed=seed, key=key)
    for path in paths or []:
        loaded = load(world, path)
        print(f"{path}: {loaded.members} members, {len(loaded.bad)} rows left out", file=sys.stderr)
        for row in loaded.bad[:MAX_BAD_ROWS_SHOWN]:
            print(f"  {row}", file=sys.stderr)
    if not any(account.audiences for account in world.accounts.values()):
        world.add_audience()
    if members:
        generate(world.find_audience()[1], members, now=world.clock.seconds(), seed=seed)
    return world


def has_members(world: World) -> bool:
    """Whether any audience of any account has a member."""
    return any(len(one.members) for account in world.accounts.values() for one in account.audiences.values())


def main(arguments: list[str] | None = None) -> int:
    """Run an emulator; returns the exit status."""
    given = parser().parse_args(arguments)
    try:
        world = prepare(seed=given.seed, key=given.key, paths=given.load, members=given.members)
        world.configure({"latency_ms": given.latency})
    except (OSError, ValueError) as error:
        print(f"The emulator cannot start: {error}", file=sys.stderr)
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(world, host=given.host, port=given.port, control=given.control))
    return 0


if __name__ == "__main__":
    sys.exit(main())
