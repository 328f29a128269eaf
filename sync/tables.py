"""The extension's tables (cache, update, batch, status) and our own beside them (``civiapi_…``). Only shapes.

The extension's columns keep their names and meaning, so that a database can pass between the extension and us in
both directions. Times in its tables are site times (text in the site's zone); times in ours are UTC, as whole
seconds or milliseconds since 1970 where the name says so.
"""

from sqlalchemy import Column, ForeignKey, Index, Table, UniqueConstraint, text

from civiapi.store.dialect import SiteTime, big_number, blob, flag, long_text, row_id, text_column
from civiapi.store.tables import METADATA, NUMBERED, PLAIN

batch = Table(
    "civicrm_mailchimpsync_batch",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("mailchimp_list_id", text_column(32)),
    Column("mailchimp_batch_id", text_column(32)),
    Column("status", text_column(32)),
    Column("submitted_at", SiteTime()),
    Column("completed_at", SiteTime()),
    Column("finished_operations", row_id(), server_default=text("0")),
    Column("errored_operations", row_id(), server_default=text("0")),
    Column("total_operations", row_id(), server_default=text("0")),
    Column("response_processed", row_id(), server_default=text("0")),
    Index("civiapi_batch_list_status", "mailchimp_list_id", "response_processed"),
    **NUMBERED,
)

cache = Table(
    "civicrm_mailchimpsync_cache",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("mailchimp_list_id", text_column(32), nullable=False),
    Column("mailchimp_member_id", text_column(32)),
    Column("mailchimp_email", text_column(255)),
    Column("mailchimp_status", text_column(20)),
    Column("mailchimp_updated", SiteTime()),
    Column("mailchimp_data", blob()),
    Column("civicrm_data", blob()),
    Column("civicrm_groups", long_text()),
    Column("civicrm_contact_id", row_id(), ForeignKey("civicrm_contact.id", ondelete="CASCADE")),
    Column("sync_status", text_column(10), server_default="todo"),
    Index("index_list_id_sync_status", "mailchimp_list_id", "sync_status"),
    Index("civiapi_cache_list", "mailchimp_list_id"),  # an audience in order of ids: any other index of it has to sort
    Index("FK_civicrm_mailchimpsync_cache_civicrm_contact_id", "civicrm_contact_id"),
    Index("civiapi_cache_list_member", "mailchimp_list_id", "mailchimp_member_id"),
    Index("civiapi_cache_list_email", "mailchimp_list_id", "mailchimp_email"),
    Index("civiapi_cache_list_contact", "mailchimp_list_id", "civicrm_contact_id"),
    Index("civiapi_cache_list_status", "mailchimp_list_id", "mailchimp_status"),
    **NUMBERED,
)

update = Table(
    "civicrm_mailchimpsync_update",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("mailchimpsync_cache_id", row_id(), ForeignKey("civicrm_mailchimpsync_cache.id", ondelete="CASCADE")),
    Column("mailchimpsync_batch_id", row_id(), ForeignKey("civicrm_mailchimpsync_batch.id", ondelete="CASCADE")),
    Column("data", long_text(), nullable=False),
    Column("completed", flag(), nullable=False, server_default=text("0")),
    Column("error_response", long_text()),
    Index("FK_civicrm_mailchimpsync_update_mailchimpsync_cache_id", "mailchimpsync_cache_id"),
    Index("FK_civicrm_mailchimpsync_update_mailchimpsync_batch_id", "mailchimpsync_batch_id"),
    Index("civiapi_update_completed", "completed", "mailchimpsync_batch_id"),
    **NUMBERED,
)

update_detail = Table(
    "civiapi_update",
    METADATA,
    Column(
        "update_id",
        row_id(),
        ForeignKey("civicrm_mailchimpsync_update.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("kind", text_column(8), nullable=False, server_default="member"),  # member, email, archive, tags
    Column("method", text_column(8), nullable=False, server_default="PUT"),
    Column("path_tail", text_column(255), nullable=False, server_default=""),  # after /lists/L/
    Column("cause_s", big_number()),  # UTC seconds of the word in CiviCRM that made us owe this
    Column("tries", row_id(), nullable=False, server_default=text("0")),  # how often it was sent and has to be again
    **PLAIN,
)

status = Table(
    "civicrm_mailchimpsync_status",
    METADATA,
    Column("list_id", text_column(32), primary_key=True),
    Column("data", blob(), nullable=False),
    **PLAIN,
)

claim = Table(
    "civiapi_claim",
    METADATA,
    Column("name", text_column(64), primary_key=True),  # audience id, or "scheduler"
    Column("holder", text_column(64), nullable=False),
    Column("fence", big_number(), nullable=False),  # grows by one with every claim; a holder checks it as it commits
    Column("expires_ms", big_number(), nullable=False),  # UTC milliseconds since 1970
    **PLAIN,
)

run = Table(
    "civiapi_run",
    METADATA,
    Column("list_id", text_column(32), primary_key=True),
    Column("history_id", big_number(), nullable=False, server_default=text("0")),  # subscription history read so far
    Column("cursor", long_text()),  # JSON: where inside the present stage to go on
    Column("state", long_text()),  # JSON: what the present run was asked (since, with_data) and Mailchimp's clock
    **PLAIN,
)

run_log = Table(
    "civiapi_run_log",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("list_id", text_column(32), nullable=False),
    Column("started_s", big_number(), nullable=False),  # UTC seconds since 1970
    Column("ended_s", big_number()),
    Column("outcome", text_column(32)),  # finished, paused, stopped, failed, aborted
    Column("counts", long_text()),  # JSON: what each stage did
    Column("error", long_text()),
    Index("civiapi_run_log_list", "list_id", "started_s"),
    **NUMBERED,
)

daily = Table(
    "civiapi_daily",
    METADATA,
    Column("list_id", text_column(32), primary_key=True),
    Column("day", text_column(10), primary_key=True),  # YYYY-MM-DD in the site's time zone
    Column("mailchimp", row_id()),  # how many were at each end when the day's last run ended
    Column("civicrm", row_id()),
    Column("counted", flag(), nullable=False, server_default=text("0")),  # 0: something changed since
    Column("joined_civicrm", row_id(), nullable=False, server_default=text("0")),
    Column("left_civicrm", row_id(), nullable=False, server_default=text("0")),
    Column("joined_mailchimp", row_id(), nullable=False, server_default=text("0")),
    Column("left_mailchimp", row_id(), nullable=False, server_default=text("0")),
    **PLAIN,
)

balance = Table(
    "civiapi_balance",  # how a large audience and its group compared when they were last counted
    METADATA,
    Column("list_id", text_column(32), primary_key=True),
    Column("group_id", row_id(), nullable=False),
    Column("counts", long_text(), nullable=False),  # JSON: sync/stats.py, Balance
    Column("counted_ms", big_number(), nullable=False),  # UTC milliseconds since 1970, when counting began
    Column("took_ms", big_number(), nullable=False),
    Column("fingerprint", text_column(64), nullable=False),  # of the database then; empty: somebody was at work
    **PLAIN,
)

plan = Table(
    "civiapi_plan",  # what a sync would do, worked out and kept for a while
    METADATA,
    Column("id", text_column(32), primary_key=True),
    Column("list_id", text_column(32), nullable=False),
    Column("made_s", big_number(), nullable=False),  # UTC seconds since 1970
    Column("counts", long_text(), nullable=False),  # JSON: kind → people
    **PLAIN,
)

plan_person = Table(
    "civiapi_plan_person",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("plan_id", text_column(32), nullable=False),
    Column("kind", text_column(16), nullable=False),
    Column("contact_id", row_id()),
    Column("name", text_column(255)),
    Column("email", text_column(255)),
    Column("mailchimp_status", text_column(20)),
    Column("civicrm_status", text_column(20)),
    Column("reason", long_text()),
    Index("civiapi_plan_person_plan", "plan_id", "kind"),
    **NUMBERED,
)

member = Table(
    "civiapi_member",  # what the cache has no column for, one row beside each member's; a full fetch rewrites it
    METADATA,
    Column(
        "cache_id",
        row_id(),
        ForeignKey("civicrm_mailchimpsync_cache.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("contact_id", text_column(32)),  # Mailchimp's own, which stays when an address (and so the id) changes
    Column("seen", big_number(), nullable=False, server_default=text("0")),  # the last full fetch that met this member
    Index("civiapi_member_contact", "contact_id"),
    **PLAIN,
)

webhook_event = Table(
    "civiapi_webhook_event",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("kind", text_column(16), nullable=False),  # audience or batch
    Column("list_id", text_column(32)),
    Column("type", text_column(32)),
    Column("address", text_column(255)),  # whom it is about; the new one where somebody changed it
    Column("fingerprint", text_column(64), nullable=False),  # the same event delivered twice has the same one
    Column("body", long_text(), nullable=False),  # JSON of the fields, the secret left out
    Column("received_s", big_number(), nullable=False),
    Column("status", text_column(12), nullable=False, server_default="new"),  # new, done, ignored, failed
    Column("tries", row_id(), nullable=False, server_default=text("0")),
    Column("next_try_s", big_number(), nullable=False, server_default=text("0")),  # 0: it is not tried again
    Column("error", long_text()),
    UniqueConstraint("fingerprint", name="civiapi_webhook_event_fingerprint"),
    Index("civiapi_webhook_event_due", "status", "next_try_s"),
    **NUMBERED,
)

hook_health = Table(
    "civiapi_hook_health",  # what Mailchimp last said of our webhooks; NULL: it was not asked
    METADATA,
    Column("list_id", text_column(32), primary_key=True),
    Column("member_hook", flag()),
    Column("batch_hook", flag()),  # the account's, noted for each of its audiences
    Column("asked_s", big_number(), nullable=False, server_default=text("0")),  # UTC seconds since 1970
    **PLAIN,
)

turn = Table(
    "civiapi_turn",  # audiences that a sync of all still has to visit: whichever worker is free takes one
    METADATA,
    Column("list_id", text_column(32), primary_key=True),
    Column("state", text_column(8), nullable=False),  # open, taken, done
    Column("until_ms", big_number(), nullable=False),  # UTC milliseconds since 1970; nobody begins it later
    Column("request", long_text(), nullable=False),  # JSON: what the run is asked
    Column("taker", text_column(64), nullable=False, server_default=""),
    Column("taken_ms", big_number(), nullable=False, server_default=text("0")),
    Column("error", long_text()),
    **PLAIN,
)
