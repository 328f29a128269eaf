"""The catalogue of the API: every entity, one line each, in alphabetical order."""

from civiapi.registry import Registry
from civiapi.spec import Entity
from entities.contact import CONTACT
from entities.domain import DOMAIN
from entities.email import EMAIL
from entities.entity import ENTITY
from entities.entity_tag import ENTITY_TAG
from entities.generic import GENERIC
from entities.group import GROUP
from entities.group_contact import GROUP_CONTACT
from entities.job import JOB
from entities.job_log import JOB_LOG
from entities.location_type import LOCATION_TYPE
from entities.mailchimpsync import MAILCHIMPSYNC
from entities.mailchimpsync_batch import MAILCHIMPSYNC_BATCH
from entities.mailchimpsync_cache import MAILCHIMPSYNC_CACHE
from entities.mailchimpsync_update import MAILCHIMPSYNC_UPDATE
from entities.mailchimpsync_webhook_event import MAILCHIMPSYNC_WEBHOOK_EVENT
from entities.setting import SETTING
from entities.subscription_history import SUBSCRIPTION_HISTORY
from entities.system import SYSTEM
from entities.tag import TAG
from entities.uf_match import UF_MATCH

ENTITIES: tuple[Entity, ...] = (
    CONTACT,
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
    SETTING,
    SUBSCRIPTION_HISTORY,
    SYSTEM,
    TAG,
    UF_MATCH,
)  # fmt: skip


def catalogue() -> Registry:
    """The catalogue with the generic actions every entity gets."""
    return Registry(ENTITIES, GENERIC)
