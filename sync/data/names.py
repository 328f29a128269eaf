"""First and last names: which are sent to Mailchimp, and which the member changed there later. Pure.

CiviCRM's name is sent where it differs from Mailchimp's, unless Mailchimp's is the newer one. It is newer where it was
changed since a name was sent and CiviCRM's was not; where both were changed, and where none was ever sent, by time:
CiviCRM's is that of the contact's last change, and a tie is CiviCRM's. A name in CiviCRM that is what its column
can hold of Mailchimp's is the same name: Mailchimp's is not replaced by less of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from civiapi.store.civicrm.contacts import PART_LIMIT
from civiapi.store.text.encoded_text import stored_forms
from sync.store.members.member_merge import NAMES


@dataclass(frozen=True, slots=True)
class ContactNames:
    """A contact's names, and the site time of its last change (compact; ``""`` where it is not known).

    *is_narrow*: CiviCRM's tables may be without characters of four bytes.
    """

    first_name: str = ""
    last_name: str = ""
    changed: str = ""
    is_narrow: bool = False

    def given(self) -> dict[str, str]:
        """The names that are not empty."""
        return {name: value for name, _ in NAMES if (value := getattr(self, name).strip())}

    def is_as(self, theirs: str, name: str) -> bool:
        """Whether this name is *theirs*, as far as CiviCRM can store it."""
        ours = getattr(self, name).strip()
        return ours == theirs or ours in stored_forms(theirs, PART_LIMIT, is_narrow=self.is_narrow)


def newer_names(names: ContactNames, member: Mapping[str, Any], sent: Mapping[str, str]) -> dict[str, str]:
    """The names that the member changed at Mailchimp later than CiviCRM did, and that are not empty there.

    *member* is the member's data (``mailchimp_data``), *sent* the names that were sent last.
    """
    found = {}
    for name, _ in NAMES:
        theirs, ours = _text(member, name), getattr(names, name).strip()
        if (
            theirs
            and not names.is_as(theirs, name)
            and _is_newer(theirs, ours, name, names.changed, member, sent.get(name))
        ):
            found[name] = theirs
    return found


def names_to_send(
    names: ContactNames,
    member: Mapping[str, Any],
    sent: Mapping[str, str],
    kept: Mapping[str, str],
    held: Mapping[str, Any],
) -> dict[str, str]:
    """The merge fields to send: the names that are not empty, if Mailchimp has another for one of them; without those
    that Mailchimp has more of than CiviCRM can store.

    *kept* is what Mailchimp made of a name that was sent, by merge field, where that is something else. A name of which
    it kept nothing is not sent again: the audience has no such merge field. *held*: what an undo took back, by merge
    field, which is not sent again.
    """
    newer, tags = newer_names(names, member, sent), dict(NAMES)
    given = {
        name: value for name, value in names.given().items() if name not in newer and held.get(tags[name]) != value
    }
    has = {name: _text(member, name) for name in given}
    given = {name: value for name, value in given.items() if has[name] == value or not names.is_as(has[name], name)}
    is_kept = {name: sent.get(name) == value and kept.get(tags[name]) == has[name] for name, value in given.items()}
    if any(has[name] != value and not is_kept[name] for name, value in given.items()):
        return {field: given[name] for name, field in NAMES if name in given}
    return {}


def _is_newer(theirs: str, ours: str, name: str, changed: str, member: Mapping[str, Any], sent: str | None) -> bool:
    since = _text(member, f"{name}@")
    if sent is None:  # a name that was there when the member was first seen has the time of the status
        return _text(member, "status@") < since > changed
    if theirs == sent:
        return False
    return ours == sent or since > changed


def _text(member: Mapping[str, Any], key: str) -> str:
    return str(member.get(key) or "").strip()
