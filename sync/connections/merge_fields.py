"""The merge fields of an audience with the rules that fill them: shown, and stored in the configuration.

The fields are fetched from Mailchimp each time, so that a rule is stored only for one that exists; its description is
stored with the rule (``sync/field_rules.py``).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, select

from civiapi.api.parameters import custom_fields
from civiapi.store.author import Author
from civiapi.store.schema.tables import group, tag
from sync.connections.config import Link, read_config, write_config
from sync.connections.config_values import as_flag, as_map
from sync.data.sources import CONTACT_TYPES, TABLES, columns_of
from sync.errors import BadConfig
from sync.field_rules import (
    CUSTOM,
    FIXED,
    GROUP,
    NUMBERED,
    SOURCES,
    TAG,
    FieldRule,
    MergeField,
    find_source,
    write_rule,
)

KINDS = {
    "contact": "Contact", "address": "Primary address", "phone": "Phone", "email": "Email", CUSTOM: "Custom field",
    "membership": "Membership", "contribution": "Contribution", GROUP: "In the group", TAG: "Has the tag",
}  # fmt: skip
"""Kinds of sources as people are shown them; a fixed text is typed."""


def show(link: Link, fields: Iterable[MergeField]) -> list[dict[str, Any]]:
    """The merge fields as Mailchimp describes them, each with its rule; then mapped ones that are gone."""
    shown = []
    there = {one.tag: one for one in fields}
    for one in there.values():
        rule = link.merge_fields.get(one.tag)
        source = {"source": str(rule.source) if rule else "", "clear": bool(rule and rule.clear)}
        shown.append({**one.as_dict(), "choices": list(one.choices), **source, "gone": False})
    stored = {
        **{key: str(rule.source) for key, rule in link.merge_fields.items()},
        **dict.fromkeys(link.gone_fields, ""),
    }
    for key, text in stored.items():
        if key not in there:
            gone = {"tag": key, "name": key, "type": "", "required": False, "choices": []}
            shown.append({**gone, "source": text, "clear": False, "gone": True})
    return shown


def list_sources(conn: Connection) -> list[dict[str, str]]:
    """What can fill a merge field on this site: ``source``, ``kind`` and ``title``; a fixed text (``text:…``) aside."""
    found = [
        {"source": f"{kind}:{name}", "kind": KINDS[kind], "title": title}
        for kind, names in SOURCES.items()
        if kind not in (*NUMBERED, FIXED) and (kind not in TABLES or columns_of(conn, TABLES[kind]))
        for name, title in names.items()
    ]
    for name, one in custom_fields.read_fields(conn, CONTACT_TYPES).items():
        if not one.has_several_rows:
            source = f"{CUSTOM}:{name.removeprefix(custom_fields.PREFIX)}"
            found.append({"source": source, "kind": KINDS[CUSTOM], "title": one.field.title})
    groups = select(group.c.id, group.c.title).where(group.c.is_active == 1, group.c.is_hidden == 0)
    for row in conn.execute(groups.order_by(group.c.title)):
        found.append({"source": f"{GROUP}:{row.id}", "kind": KINDS[GROUP], "title": row.title})
    for row in conn.execute(select(tag.c.id, tag.c.name).order_by(tag.c.name)):
        found.append({"source": f"{TAG}:{row.id}", "kind": KINDS[TAG], "title": row.name})
    return found


def read_given(given: Any, fields: Mapping[str, MergeField]) -> dict[str, FieldRule]:
    """Rules from what a caller sent: tag → source, or → ``{source, clear}``; an empty source is no rule.

    Raises BadConfig.
    """
    try:
        rules = orjson.loads(given) if isinstance(given, str) else given
    except orjson.JSONDecodeError as error:
        raise BadConfig("The rules must be a JSON object: tag → source.") from error
    if rules == []:
        rules = {}  # PHP's empty map
    if not isinstance(rules, dict):
        raise BadConfig("The rules must be a JSON object: tag → source.")
    found = {}
    for name, one in rules.items():
        text = one.get("source") if isinstance(one, dict) else one
        if text in (None, ""):
            continue
        field, source = fields.get(str(name).upper()), find_source(text)
        if field is None:
            raise BadConfig(f"Mailchimp has no merge field '{name}' in this audience.")
        if source is None:
            raise BadConfig(f"Merge field '{name}': there is no source '{text}'.")
        found[field.tag] = FieldRule(field, source, as_flag(as_map(one).get("clear"), default=False))
    return found


def store_rules(
    conn: Connection,
    list_id: str,
    by: Author,
    *,
    rules: Mapping[str, FieldRule] | None = None,
    names: bool | None = None,
) -> Link:
    """Store the rules of a connection, all of them, and whether it sends names; None: as it is. Returns the link.

    Raises ListNotConfigured, and BadConfig for a source that this site does not have.
    """
    config = read_config(conn, for_update=True)
    config.link_for_list(list_id)
    raw = config.copy_raw()
    link = as_map(as_map(raw.get("lists")).get(list_id))
    if rules is not None:
        there = {one["source"] for one in list_sources(conn)}
        for rule in rules.values():
            if rule.source.kind != FIXED and str(rule.source) not in there:
                raise BadConfig(f"Merge field '{rule.tag}': this site has no '{rule.source}'.")
        link["mergeFields"] = {key: write_rule(rule) for key, rule in rules.items()}
    if names is not None:
        link["sendNames"] = names
    return write_config(conn, raw, by).link_for_list(list_id)
