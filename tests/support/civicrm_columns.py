"""The columns of CiviCRM's tables by its own definitions, and the fields that we declare on them."""

import re
from collections.abc import Iterable
from pathlib import Path

from civiapi.api.declaration.fields import Field, Type
from entities import catalogue
from tests.support import civicrm

SCHEMA = Path(civicrm.__file__).with_name("civicrm_5_75.sql").read_text("utf-8")


def column_types() -> dict[tuple[str, str], str]:
    """Table and column to the type in CiviCRM's own definitions, in lower case: ``int(10) unsigned``."""
    found = {}
    for table, body in re.findall(r"CREATE TABLE `(\w+)` \((.*?)\n\)", SCHEMA, re.S):
        for name, kind in re.findall(r"^\s*`?(\w+)`? (\w+(?:\(\d+\))?(?: unsigned)?)", body, re.M | re.I):
            found[table, name] = kind.lower()
    return found


def fields_of(types: Iterable[Type]) -> list[tuple[str, str, Field]]:
    """Entity, table and field of each field of these types that is a column of a table of CiviCRM."""
    return [
        (entity.name, entity.table.name, field)
        for entity in catalogue().entities()
        if entity.table is not None and not entity.table.name.startswith("civiapi_")
        for field in entity.fields
        if field.type in types and entity.column(field.name) is not None
    ]
