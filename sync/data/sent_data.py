"""``civicrm_data``: which data Mailchimp has from CiviCRM for a row, as the extension stores it.

A PHP-serialized map: data source → ``{mailchimp_updates, tag_updates, previous}``. Two sources are the extension's own
and ours: ``mcs_names`` (``previous``: first and last name) and ``mcs_tags`` (``previous``: the ids of the contact's
tags, ``3,7``). Other sources are written by plugins, ours or the extension's: the sync sends the merge of their
``mailchimp_updates`` (merge fields; a status in it is ignored) and of their ``tag_updates``.

Two entries are ours alone. ``tags``: each tag that Mailchimp has from us, by name, with the id of CiviCRM's tag or
``true`` for a plugin's (``0``: taken off as a source asked). It finds a tag that was renamed or deleted in CiviCRM; a
tag whose id ``mcs_tags`` does not have was taken off by the extension since. ``civiapi_fields``: the merge fields that
were sent (``previous``), the form in which Mailchimp keeps those that it changed (``kept``), and the values that it
refused (``refused``).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import tag
from sync.data.plugins import PREFIX, MemberData
from sync.field_rules import canonical
from sync.mailchimp.wire import tag_key
from sync.store.members.blobs import dump_data, load_data
from sync.store.members.member_merge import NAMES
from sync.store.tables import cache

TAGS, TAG_SOURCE, NAME_SOURCE, FIELD_SOURCE = "tags", "mcs_tags", "mcs_names", "civiapi_fields"
SOURCES = (TAG_SOURCE, NAME_SOURCE, FIELD_SOURCE)
UPDATES, TAG_UPDATES, PREVIOUS, KEPT, REFUSED = "mailchimp_updates", "tag_updates", "previous", "kept", "refused"
BY_PLUGIN = "plugin"
"""Set in what a plugin of ours wrote, so that it is emptied when the plugin gives nothing any more."""


@dataclass(frozen=True, slots=True)
class SentFields:
    """The merge fields that were sent for a row, by tag, each in its canonical form (`convert.canonical`)."""

    previous: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    """Where Mailchimp keeps a sent value in another form: that form."""
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sent:
    """What Mailchimp carried out, or refused, of an operation on a row's data."""

    cache_id: int
    body: Mapping[str, Any]
    answer: Mapping[str, Any] = field(default_factory=dict)
    """The merge fields of the member afterwards; none where the answer has no member."""
    refused: Sequence[str] = ()
    """Tags of merge fields that Mailchimp refused: nothing else was carried out."""


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_sent_tags(conn: Connection, stored: Mapping[int, Mapping[str, Any]]) -> dict[int, set[str]]:
    """The tags that Mailchimp has from us, of each of these rows (cache id → its ``civicrm_data``).

    What the extension had still to send counts as not sent: it is compared and sent again.
    """
    ids = {one for data in stored.values() for one in _previous(data) or ()}
    names = _names_of(conn, sorted(ids))
    return {cache_id: _sent_tags(data, names) for cache_id, data in stored.items()}


def read_taken_off(data: Mapping[str, Any]) -> set[str]:
    """The tags that were taken off because a source wanted it, although no sync had added them."""
    kept = data.get(TAGS)
    return {str(name) for name, tag_id in kept.items() if not tag_id} if isinstance(kept, dict) else set()


def read_sent_names(data: Mapping[str, Any]) -> dict[str, str]:
    """The names that were sent last: ``first_name`` and ``last_name``, where they were."""
    previous = _source(data, NAME_SOURCE).get(PREVIOUS)
    known = previous if isinstance(previous, dict) else {}
    return {name: known[name] for name, _ in NAMES if isinstance(known.get(name), str)}


def read_sent_fields(data: Mapping[str, Any]) -> SentFields:
    """The merge fields that were sent."""
    stored = _source(data, FIELD_SOURCE)
    return SentFields(_texts(stored.get(PREVIOUS)), _texts(stored.get(KEPT)), _texts(stored.get(REFUSED)))


def read_wishes(data: Mapping[str, Any]) -> dict[str, MemberData]:
    """What the sources other than ours ask for, by identifier: the data of plugins, ours or the extension's."""
    found = {}
    for name, source in data.items():
        if name not in SOURCES and name != TAGS and isinstance(source, dict):
            fields = _source(_source(source, UPDATES), "merge_fields")
            tags = {
                str(one["name"]): one.get("status") == "active"
                for one in _items(source.get(TAG_UPDATES))
                if isinstance(one, dict) and one.get("name")
            }
            if fields or tags:
                found[name] = MemberData({str(key): value for key, value in fields.items()}, tags)
    return found


def is_sent_to(data: Mapping[str, Any]) -> bool:
    """Whether data was ever sent for a row, by us or by the extension."""
    return any(source in data for source in SOURCES)


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_wishes(data: Mapping[str, Any], wishes: Mapping[str, MemberData], *, is_all: bool = True) -> dict[str, Any]:
    """``civicrm_data`` with what our plugins want to send now; sources that want nothing any more become empty.

    Not *is_all*: a plugin failed, so sources that are missing now stay.
    """
    changed = dict(data)
    before = [name for name in data if is_all and name not in wishes and _source(data, name).get(BY_PLUGIN)]
    for name in (*wishes, *before):
        one = wishes.get(name, MemberData())
        updates: dict[str, Any] = {"merge_fields": dict(one.merge_fields)} if one.merge_fields else {}
        tags = [{"name": tag, "status": "active" if on else "inactive"} for tag, on in one.tags.items()]
        changed[name] = {PREVIOUS: None, **_source(data, name), UPDATES: updates, TAG_UPDATES: tags, BY_PLUGIN: True}
    return changed


def note_sent(conn: Connection, sent: Sequence[Sent]) -> None:
    """Store what Mailchimp has carried out, or refused, so that nothing is sent twice."""
    if not sent:
        return
    by_row: dict[int, list[Sent]] = defaultdict(list)
    for one in sent:
        by_row[one.cache_id].append(one)
    rows = conn.execute(select(cache.c.id, cache.c.civicrm_data).where(in_list(cache.c.id, list(by_row))))
    stored = {row.id: load_data(row.civicrm_data) for row in rows}
    with_tags = {
        cache_id: data for cache_id, data in stored.items() if any(TAGS in one.body for one in by_row[cache_id])
    }
    has = read_sent_tags(conn, with_tags)
    ids = _ids_of(conn, _civicrm_tags(has, sent))
    for cache_id, data in stored.items():
        for one in by_row[cache_id]:
            if TAGS in one.body:
                data |= _with_tags(data, has[cache_id], one.body, ids)
            else:
                data |= _with_fields(data, one)
    update_rows(conn, cache, ("civicrm_data",), [(dump_data(data), cache_id) for cache_id, data in stored.items()])


def _civicrm_tags(has: Mapping[int, set[str]], sent: Sequence[Sent]) -> list[str]:
    """The names of the CiviCRM tags that may be concerned."""
    names = set().union(*has.values(), *({str(t.get("name")) for t in one.body.get(TAGS) or ()} for one in sent))
    return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


def _with_tags(data: Mapping[str, Any], has: set[str], body: Mapping[str, Any], ids: Mapping[str, int]) -> Any:
    """The entries of a row after these changes of tags; *has*, its tags, is brought up to date."""
    asked_off = {tag_key(name) for one in read_wishes(data).values() for name, on in one.tags.items() if not on}
    off = read_taken_off(data)
    for one in body.get(TAGS) or ():
        name, is_on = str(one.get("name")), one.get("status") == "active"
        has -= {known for known in has if tag_key(known) == tag_key(name)}
        if is_on:
            has.add(name)
        (off.add if not is_on and tag_key(name) in asked_off else off.discard)(name)
    known = _entries(data)
    kept = {
        name: (ids.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None) or known.get(name) or True
        for name in sorted(has)
    }
    previous = sorted(one for one in kept.values() if one is not True)
    entries = kept | dict.fromkeys(sorted(off - has), 0)
    return {TAGS: entries, TAG_SOURCE: _as_source(",".join(map(str, previous)))}


def _with_fields(data: Mapping[str, Any], one: Sent) -> dict[str, Any]:
    fields, known = one.body.get("merge_fields") or {}, read_sent_fields(data)
    if one.refused:
        refused = {**known.refused, **{name: canonical(fields[name]) for name in one.refused if name in fields}}
        return {FIELD_SOURCE: {**_as_source(dict(known.previous)), KEPT: dict(known.kept), REFUSED: refused}}
    sent = {name: canonical(value) for name, value in fields.items()}
    answered = {name: canonical(one.answer.get(name)) for name in sent if one.answer}  # nothing: there is no such field
    kept = {name: text for name, text in (dict(known.kept) | answered).items() if text != sent.get(name)}
    refused = {name: text for name, text in known.refused.items() if name not in sent}
    noted: dict[str, Any] = {}
    names = {name: str(fields[tag]) for name, tag in NAMES if tag in fields}
    if names:
        noted[NAME_SOURCE] = _as_source(read_sent_names(data) | names)
    previous = dict(known.previous) | {name: text for name, text in sent.items() if name not in dict(NAMES).values()}
    if previous or kept or refused:
        noted[FIELD_SOURCE] = {**_as_source(previous), KEPT: kept, REFUSED: refused}
    return noted


def _as_source(previous: Any) -> dict[str, Any]:
    return {UPDATES: {}, TAG_UPDATES: {}, PREVIOUS: previous}


def _sent_tags(data: Mapping[str, Any], names: Mapping[int, str]) -> set[str]:
    entries, previous = _entries(data), _previous(data)
    has = {name for name, tag_id in entries.items() if tag_id is True or previous is None or tag_id in previous}
    ours = {tag_id for tag_id in entries.values() if tag_id is not True}
    has |= {f"{PREFIX}{names[tag_id]}" for tag_id in (previous or set()) - ours if tag_id in names}
    for one in _items(_source(data, TAG_SOURCE).get(TAG_UPDATES)):
        if isinstance(one, dict):
            (has.discard if one.get("status") == "active" else has.add)(str(one.get("name")))
    return has


def _entries(data: Mapping[str, Any]) -> dict[str, int | bool]:
    """Our own map: name → id of CiviCRM's tag, or True. Names that look like numbers are keys of PHP's lists."""
    kept = data.get(TAGS)
    if not isinstance(kept, dict):
        return {}
    return {str(name): tag_id if type(tag_id) is int else True for name, tag_id in kept.items() if tag_id}


def _previous(data: Mapping[str, Any]) -> set[int] | None:
    """The ids of the tags that the extension knows as sent; None where it never sent any."""
    previous = _source(data, TAG_SOURCE).get(PREVIOUS)
    if previous is None:
        return None
    return {int(one) for one in str(previous).split(",") if one.strip().isdecimal()}


def _source(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(one) for key, one in value.items()} if isinstance(value, dict) else {}


def _items(value: object) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _names_of(conn: Connection, ids: Sequence[int]) -> dict[int, str]:
    if not ids:
        return {}
    return {row.id: row.name for row in conn.execute(select(tag.c.id, tag.c.name).where(in_list(tag.c.id, ids)))}


def _ids_of(conn: Connection, names: Sequence[str]) -> dict[str, int]:
    if not names:
        return {}
    return {row.name: row.id for row in conn.execute(select(tag.c.id, tag.c.name).where(in_list(tag.c.name, names)))}
