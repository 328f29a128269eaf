"""What a sync costs, beside the floor (``bench.floor_sync``) measured in the same run.

``python -m bench.sync [--sizes 10000,100000] [--latencies 0,300] [--cases known,push] [--database mariadb]`` prints
tables and writes them to ``bench/results/``. Each case runs in a process of its own, Mailchimp's emulator in another.
Ratios are given on wall-clock and on CPU seconds, because other work may share the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table

from bench import results
from bench.load import latencies, percentile, post
from bench.measure import described
from bench.results import bars
from bench.surface import free_port, mariadb, running
from bench.sync_site import Mailchimp, Site, emulator, let_all_be_contacts, let_all_be_known, new_site

CASES = (
    "known",
    "new",
    "push",
    "full_again",
    "nothing_changed",
    "incremental",
    "reads",
    "webhook",
    "first_data",
    "no_new_data",
    "undo",
    "lag",
)
SLOW_CASES = ("known", "new", "push", "nothing_changed", "incremental")
"""What a slow Mailchimp makes a difference to."""

AFTER_A_FIRST_SYNC = ("nothing_changed", "incremental", "first_data", "no_new_data")
WITH_FLOOR = ("known", "new", "push", "full_again")
TITLES = {
    "known": "first sync, all known",
    "new": "first sync, all new",
    "push": "first push, with results",
    "full_again": "everything fetched again",
    "nothing_changed": "nothing changed",
    "incremental": "100 changes",
    "first_data": "first data of everybody, with results",
    "no_new_data": "with data, nothing changed",
    "undo": "a first sync taken back",
    "reads": "questions",
    "webhook": "a webhook",
    "lag": "Contact.get while a full sync runs",
}
Row = dict[str, Any]


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000", help="members, comma separated")
    parser.add_argument("--latencies", default="0,300", help="milliseconds before each answer of Mailchimp")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument(
        "--database",
        choices=("sqlite", "mariadb"),
        default="sqlite",
        help="mariadb: first syncs, calls during one, and the runs right after one",
    )
    given = parser.parse_args()
    wanted = given.cases.split(",")
    console = Console(width=150)
    about = described()
    rows: list[Row] = []
    for latency in map(int, given.latencies.split(",")):
        for size in map(int, given.sizes.split(",")):
            cases = [case for case in wanted if latency == 0 or case in SLOW_CASES]
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                look = measure if given.database == "sqlite" else measure_mariadb
                for row in look(Path(folder), size, latency, cases):
                    rows.append(row)
                    console.print(f"[dim]{json.dumps(row)}[/dim]", soft_wrap=True)
    for table in tables(rows):
        console.print(table)
    results.save_rows(f"sync-{given.database}", about, rows, ("case", "members", "latency_ms"))
    if ratios := of_floor(rows):
        machine = f"{about['processor']}, {about['cpus']} cores"
        results.add_to_history(
            {"machine": machine, "commit": about["commit"], "database": given.database, "of_floor": ratios}
        )


def of_floor(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Ours in multiples of the floor, by case and members: wall clock and CPU."""
    return {
        f"{row['case']} {row['members']}": [round(row["ours"][one] / row["floor"][one], 2) for one in ("wall", "cpu")]
        for row in rows
        if row["latency_ms"] == 0 and "floor" in row
    }


def measure(folder: Path, size: int, latency: int, cases: Sequence[str]) -> Iterator[Row]:
    """Measure each case on an audience of *size*."""
    named = {"members": size, "latency_ms": latency}
    if any(case != "push" for case in cases):
        with emulator(size, latency) as mailchimp:
            for row in _with_members(folder, mailchimp, cases):
                yield named | row
    if "push" in cases:
        with emulator(0, latency) as mailchimp:
            site = _filled(folder, mailchimp, "contacts", size)
            with emulator(0, latency) as other:  # the floor fills an audience of its own
                floor = _run("floor_sync", "push", new_site(folder / "floor-push", other, site.database))
            yield named | {"case": "push", "floor": floor, "ours": _run("sync_cases", "push", site)}


def measure_mariadb(folder: Path, size: int, latency: int, cases: Sequence[str]) -> Iterator[Row]:
    """Measure first syncs of an audience of *size* on MariaDB, and the runs right after one, each on a new database."""
    named = {"members": size, "latency_ms": latency}
    with emulator(size, latency) as mailchimp:
        if "undo" in cases:
            with mariadb() as url:
                undone = _run("sync_cases", "undo", _on_mariadb(folder / "undone", mailchimp, url, "undo"))
            yield named | {"case": "undo", "ours": undone}
        if "lag" in cases:
            with mariadb() as url:
                site = _on_mariadb(folder / "lag", mailchimp, url, "known", poll_seconds=5)
                yield named | {"case": "lag"} | _lag(site)
        for case in [case for case in ("known", "new") if case in cases]:
            with mariadb() as url:
                floor = _run("floor_sync", case, _on_mariadb(folder / f"floor-{case}", mailchimp, url, case))
            with mariadb() as url:
                site = _on_mariadb(folder / case, mailchimp, url, case)
                yield named | {"case": case, "floor": floor, "ours": _run("sync_cases", case, site)}
                for after in AFTER_A_FIRST_SYNC if case == "new" else ():
                    if after in cases:
                        yield named | {"case": after, "ours": _run("sync_cases", after, site)}


def _on_mariadb(folder: Path, mailchimp: Mailchimp, url: str, case: str, poll_seconds: float = 0.05) -> Site:
    site = new_site(folder, mailchimp, url=url, poll_seconds=poll_seconds)
    if case == "known":
        let_all_be_known(site)
    return site


def _with_members(folder: Path, mailchimp: Mailchimp, cases: Sequence[str]) -> Iterator[Row]:
    if "new" in cases:
        yield _beside_floor(folder, "new", _filled(folder, mailchimp, "nobody", 0))
    if "undo" in cases:
        yield {"case": "undo", "ours": _run("sync_cases", "undo", _filled(folder, mailchimp, "undone", 0))}
    if not set(cases) - {"new", "undo", "push"}:
        return
    before = _filled(folder, mailchimp, "known", None)
    if "lag" in cases:
        yield {"case": "lag"} | _lag(new_site(folder / "lag", mailchimp, before.database, poll_seconds=5))
    after = new_site(folder / "after", mailchimp, before.database)
    if "known" in cases:
        yield _beside_floor(folder, "known", before, after)
    else:
        _run("sync_cases", "known", after)
    if "full_again" in cases:
        yield _beside_floor(folder, "full_again", after, after)
    for case in ("nothing_changed", "incremental", "reads", "webhook", "first_data", "no_new_data"):
        if case in cases:
            yield {"case": case, "ours": _run("sync_cases", case, after)}


def _filled(folder: Path, mailchimp: Mailchimp, who: str, count: int | None) -> Site:
    site = new_site(folder / who, mailchimp)
    if count is None:
        let_all_be_known(site)
    elif count:
        let_all_be_contacts(site, count)
    return site


def _beside_floor(folder: Path, case: str, before: Site, ours: Site | None = None) -> Row:
    """Ours and the floor, each on its own copy of the same database; the floor first."""
    floor = new_site(folder / f"floor-{case}", before.mailchimp, before.database)
    found: Row = {"case": case, "floor": _run("floor_sync", case, floor)}
    found["ours"] = _run("sync_cases", case, ours or before)
    return found


def _run(module: str, case: str, site: Site) -> Row:
    command = [sys.executable, "-m", f"bench.{module}", case, site.as_case()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  a command of our own
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-3000:]}")
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def _lag(site: Site) -> Row:
    """Percentiles of Contact.get, one at a time, alone and while the first sync of the audience runs.

    A bare handler in a process of its own is asked at the same times: what the machine, which runs the emulator too,
    adds to any answer.
    """
    form = urlencode({"entity": "Contact", "action": "get", "json": json.dumps({"id": 1})}).encode()
    serve = [sys.executable, "-m", "civiapi", "serve", "--config", str(site.settings)]
    bare_port = free_port()
    bare = [sys.executable, "-m", "bench.floor", str(bare_port), ":memory:"]
    with running(serve, site.port), running(bare, bare_port, feed=b'{"Contact.get": {}}', quiet=True):
        asked = [
            partial(
                latencies, ("127.0.0.1", port), post(path, form, "application/x-www-form-urlencoded", _headers(site))
            )
            for port, path in ((site.port, "/civicrm/ajax/rest"), (bare_port, "/bare/Contact.get"))
        ]
        with ThreadPoolExecutor() as pool:
            idle = [ask(_for_seconds(5)) for ask in asked]
            sync = pool.submit(_sync, site)
            busy = [one.result() for one in [pool.submit(ask, lambda: not sync.done()) for ask in asked]]
            sync.result()
    ours, floor = (_percentiles(*both) for both in zip(idle, busy, strict=True))
    return {"lag": ours, "bare": floor, "asked": len(busy[0])}


def _percentiles(idle: list[float], busy: list[float]) -> dict[str, dict[str, float]]:
    return {
        f"p{share}": {"idle_ms": percentile(idle, share), "busy_ms": percentile(busy, share)} for share in (50, 90, 99)
    }


def _for_seconds(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until


def _sync(site: Site) -> None:
    params = json.dumps({"group_id": 1, "max_time": 0, "since": "ever"})
    form = urlencode({"entity": "Mailchimpsync", "action": "fetchandreconcile", "json": params}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{site.port}/civicrm/ajax/rest", form, _headers(site))
    with urllib.request.urlopen(asked) as response:  # noqa: S310
        answer = json.load(response)
    if answer["is_error"]:
        raise SystemExit(f"the sync failed: {answer}")


def _headers(site: Site) -> dict[str, str]:
    return {"X-Civi-Auth": f"Bearer {site.api_key}", "X-Requested-With": "XMLHttpRequest"}


# ── What is shown ───────────────────────────────────────────────────────────────────────────────────────────────────


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """What was found, as tables."""
    yield _table_of_work([row for row in rows if "cpu" in row.get("ours", {})])
    yield _table_of_questions([row for row in rows if "reads" in row.get("ours", {})])
    lags = Table("Contact.get while a full sync runs", "members", "idle ms", "busy ms", "ratio", "of a bare handler")
    for row in rows:
        for name, pair in row.get("lag", {}).items():
            ratios = [f"{one['busy_ms'] / one['idle_ms']:.1f}" for one in (pair, row["bare"][name])]
            lags.add_row(name, f"{row['members']:,}", str(pair["idle_ms"]), str(pair["busy_ms"]), *ratios)
    yield lags
    aims = Table("aim", "measured", "bar", "met")
    for bar in bars(rows):
        at = "at least" if bar.at_least else "at most"
        aims.add_row(bar.what, f"{bar.measured:.2f}", f"{at} {bar.bar:g}", "yes" if bar.is_met else "no")
    yield aims


def _table_of_work(rows: Sequence[Row]) -> Table:
    shown = ("case", "members", "page ms", "wall s", "CPU s", "a second", "floor wall", "floor CPU", "× wall", "× CPU")
    table = Table(*shown, "own ms", "peak MB")
    for row in rows:
        ours, floor = row["ours"], row.get("floor")
        shares: list[str] = ["", "", "", ""]
        if floor:
            shares = [f"{floor[name]:.2f}" for name in ("wall", "cpu")]
            shares += [f"{ours[name] / floor[name]:.2f}" for name in ("wall", "cpu")]
        work = (f"{ours['wall']:.2f}", f"{ours['cpu']:.2f}", f"{ours['rows'] / ours['wall']:,.0f}")
        own = f"{ours['own_ms']:.0f}" if "own_ms" in ours else ""
        title, size, latency = TITLES[row["case"]], f"{row['members']:,}", str(row["latency_ms"])
        table.add_row(title, size, latency, *work, *shares, own, str(ours["peak_mb"]))
    return table


def _table_of_questions(rows: Sequence[Row]) -> Table:
    table = Table("question", "members", "middle ms", "worst ms", "peak MB")
    for row in rows:
        for name, one in row["ours"]["reads"].items():
            figures = (str(one["middle_ms"]), str(one["worst_ms"]), str(row["ours"]["peak_mb"]))
            table.add_row(name, f"{row['members']:,}", *figures)
    return table


if __name__ == "__main__":
    main()
