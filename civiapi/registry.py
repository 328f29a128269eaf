"""Names to declarations, as forgiving of spelling as CiviCRM is, and a little more.

``contact``, ``group_contact``, ``Group-Contact`` and (ours) ``GROUPCONTACT`` find their entity; actions find theirs in
any case. Which actions an entity has besides its own follows from ``generic``.
"""

import re
from collections.abc import Iterable, Sequence

from civiapi.errors import NotFound
from civiapi.spec import Action, Entity

LONGEST_NAME = 63
LONGEST_SPELLING = 1000  # of what is read of a name at all
_OTHER = re.compile(r"[^A-Za-z0-9]+")


def entity_name(text: str) -> str:
    """``group_contact`` → ``GroupContact``, ``uf_match`` → ``UFMatch``; other case is kept (contract 3.1)."""
    parts = _normal(text).split("_")
    name = "".join(part[:1].upper() + part[1:] for part in parts)
    if name in ("IM", "ACL"):
        return name.capitalize()
    return "UF" + name[2:] if name.startswith("Uf") else name


def action_name(text: str) -> str:
    """``getSingle`` → ``getsingle``."""
    return _normal(text).lower()


def _normal(text: str) -> str:
    return _OTHER.sub("_", text[:LONGEST_SPELLING])[:LONGEST_NAME]


class Registry:
    """The catalogue: every entity with all its actions."""

    def __init__(self, entities: Iterable[Entity], generic: Sequence[Action] = ()) -> None:
        self._entities = {entity.name: entity for entity in entities}
        self._forgiving = {name.lower(): entity for name, entity in self._entities.items()}
        self._by_table = {e.table.name: e for e in self._entities.values() if e.table is not None}
        self._actions: dict[str, dict[str, Action]] = {}
        self._answers_for_any = {a.name: a for a in generic if a.for_any_entity}
        for entity in self._entities.values():
            own = {action.name: action for action in entity.actions}
            more = {a.name: a for a in generic if a.name not in own and all(need in own for need in a.needs)}
            self._actions[entity.name] = own | more
        self._found: dict[tuple[str, str], tuple[Entity, Action]] = {}

    def find_entity(self, name: str) -> Entity | None:
        """The entity that goes by this name, however it is spelt."""
        normal = entity_name(name)
        return self._entities.get(normal) or self._forgiving.get(normal.lower())

    def resolve(self, entity: str, action: str) -> tuple[Entity, Action]:
        """The declaration behind a call. Raises ``NotFound``."""
        if found := self._found.get((entity, action)):
            return found
        one = self.find_entity(entity)
        name = action_name(action)
        known = self._actions[one.name].get(name) if one is not None else self._answers_for_any.get(name)
        if known is None:
            raise NotFound(*self.names(entity, action))
        if one is None:
            return Entity(entity_name(entity)), known
        if len(self._found) < 4096 and len(entity) + len(action) <= 2 * LONGEST_NAME:
            self._found[entity, action] = one, known
        return one, known

    def names(self, entity: str, action: str) -> tuple[str, str]:
        """Both names as an answer repeats them."""
        one = self.find_entity(entity)
        return (one.name if one else entity_name(entity)), action_name(action)

    def actions(self, entity: Entity) -> dict[str, Action]:
        """All actions of an entity by name, generic ones included."""
        return self._actions.get(entity.name, {})

    def entities(self) -> list[Entity]:
        """The catalogue in alphabetical order."""
        return [self._entities[name] for name in sorted(self._entities)]

    def of_table(self, table: str) -> Entity | None:
        """The entity that lives in this table."""
        return self._by_table.get(table)
