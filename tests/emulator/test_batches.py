"""Batches of the emulator: statuses, limits, results, faults."""

from __future__ import annotations

import io
from typing import Any

import pytest

from sync.emulator.data.generate import Shares, generate
from sync.emulator.protocol.exchange import Request, Response
from sync.emulator.world import World
from sync.mailchimp.archive import read_archive
from tests.emulator.mailchimp import ADA, LIST, Mailchimp, operations, submit


def state(mailchimp: Mailchimp, batch_id: str) -> dict[str, Any]:
    body: dict[str, Any] = mailchimp.ask("GET", f"/batches/{batch_id}").body
    return body


def test_a_batch_is_pending_with_no_counts_and_then_finished_with_all(mailchimp: Mailchimp) -> None:
    answer = mailchimp.ask("POST", "/batches", {"operations": operations(ADA, "no address")}).body
    assert [answer[k] for k in ("status", "total_operations", "completed_at", "response_body_url")] == [
        "pending",
        0,
        "",
        "",
    ]
    mailchimp.world.run_batches()
    done = state(mailchimp, answer["id"])
    names = ("status", "total_operations", "finished_operations", "errored_operations")
    assert [done[name] for name in names] == ["finished", 2, 2, 1]
    assert mailchimp.members() == [ADA]


def test_a_batchs_states_take_the_time_that_options_say() -> None:
    mailchimp = Mailchimp(batch_start_delay=10, batch_ops_per_second=2, batch_finalize_delay=30)
    batch = submit(mailchimp, operations("a@example.org", "b@example.org", "c@example.org", "d@example.org"))
    seen = []
    for _ in range(60):
        while mailchimp.world.run_batches(ignore_delays=False):
            pass
        seen.append((state(mailchimp, batch)["status"], state(mailchimp, batch)["finished_operations"]))
        mailchimp.later(1)
    assert [status for status, _ in pairwise_distinct([s for s, _ in seen])] == [
        "preprocessing",
        "started",
        "finalizing",
        "finished",
    ]
    assert sorted({done for _, done in seen}) == [0, 2, 4]


def pairwise_distinct(words: list[str]) -> list[tuple[str, int]]:
    return [(word, i) for i, word in enumerate(words) if i == 0 or words[i - 1] != word]


def test_one_batch_runs_at_a_time() -> None:
    mailchimp = Mailchimp(batch_ops_per_second=1)
    first, second = submit(mailchimp, operations(ADA, "b@example.org")), submit(mailchimp, operations("c@example.org"))
    mailchimp.world.run_batches(ignore_delays=False)
    mailchimp.later(1)
    mailchimp.world.run_batches(ignore_delays=False)
    assert (state(mailchimp, first)["status"], state(mailchimp, second)["status"]) == ("started", "pending")


def test_a_stuck_batch_stays_finalizing_until_let_go() -> None:
    mailchimp = Mailchimp(batch_stuck_finalizing=True)
    batch = submit(mailchimp, operations(ADA))
    mailchimp.world.run_batches()
    assert (state(mailchimp, batch)["status"], state(mailchimp, batch)["finished_operations"]) == ("finalizing", 1)
    mailchimp.world.configure({"batch_stuck_finalizing": False})
    mailchimp.world.run_batches()
    assert state(mailchimp, batch)["status"] == "finished"


def test_batches_run_in_an_order_nobody_promised_and_the_same_seed_gives_the_same() -> None:
    emails = [f"p{n}@example.org" for n in range(30)]

    def joined() -> list[str]:
        mailchimp = Mailchimp()
        submit(mailchimp, operations(*emails))
        mailchimp.world.run_batches()
        return mailchimp.members()

    assert joined() == joined() != emails


def test_a_deleted_batch_keeps_its_work_and_loses_its_results() -> None:
    mailchimp = Mailchimp(batch_ops_per_second=1)
    batch = submit(mailchimp, operations(ADA, "b@example.org"))
    mailchimp.world.run_batches(ignore_delays=False)
    mailchimp.later(1)
    mailchimp.world.run_batches(ignore_delays=False)
    assert mailchimp.ask("DELETE", f"/batches/{batch}").status == 204
    assert mailchimp.ask("GET", f"/batches/{batch}").status == 404
    mailchimp.world.run_batches()
    assert len(mailchimp.audience.members) == 1


def test_there_is_a_limit_to_batches_and_to_operations() -> None:
    mailchimp = Mailchimp(max_pending_batches=1, max_batch_ops=2)
    submit(mailchimp, operations(ADA))
    assert mailchimp.ask("POST", "/batches", {"operations": operations(ADA)}).status == 429
    assert mailchimp.ask("POST", "/batches", {"operations": operations(ADA) * 3}).status == 400
    assert mailchimp.ask("POST", "/batches", {"operations": {}}).status == 400


def test_skip_merge_validation_counts_in_params_and_in_the_path(mailchimp: Mailchimp) -> None:
    mailchimp.audience.merge_fields[1].required = True
    plain, in_path, in_params = operations("a@example.org", "b@example.org", "c@example.org")
    in_path["path"] += "?skip_merge_validation=true"
    in_params["params"] = {"skip_merge_validation": True}
    submit(mailchimp, [plain, in_path, in_params])
    mailchimp.world.run_batches()
    assert set(mailchimp.members()) == {"b@example.org", "c@example.org"}


def test_a_get_in_a_batch_counts_each_page(mailchimp: Mailchimp) -> None:
    generate(mailchimp.audience, 25, now=mailchimp.world.clock.seconds(), shares=Shares(0, 0, 0, 0, 0))
    batch = submit(mailchimp, [{"method": "GET", "path": f"/lists/{LIST}/members", "operation_id": "all"}])
    mailchimp.world.run_batches()
    assert state(mailchimp, batch)["total_operations"] == 3


def test_results_links_last_ten_minutes_and_results_seven_days(mailchimp: Mailchimp) -> None:
    batch = submit(mailchimp, operations(ADA))
    mailchimp.world.run_batches()
    url = state(mailchimp, batch)["response_body_url"]
    assert url != state(mailchimp, batch)["response_body_url"]
    name, token = url.rpartition("/")[2].split("?token=")
    assert mailchimp.world.download(name, token)[0] == 200
    assert mailchimp.world.download(name, token[:-1] + "x")[0] == 403
    mailchimp.later(601)
    assert mailchimp.world.download(name, token)[0] == 403
    fresh = state(mailchimp, batch)["response_body_url"].split("?token=")[1]
    assert mailchimp.world.download(name, fresh)[0] == 200
    mailchimp.later(7 * 24 * 3600)
    assert mailchimp.ask("GET", f"/batches/{batch}").status == 404
    assert mailchimp.ask("GET", "/batches").body["total_items"] == 0


BATCH_FAULTS = [
    ("429_json", 429, 1),
    ("500", 500, 1),
    ("503_block", 503, 1),
    ("reset_after", None, 0),
    ("reset_before", None, 0),
]


@pytest.mark.parametrize(("action", "status", "rows"), BATCH_FAULTS)
def test_faults_strike_inside_batches(mailchimp: Mailchimp, action: str, status: int | None, rows: int) -> None:
    mailchimp.world.configure(
        {"fault_rules": [{"action": action, "operation_id": ADA}], "batch_stuck_finalizing": True}
    )
    batch = submit(mailchimp, operations(ADA))
    mailchimp.world.run_batches()
    results = mailchimp.world.default_account.batches[batch].results
    assert [row["status_code"] for row in results] == [status] * rows
    assert mailchimp.members() == ([ADA] if action == "reset_after" else [])


def test_an_operation_that_fails_unexpectedly_is_a_500_and_keeps_no_other_from_its_result(
    mailchimp: Mailchimp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def execute(request: Request, operation_id: str) -> Response | None:
        if operation_id == ADA:
            raise TypeError("a mistake of ours")
        return World.execute(mailchimp.world, request, operation_id)

    monkeypatch.setattr(mailchimp.world, "execute", execute)
    batch = submit(mailchimp, operations(ADA, "bob@example.org"))
    mailchimp.world.run_batches()
    done = state(mailchimp, batch)
    assert (done["status"], done["finished_operations"], done["errored_operations"]) == ("finished", 2, 1)
    results = read_archive(io.BytesIO(mailchimp.world.default_account.batches[batch].archive))
    assert {one.operation_id: one.status_code for one in results} == {ADA: 500, "bob@example.org": 200}
    assert "a mistake of ours" in caplog.text
