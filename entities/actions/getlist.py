"""getlist, for autocomplete fields: pages of ten rows with label and description (contract 4.4)."""

from typing import Any

from civiapi.api import query
from civiapi.api.context import Context
from civiapi.api.declaration.fields import Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.envelope import shown
from civiapi.api.parameters.options import integer, is_empty

PAGE = 10
_PARAMS = (
    "input", "page_num", "id", "params", "extra", "label_field", "search_field", "id_field", "description_field",
)  # fmt: skip


async def getlist(request: Request, ctx: Context) -> Result:
    """Rows found by ``input`` in the search field, or by ``id``, in the form an autocomplete shows."""
    asked = request.params
    label = shown(asked.get("label_field") or request.entity.label_field or "id")
    id_field = shown(asked.get("id_field") or "id")
    described = _texts(asked.get("description_field")) or list(request.entity.description_fields)
    extra = _texts(asked.get("extra"))
    for name in (asked.get("search_field"), asked.get("id_field")):
        _check_searched(request, name)
    base = dict(asked["params"]) if isinstance(asked.get("params"), dict) else {}
    base["return"] = list(dict.fromkeys(["id", id_field, label, *described, *extra]))
    page = integer(asked.get("page_num")) or 1
    found, more = await _find(request, ctx, base, label, id_field, page)
    rows = [_shown(row, id_field, label, described, extra) for row in found]
    tail: dict[str, Any] = {"page_num": page}
    if more is not None:
        tail["more_results"] = more
    return Result(rows, key=None, extra=tail)


def _check_searched(request: Request, name: Any) -> None:
    """Raise ``ApiError`` for a field that is not there: unlike one of the caller's own filters it is not ignored."""
    entity = request.entity
    if is_empty(name) or entity.table is None or shown(name) in entity.by_name:
        return
    if "." not in shown(name) or query.follow(request.registry, entity, shown(name)) is None:
        raise query.refused_filter(entity, shown(name))


async def _find(
    request: Request, ctx: Context, base: dict[str, Any], label: str, id_field: str, page: int
) -> tuple[list[dict[str, Any]], bool | None]:
    """The rows of this page, and whether there are more (``None``: looked up by id, which has no pages)."""
    ids = _several(request.params.get("id"))
    if ids:
        return await _get(request, ctx, {**base, id_field: {"IN": ids}, "options": {"limit": 0}}), None
    text = str(request.params.get("input") or "").strip()
    if text.isdigit():  # a number is an id first
        exact = await _get(request, ctx, {**base, id_field: text, "options": {"limit": 1}})
        if exact and page == 1:
            return exact, True
        page -= 1 if exact else 0
    if text:
        search = shown(request.params.get("search_field") or label)
        base = {**base, search: {"LIKE": f"%{text}%"}}
    options = {"limit": PAGE + 1, "offset": PAGE * (page - 1), "sort": request.entity.list_sort or label}
    rows = await _get(request, ctx, {**base, "options": options})
    return rows[:PAGE], len(rows) > PAGE


async def _get(request: Request, ctx: Context, asked: dict[str, Any]) -> list[dict[str, Any]]:
    found = await ctx.call(request.entity.name, "get", {**asked, "sequential": 1})
    # Entity.get answers with names only
    return [row if isinstance(row, dict) else {"id": row, "label": row} for row in found["values"]]


def _several(value: Any) -> list[Any]:
    """One value, a list, the values of a map or comma text as a list of texts and numbers."""
    if is_empty(value):
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    parts = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    return [part for part in parts if isinstance(part, str | int | float)]


def _texts(value: Any) -> list[str]:
    return [shown(part) for part in _several(value)]


def _shown(row: dict[str, Any], id_field: str, label: str, described: list[str], extra: list[str]) -> dict[str, Any]:
    texts = [row[name] for name in described if row.get(name) not in (None, "")]
    out = {"id": row.get(id_field, row.get("id")), "label": row.get(label, ""), "description": texts}
    out |= {key: value for key, value in row.items() if key.startswith(("api.", "api_"))}
    return out | ({"extra": {name: row.get(name, "") for name in extra}} if extra else {})


GETLIST = Action(
    "getlist", run_async=getlist, delegates_to=("get",), generic=True, params=tuple(Field(name) for name in _PARAMS)
)
