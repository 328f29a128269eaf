"""What a call of the API's surface costs in processor time, in turns with the bare handler in the same process.

``python -m bench.cpu [--database mariadb] [--calls Contact.get,…] [--profile]`` prints microseconds a call, of all
threads of the server, and the ratio to a bare aiohttp handler that returns the same bytes. Other programs on the
machine disturb this far less than requests a second (``bench.surface``). *profile* prints where the time goes instead.
"""

import argparse
import asyncio
import cProfile
import pstats
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median

from aiohttp import web

from bench import floor
from bench.load import post
from bench.surface import CALLS, fill, free_port, mariadb, request_for, settings_file
from civiapi.app import open_app
from civiapi.runtime.loop_priority import priority_loop
from civiapi.server.lifecycle import serving
from civiapi.server.process import tune_process
from civiapi.settings import Settings, load_settings

WAYS = ("REST", "JSON-RPC")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "mariadb"), default="sqlite")
    parser.add_argument("--calls", default=",".join(CALLS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--requests", type=int, default=1500, help="in one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--profile", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = stack.enter_context(mariadb()) if wanted.database == "mariadb" else ""
        database = url or f"sqlite:///{Path(folder) / 'bench.sqlite'}"
        config, _ = settings_file(Path(folder), database)
        with asyncio.Runner(loop_factory=priority_loop) as runner:
            runner.run(measure(load_settings(config), wanted, url or str(Path(folder) / "bench.sqlite"), config))


async def measure(settings: Settings, wanted: argparse.Namespace, database: str, config: Path) -> None:
    """Serve ours and the bare handler in this process, and let another send requests to each in turn."""
    answers = {name: floor.as_bytes(value) for name, value in (await fill(config)).items()}
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(open_app(settings, for_callers=True))
        tune_process()
        await stack.enter_async_context(serving(app))
        runner = web.AppRunner(floor.make(database, answers), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        bare_port = free_port()
        await web.TCPSite(runner, "127.0.0.1", bare_port).start()
        for name in wanted.calls.split(","):
            for way in wanted.ways.split(","):
                ours = settings.server.port, request_for(way, *CALLS[name])
                body = ours[1].partition(b"\r\n\r\n")[2]
                bare = bare_port, post(f"/bare/{name}", body, "application/x-www-form-urlencoded", {})
                await _turn(*ours, 200, wanted.at_once)
                if wanted.profile:
                    await _profile(*ours, wanted.requests, wanted.at_once)
                    continue
                taken = []
                for _ in range(wanted.turns):
                    taken.append([await _turn(*one, wanted.requests, wanted.at_once) for one in (ours, bare)])
                mine, floors = (min(column) for column in zip(*taken, strict=True))
                ratio = median(one[1] / one[0] for one in taken)
                print(f"{name:24}{way:10}{mine:8.0f} µs  bare {floors:6.0f} µs  of bare {ratio:.3f}", flush=True)


async def _turn(port: int, request: bytes, count: int, at_once: int) -> float:
    """Microseconds of processor time of this process for each of *count* requests that another one sends."""
    command = [sys.executable, "-m", "bench.load", str(port), str(count), str(at_once)]
    sender = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    began = time.process_time()
    await sender.communicate(request)
    if sender.returncode:
        raise SystemExit("not all answers were HTTP 200")
    return (time.process_time() - began) / count * 1e6


async def _profile(port: int, request: bytes, count: int, at_once: int) -> None:
    profile = cProfile.Profile(time.thread_time)  # what others take of the processor is not in it
    profile.enable()
    await _turn(port, request, count, at_once)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(70)


if __name__ == "__main__":
    main()
