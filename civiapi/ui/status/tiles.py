"""A preview as a decision: what would change on each side, in numbers, removals first. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.reconcile import categories as kinds

LABELS: Mapping[str, tuple[str, str]] = {
    kinds.LEAVE_GROUP: ("−", "leave the group"),
    kinds.UNSUBSCRIBE: ("−", "unsubscribed"),
    kinds.ARCHIVE_ADDRESS: ("−", "old addresses archived"),
    kinds.NEW_CONTACT: ("+", "new contacts, who join the group"),
    kinds.JOIN_GROUP: ("+", "join the group"),
    kinds.SUBSCRIBE: ("+", "subscribed"),
    kinds.CALL_BACK: ("", "updates reversed"),
    kinds.CHANGE_ADDRESS: ("", "addresses changed"),
    kinds.INTERESTS: ("", "interests synced"),
    kinds.LET_GO: ("", "separated from an old address"),
    kinds.HAND_OVER: ("", "handed over to another contact"),
    kinds.DATA: ("", "names, merge fields or tags sent"),
    kinds.DATA_LEFT_OUT: ("", "have data that is left out"),
    kinds.CANNOT: ("", "cannot be mailed"),
    kinds.UNDER_WAY: ("", "already in flight"),
    kinds.TAKEN_BACK: ("", "left as an undo left them"),
    kinds.IN_STEP: ("", "unchanged"),
}
"""Each kind's sign and words, to follow a number; in the order in which they are shown."""

WHERE: Mapping[str, tuple[str, ...]] = {
    "In CiviCRM": (kinds.LEAVE_GROUP, kinds.NEW_CONTACT, kinds.JOIN_GROUP),
    "At Mailchimp": (
        kinds.UNSUBSCRIBE, kinds.ARCHIVE_ADDRESS, kinds.SUBSCRIBE, kinds.CALL_BACK, kinds.CHANGE_ADDRESS,
        kinds.DATA, kinds.DATA_LEFT_OUT,
    ),
}  # fmt: skip
ELSEWHERE = "On both sides"
QUIET = "No change"

ONE: Mapping[str, str] = {
    kinds.LEAVE_GROUP: "leaves the group",
    kinds.UNSUBSCRIBE: "is unsubscribed",
    kinds.ARCHIVE_ADDRESS: "old address archived",
    kinds.NEW_CONTACT: "new contact, joins the group",
    kinds.JOIN_GROUP: "joins the group",
    kinds.SUBSCRIBE: "is subscribed",
    kinds.CALL_BACK: "update reversed",
    kinds.CHANGE_ADDRESS: "address changed",
    kinds.INTERESTS: "interests synced",
    kinds.LET_GO: "separated from an old address",
    kinds.HAND_OVER: "handed over to another contact",
    kinds.DATA: "names, merge fields or tags sent",
    kinds.DATA_LEFT_OUT: "data left out",
    kinds.CANNOT: "cannot be mailed",
}
"""What happens to one person of a kind."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of a preview; *is_removal* is shown first and in warning colours. Quiet kinds list nobody."""

    kind: str
    sign: str
    count: int
    words: str

    @property
    def is_removal(self) -> bool:
        """Whether people lose something by it."""
        return self.sign == "−"

    @property
    def lists_people(self) -> bool:
        """Whether the preview lists the people of this kind."""
        return self.kind not in kinds.QUIET


def make_tiles(summary: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Tile]]]:
    """The tiles of a preview's summary, by where they change something; places without a tile are left out."""
    counts = {str(one["kind"]): int(one["count"]) for one in summary}
    places: dict[str, list[Tile]] = {place: [] for place in (*WHERE, ELSEWHERE, QUIET)}
    for kind, (sign, words) in LABELS.items():
        if counts.get(kind):
            places[_place_of(kind)].append(Tile(kind, sign, counts[kind], words))
    return [(place, tiles) for place, tiles in places.items() if tiles]


def _place_of(kind: str) -> str:
    if kind in kinds.QUIET or kind == kinds.CANNOT:
        return QUIET
    return next((place for place, theirs in WHERE.items() if kind in theirs), ELSEWHERE)
