"""The registry of the API: every entity, in alphabetical order."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from civiapi.api.declaration.spec import Entity, Registry
from entities.actions.generic import GENERIC
from entities.activities.activity import ACTIVITY
from entities.activities.activity_contact import ACTIVITY_CONTACT
from entities.contacts.contact import CONTACT
from entities.contacts.entity_tag import ENTITY_TAG
from entities.contacts.locations.address import ADDRESS
from entities.contacts.locations.email import EMAIL
from entities.contacts.locations.location_type import LOCATION_TYPE
from entities.contacts.locations.phone import PHONE
from entities.contacts.note import NOTE
from entities.contacts.relationship import RELATIONSHIP, RELATIONSHIP_TYPE
from entities.contacts.tag import TAG
from entities.contacts.uf_match import UF_MATCH
from entities.definitions.custom import CUSTOM_FIELD, CUSTOM_GROUP
from entities.definitions.options import OPTION_GROUP, OPTION_VALUE
from entities.groups.group import GROUP
from entities.groups.group_contact import GROUP_CONTACT
from entities.groups.subscription_history import SUBSCRIPTION_HISTORY
from entities.mailchimpsync.batch import MAILCHIMPSYNC_BATCH
from entities.mailchimpsync.cache import MAILCHIMPSYNC_CACHE
from entities.mailchimpsync.mailchimpsync import MAILCHIMPSYNC
from entities.mailchimpsync.update import MAILCHIMPSYNC_UPDATE
from entities.mailchimpsync.webhook_event import MAILCHIMPSYNC_WEBHOOK_EVENT
from entities.site.domain import DOMAIN
from entities.site.entity import ENTITY
from entities.site.job import JOB
from entities.site.job_log import JOB_LOG
from entities.site.setting import SETTING
from entities.site.system import SYSTEM

ENTITIES: tuple[Entity, ...] = (
    ACTIVITY,
    ACTIVITY_CONTACT,
    ADDRESS,
    CONTACT,
    CUSTOM_FIELD,
    CUSTOM_GROUP,
    DOMAIN,
    EMAIL,
    ENTITY,
    ENTITY_TAG,
    GROUP,
    GROUP_CONTACT,
    JOB,
    JOB_LOG,
    LOCATION_TYPE,
    MAILCHIMPSYNC,
    MAILCHIMPSYNC_BATCH,
    MAILCHIMPSYNC_CACHE,
    MAILCHIMPSYNC_UPDATE,
    MAILCHIMPSYNC_WEBHOOK_EVENT,
    NOTE,
    OPTION_GROUP,
    OPTION_VALUE,
    PHONE,
    RELATIONSHIP,
    RELATIONSHIP_TYPE,
    SETTING,
    SUBSCRIPTION_HISTORY,
    SYSTEM,
    TAG,
    UF_MATCH,
)  # fmt: skip


def catalogue(absent: Mapping[str, Collection[str]] = MappingProxyType({})) -> Registry:
    """The registry of all entities with the generic actions; without fields of *absent* columns (by table)."""
    return Registry([_of_database(one, absent) for one in ENTITIES], GENERIC)


def _of_database(entity: Entity, absent: Mapping[str, Collection[str]]) -> Entity:
    lacking = absent.get(entity.table.name, ()) if entity.table is not None else ()
    return replace(entity, fields=tuple(f for f in entity.fields if f.name not in lacking)) if lacking else entity
