"""The extension's tables (cache, update, batch, status) and our own beside them (``civiapi_…``). Only shapes.

The extension's columns keep their names and meaning, so that a database can pass between the extension and us in
both directions. Times in its tables are site times (text in the site's zone); times in ours are UTC, as whole
seconds or milliseconds since 1970 where the name says so.
"""

from sqlalchemy import Column, ForeignKey, Index, Table, UniqueConstraint, text

from civiapi.store.databases.column_types import (
    SiteTime,
    big_number,
    blob,
    code_column,
    flag,
    long_text,
    row_id,
    signed,
    text_column,
)
from civiapi.store.schema.tables import METADATA, NUMBERED, PLAIN
from sync.model import SyncStatus


def _key_of(name: str, table: str) -> Column[int]:
    """A column of the primary key that refers to a row of *table*, with which its own row is deleted."""
    return Column(name, row_id(), ForeignKey(f"{table}.id", ondelete="CASCADE"), primary_key=True, autoincrement=False)


batch = Table(
    "civicrm_mailchimpsync_batch",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("mailchimp_list_id", code_column(32)),
    Column("mailchimp_batch_id", code_column(32)),
    Column("status", code_column(32)),
    Column("submitted_at", SiteTime()),
    Column("completed_at", SiteTime()),
    Column("finished_operations", signed(), server_default=text("0")),
    Column("errored_operations", signed(), server_default=text("0")),
    Column("total_operations", signed(), server_default=text("0")),
    Column("response_processed", signed(), server_default=text("0")),
    Index("civiapi_batch_list_status", "mailchimp_list_id", "response_processed"),
    **NUMBERED,
)

cache = Table(
    "civicrm_mailchimpsync_cache",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("mailchimp_list_id", code_column(32), nullable=False),
    Column("mailchimp_member_id", code_column(32)),
    Column("mailchimp_email", text_column(255)),
    Column("mailchimp_status", code_column(20)),
    Column("mailchimp_updated", SiteTime()),
    Column("mailchimp_data", blob()),
    Column("civicrm_data", blob()),
    Column("civicrm_groups", long_text()),
    Column("civicrm_contact_id", row_id(), ForeignKey("civicrm_contact.id", ondelete="CASCADE")),
    Column("sync_status", code_column(10), server_default=SyncStatus.TODO),
    Index("index_list_id_sync_status", "mailchimp_list_id", "sync_status"),
    Index("civiapi_cache_list", "mailchimp_list_id"),  # an audience in order of ids: any other index of it has to sort
    Index("FK_civicrm_mailchimpsync_cache_civicrm_contact_id", "civicrm_contact_id"),
    Index("civiapi_cache_list_member", "mailchimp_list_id", "mailchimp_member_id"),
    Index("civiapi_cache_list_email", "mailchimp_list_id", "mailchimp_email"),
    Index("civiapi_cache_list_person", "mailchimp_list_id", "civicrm_contact_id", "mailchimp_status"),
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
    _key_of("update_id", "civicrm_mailchimpsync_update"),
    Column("kind", code_column(8), nullable=False, server_default="member"),  # member, email, archive, names, tags
    Column("method", code_column(8), nullable=False, server_default="PUT"),
    Column("path_tail", code_column(255), nullable=False, server_default=""),  # after /lists/L/
    Column("cause_s", big_number()),  # UTC seconds of the change in CiviCRM that queued this
    Column("tries", row_id(), nullable=False, server_default=text("0")),  # how often it was sent and has to be again
    Column("decided_s", big_number()),  # UTC seconds: of an undo, when it read the members; NULL: as the cause
    **PLAIN,
)

retry = Table(
    "civiapi_retry",  # what Mailchimp refused for now, and when it is asked again
    METADATA,
    _key_of("cache_id", "civicrm_mailchimpsync_cache"),
    Column("kind", code_column(8), primary_key=True),  # a group of kinds that replace each other (model.KIND_GROUPS)
    Column("refusals", row_id(), nullable=False, server_default=text("0")),  # in a row, for the same cause
    Column("cause_s", big_number()),  # UTC seconds, as in civiapi_update
    Column("next_s", big_number(), nullable=False),  # UTC seconds since 1970
    Index("civiapi_retry_next", "next_s"),
    **PLAIN,
)

status = Table(
    "civicrm_mailchimpsync_status",
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("data", blob(), nullable=False),
    **PLAIN,
)

run = Table(
    "civiapi_run",
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("history_id", big_number(), nullable=False, server_default=text("0")),  # subscription history read so far
    Column("cursor", long_text()),  # JSON: where inside the present stage to go on
    Column("state", long_text()),  # JSON: what the present run was asked (since, with_data) and Mailchimp's clock
    **PLAIN,
)

own_rows = Table(
    "civiapi_own_rows",  # what a run wrote in tables of CiviCRM, so that the next one need not look at it again
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("kind", code_column(8), primary_key=True),  # contact or history
    Column("first_id", row_id(), primary_key=True, autoincrement=False),
    Column("last_id", row_id(), nullable=False),  # every id between them is of such a row
    Column("at", SiteTime(timestamp=True), nullable=False),  # when they were written; of history: the last of them
    **PLAIN,
)

run_log = Table(
    "civiapi_run_log",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("list_id", code_column(32), nullable=False),
    Column("started_s", big_number(), nullable=False),  # UTC seconds since 1970
    Column("ended_s", big_number()),
    Column("outcome", code_column(32)),  # finished, paused, stopped, failed, aborted
    Column("counts", long_text()),  # JSON: what each stage did
    Column("error", long_text()),
    Column("undoes", row_id()),  # the run that this one takes back; NULL: a sync
    Column("undone_by", row_id()),  # the run that has taken back all of this one that could be
    Column("log", long_text()),  # JSON: the lines of the audience's log that are of this run
    Column("contact_id", row_id()),  # who asked for it
    Column("author", text_column(64)),  # what the caller is called; NULL: not known
    Column("linked", long_text()),  # JSON: the linked groups when it began (`Audience.linked`); NULL: not known
    Index("civiapi_run_log_list", "list_id", "started_s"),
    Index("civiapi_run_log_started", "started_s"),
    **NUMBERED,
)

event = Table(
    "civiapi_event",  # what happened to a connection, where no other table records it (`sync/store/events.py`)
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("at_ms", big_number(), nullable=False),  # UTC milliseconds since 1970
    Column("list_id", code_column(32), nullable=False),  # empty: of no connection
    Column("kind", code_column(16), nullable=False),
    Column("contact_id", row_id()),  # who did it
    Column("author", text_column(64), nullable=False),  # what the caller is called
    Column("sentence", long_text(), nullable=False),
    Index("civiapi_event_list", "list_id", "at_ms"),
    Index("civiapi_event_at", "at_ms"),
    **NUMBERED,
)

config_seen = Table(
    "civiapi_config_seen",  # the configuration as last seen, without secrets, by the name of the setting
    METADATA,
    Column("name", code_column(64), primary_key=True),
    Column("facts", long_text(), nullable=False),  # JSON (`sync/connections/config_changes.py`)
    **PLAIN,
)

run_change = Table(
    "civiapi_run_change",  # what a run did to whom; without names and addresses, which are read where they are kept
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("run_id", row_id(), nullable=False),  # of civiapi_run_log
    Column("kind", code_column(24), nullable=False),  # sync/reconcile/categories.py, of an undo sync/undo/planning.py
    Column("cache_id", row_id()),
    Column("contact_id", row_id()),
    Column("group_id", row_id()),  # of a change of a group
    Column("history_id", row_id()),  # the history row written; of an update: the contact's latest one then
    Column("update_id", row_id()),  # of an update for Mailchimp
    Column("was", code_column(20)),  # the status before, in the group or at Mailchimp; NULL: in none
    Column("replaced", long_text()),  # JSON: what else an update replaces (interests, merge fields)
    Column("reason", long_text()),  # NULL: the member was subscribed and the contact never in the group
    Column("undone_by", row_id()),  # the run that took this back, or looked at it and left it
    Column("undo_update_id", row_id()),  # the update for Mailchimp that takes this back
    Index("civiapi_run_change_run", "run_id"),
    **NUMBERED,
)

hold = Table(
    "civiapi_hold",  # what an undo made differ on both sides: left alone until one side changes again
    METADATA,
    _key_of("cache_id", "civicrm_mailchimpsync_cache"),
    Column("field", code_column(64), primary_key=True),  # status, interest-ID, or a kind of data
    Column("run_id", row_id(), nullable=False),  # the undo
    Column("at_s", big_number(), nullable=False),  # UTC seconds since 1970
    Column("contact_id", row_id()),  # the row's contact then
    Column("history_id", row_id(), nullable=False, server_default=text("0")),  # its latest history in the group then
    Column("inside", flag(), nullable=False, server_default=text("0")),  # in the audience, or the interest chosen
    Column("objects", flag(), nullable=False, server_default=text("0")),  # the contact objected to mail then
    Column("value", long_text()),  # JSON: of data, what is not sent again
    **PLAIN,
)

daily = Table(
    "civiapi_daily",
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("day", code_column(10), primary_key=True),  # YYYY-MM-DD in the site's time zone
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
    Column("list_id", code_column(32), primary_key=True),
    Column("group_id", row_id(), nullable=False),
    Column("counts", long_text(), nullable=False),  # JSON: sync/store/balance.py, Balance
    Column("counted_ms", big_number(), nullable=False),  # UTC milliseconds since 1970, when counting began
    Column("took_ms", big_number(), nullable=False),
    Column("fingerprint", code_column(64), nullable=False),  # of the database then; empty: somebody was at work
    **PLAIN,
)

plan = Table(
    "civiapi_plan",  # what a sync would do, worked out and kept for a while
    METADATA,
    Column("id", code_column(32), primary_key=True),
    Column("list_id", code_column(32), nullable=False),
    Column("made_s", big_number(), nullable=False),  # UTC seconds since 1970
    Column("counts", long_text(), nullable=False),  # JSON: kind → people
    **PLAIN,
)

plan_person = Table(
    "civiapi_plan_person",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("plan_id", code_column(32), nullable=False),
    Column("kind", code_column(16), nullable=False),
    Column("contact_id", row_id()),
    Column("name", text_column(255)),
    Column("email", text_column(255)),
    Column("mailchimp_status", code_column(20)),
    Column("civicrm_status", code_column(20)),
    Column("reason", long_text()),
    Index("civiapi_plan_person_plan", "plan_id", "kind"),
    **NUMBERED,
)

member = Table(
    "civiapi_member",  # what the cache has no column for, one row beside each member's; a full fetch rewrites it
    METADATA,
    _key_of("cache_id", "civicrm_mailchimpsync_cache"),
    Column("contact_id", code_column(32)),  # Mailchimp's own, which stays when an address (and so the id) changes
    Column("seen", big_number(), nullable=False, server_default=text("0")),  # the last full fetch that met this member
    Index("civiapi_member_contact", "contact_id"),
    **PLAIN,
)

data_marks = Table(
    "civiapi_data_marks",  # how far the last run with data got; an audience that sends none has no row
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("marks", long_text(), nullable=False),  # JSON: sync/data/changes.py
    **PLAIN,
)

data_due = Table(
    "civiapi_data_due",  # members at which the next run with data looks: they joined, or changed at Mailchimp
    METADATA,
    _key_of("cache_id", "civicrm_mailchimpsync_cache"),
    Column("list_id", code_column(32), nullable=False),
    Index("civiapi_data_due_list", "list_id", "cache_id"),
    **PLAIN,
)

webhook_event = Table(
    "civiapi_webhook_event",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("kind", code_column(16), nullable=False),  # audience or batch
    Column("list_id", code_column(32)),
    Column("type", code_column(32)),
    Column("address", code_column(255)),  # of the member; the new one where it changed
    Column("fingerprint", code_column(64), nullable=False),  # the same event delivered twice has the same one
    Column("body", long_text(), nullable=False),  # JSON of the fields, the secret left out
    Column("received_s", big_number(), nullable=False),
    Column("status", code_column(12), nullable=False, server_default="new"),  # new, done, ignored, failed
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
    Column("list_id", code_column(32), primary_key=True),
    Column("member_hook", flag()),
    Column("batch_hook", flag()),  # the account's, noted for each of its audiences
    Column("asked_s", big_number(), nullable=False, server_default=text("0")),  # UTC seconds since 1970
    **PLAIN,
)

no_address = Table(
    "civiapi_no_address",  # members without an email address, by Mailchimp's contact id
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("contact_id", code_column(64), primary_key=True),
    Column("seen", big_number(), nullable=False, server_default=text("0")),  # the last full fetch that met it
    **PLAIN,
)

hook_signing = Table(
    "civiapi_hook_signing",  # the secrets with which Mailchimp signs deliveries; no entity shows them
    METADATA,
    Column("hook_id", code_column(64), primary_key=True),
    Column("list_id", code_column(32), nullable=False),
    Column("secret", code_column(255), nullable=False),
    **PLAIN,
)

turn = Table(
    "civiapi_turn",  # audiences that a sync of all still has to visit: whichever worker is free takes one
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("state", code_column(8), nullable=False),  # open, taken, done
    Column("until_ms", big_number(), nullable=False),  # UTC milliseconds since 1970; nobody begins it later
    Column("request", long_text(), nullable=False),  # JSON: what the run is asked
    Column("taker", code_column(64), nullable=False, server_default=""),
    Column("taken_ms", big_number(), nullable=False, server_default=text("0")),
    Column("error", long_text()),
    **PLAIN,
)

campaign = Table(
    "civiapi_campaign",  # campaigns that Mailchimp sent, and how far their import has got
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("campaign_id", code_column(32), nullable=False),  # Mailchimp's
    Column("list_id", code_column(32), nullable=False),
    Column("subject", text_column(255)),
    Column("title", text_column(255)),
    Column("archive_url", long_text()),
    Column("sent_s", big_number(), nullable=False),  # UTC seconds since 1970
    Column("emails_sent", row_id(), nullable=False, server_default=text("0")),
    Column("activity_id", row_id(), ForeignKey("civicrm_activity.id", ondelete="SET NULL")),
    Column("state", code_column(12), nullable=False, server_default="new"),  # new, recipients, done
    Column("cursor", long_text()),  # JSON: where the walk over recipients, opens or clicks goes on
    Column(
        "targets", row_id(), nullable=False, server_default=text("0")
    ),  # contacts it was sent to, counted at the end
    Column("unknown", row_id(), nullable=False, server_default=text("0")),  # recipients who are no contact
    Column("figures_s", big_number()),  # when opens and clicks were last read to the end
    Column("error", long_text()),
    UniqueConstraint("campaign_id", name="civiapi_campaign_id"),
    Index("civiapi_campaign_list", "list_id", "sent_s"),
    Index("civiapi_campaign_activity", "activity_id"),
    **NUMBERED,
)

campaign_response = Table(
    "civiapi_campaign_response",  # who opened a campaign (link '') and who clicked which of its links
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("campaign", row_id(), ForeignKey("civiapi_campaign.id", ondelete="CASCADE"), nullable=False),
    Column("contact_id", row_id(), ForeignKey("civicrm_contact.id", ondelete="CASCADE"), nullable=False),
    Column("link", code_column(32), nullable=False, server_default=""),  # Mailchimp's id of the link
    Column("count", row_id(), nullable=False),
    Column("last_s", big_number()),  # of opens: the last, in UTC seconds since 1970
    UniqueConstraint("contact_id", "campaign", "link", name="civiapi_campaign_response_of"),
    Index("civiapi_campaign_response_campaign", "campaign", "link"),
    **NUMBERED,
)

campaign_import = Table(
    "civiapi_campaign_import",  # the last import of each audience
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("started_s", big_number(), nullable=False),  # UTC seconds since 1970
    Column("ended_s", big_number()),
    Column("outcome", code_column(12), nullable=False, server_default="running"),  # finished, paused, failed
    Column("listed_s", big_number()),  # campaigns sent up to then are all known
    Column("campaigns", row_id(), nullable=False, server_default=text("0")),  # imported by it
    Column("error", long_text()),
    Column("newest_email", row_id()),  # the highest civicrm_email.id when unknown recipients were last looked up
    **PLAIN,
)

campaign_unknown = Table(
    "civiapi_campaign_unknown",  # recipients of campaigns who were no contact; deleted once they are
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("campaign", row_id(), ForeignKey("civiapi_campaign.id", ondelete="CASCADE"), nullable=False),
    Column("member_id", code_column(32), nullable=False),  # the subscriber hash
    Column("address", text_column(255)),
    UniqueConstraint("campaign", "member_id", name="civiapi_campaign_unknown_of"),
    **NUMBERED,
)

source_contact = Table(
    "civiapi_source_contact",  # who is and was in a smart group that is a source: as the last sync read it of CiviCRM
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("group_id", row_id(), nullable=False),
    Column("contact_id", row_id(), ForeignKey("civicrm_contact.id", ondelete="CASCADE"), nullable=False),
    Column("status", code_column(8), nullable=False),  # Added or Removed, as in civicrm_group_contact
    Column("since", SiteTime(), nullable=False),
    Column("left_at", SiteTime()),  # when they left last
    UniqueConstraint("contact_id", "group_id", name="civiapi_source_contact_of"),
    Index("civiapi_source_contact_group", "group_id", "status"),
    **NUMBERED,
)

source_group = Table(
    "civiapi_source_group",  # which state of a smart group was read last
    METADATA,
    Column("group_id", row_id(), primary_key=True, autoincrement=False),
    Column("computed", SiteTime(timestamp=True), nullable=False),  # civicrm_group.cache_date then
    **PLAIN,
)

permission = Table(
    "civiapi_permission",  # marketing permissions of audiences with GDPR fields
    METADATA,
    Column("list_id", code_column(32), primary_key=True),
    Column("permission_id", code_column(32), primary_key=True),
    Column("text", long_text()),
    **PLAIN,
)

consent = Table(
    "civiapi_consent",  # which of them members gave, as last fetched
    METADATA,
    _key_of("cache_id", "civicrm_mailchimpsync_cache"),
    Column("permission_id", code_column(32), primary_key=True),
    Column("granted", flag(), nullable=False),
    Column("since", SiteTime()),
    Index("civiapi_consent_permission", "permission_id", "granted"),
    **PLAIN,
)
