"""The users as whom hostile tests act besides the administrator: each may do something, and none everything."""

from civiapi.api.call import Caller
from tests.support.processes import SITE_KEY

PERMISSIONS = {
    "lowly": ("access CiviCRM",),
    "viewer": ("access CiviCRM", "access AJAX API", "view all contacts"),
    "selfedit": ("access CiviCRM", "access AJAX API", "view my contact", "edit my contact"),
    "editor": ("access CiviCRM", "access AJAX API", "view all contacts", "edit all contacts", "add contacts"),
}
SETTINGS = "".join(
    f"[user:{name}]\napi_key = the-key-of-{name}\npermissions = {', '.join(held)}\n"
    for name, held in PERMISSIONS.items()
)


def headers(name: str) -> dict[str, str]:
    """What a request of this user shows."""
    shown = {"X-Civi-Auth": f"Bearer the-key-of-{name}", "X-Civi-Key": SITE_KEY}
    return {**shown, "X-Requested-With": "XMLHttpRequest"}


def caller(name: str, contact_id: int) -> Caller:
    """This user, acting as a contact."""
    return Caller(contact_id, frozenset(PERMISSIONS[name]), name, "xheader", "api_key")
