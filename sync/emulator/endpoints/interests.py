"""Interest categories and the interests inside them."""

from __future__ import annotations

from sync.emulator.endpoints.members import change_context
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.records import Interest, InterestCategory, Json
from sync.emulator.protocol.exchange import ApiCall, Response, links, no_content
from sync.emulator.protocol.paging import collection, one
from sync.emulator.protocol.problems import invalid, not_found
from sync.emulator.protocol.schemas import check


def list_categories(call: ApiCall) -> Response:
    """GET the categories, ten at a time unless asked otherwise."""
    audience = call.audience
    kind = call.query.get("type")
    found = [category for category in audience.categories.values() if not kind or category.type == kind]
    return collection(call, "categories", found, lambda one: show_category(call, audience, one), list_id=audience.id)


def create_category(call: ApiCall) -> Response:
    """POST a category."""
    check("category_create", call.request.body)
    audience = call.audience
    if any(one.title.lower() == call.body["title"].lower() for one in audience.categories.values()):
        raise invalid("A group with that title already exists.")
    category = InterestCategory(call.state.new_id(), call.body["title"], call.body["type"])
    category.display_order = call.body.get("display_order", len(audience.categories))
    audience.categories[category.id] = category
    return one(call, show_category(call, audience, category))


def read_category(call: ApiCall) -> Response:
    """GET one category."""
    return one(call, show_category(call, call.audience, category_of(call)))


def change_category(call: ApiCall) -> Response:
    """PATCH a category."""
    check("category_change", call.request.body)
    category = category_of(call)
    for name in ("title", "display_order", "type"):
        if name in call.body:
            setattr(category, name, call.body[name])
    return one(call, show_category(call, call.audience, category))


def delete_category(call: ApiCall) -> Response:
    """DELETE a category with its interests, which go from every member's map."""
    category = category_of(call)
    _drop_from_members(call, frozenset(category.interests))
    del call.audience.categories[category.id]
    return no_content()


def list_interests(call: ApiCall) -> Response:
    """GET the interests of a category, ten at a time unless asked otherwise."""
    audience, category = call.audience, category_of(call)
    rows = list(category.interests.values())
    beside = {"list_id": audience.id, "category_id": category.id}
    return collection(call, "interests", rows, lambda row: show_interest(call, audience, row), **beside)


def create_interest(call: ApiCall) -> Response:
    """POST an interest."""
    check("interest_create", call.request.body)
    category = category_of(call)
    if any(row.name.lower() == call.body["name"].lower() for row in category.interests.values()):
        raise invalid(f'Cannot add "{call.body["name"]}" because it already exists on the list.')
    interest = Interest(call.state.new_id(), category.id, call.body["name"])
    interest.display_order = call.body.get("display_order", len(category.interests) + 1)
    category.interests[interest.id] = interest
    return one(call, show_interest(call, call.audience, interest))


def read_interest(call: ApiCall) -> Response:
    """GET one interest."""
    return one(call, show_interest(call, call.audience, interest_of(call)))


def change_interest(call: ApiCall) -> Response:
    """PATCH an interest."""
    check("interest_change", call.request.body)
    interest = interest_of(call)
    for name in ("name", "display_order"):
        if name in call.body:
            setattr(interest, name, call.body[name])
    return one(call, show_interest(call, call.audience, interest))


def delete_interest(call: ApiCall) -> Response:
    """DELETE an interest: its key goes from every member's map."""
    interest = interest_of(call)
    _drop_from_members(call, frozenset({interest.id}))
    del category_of(call).interests[interest.id]
    return no_content()


def category_of(call: ApiCall) -> InterestCategory:
    """Return the category named second in the path. Raises a 404."""
    category = call.audience.categories.get(call.ids[1])
    if category is None:
        raise not_found()
    return category


def interest_of(call: ApiCall) -> Interest:
    """Return the interest named third in the path. Raises a 404."""
    interest = category_of(call).interests.get(call.ids[2])
    if interest is None:
        raise not_found()
    return interest


def show_category(call: ApiCall, audience: EmulatedAudience, category: InterestCategory) -> Json:
    """Return a category as Mailchimp shows it."""
    return {
        "list_id": audience.id,
        "id": category.id,
        "title": category.title,
        "display_order": category.display_order,
        "type": category.type,
        "_links": links(f"{_root(call, audience)}/{category.id}", "interests"),
    }


def show_interest(call: ApiCall, audience: EmulatedAudience, interest: Interest) -> Json:
    """Return an interest as Mailchimp shows it: ``subscriber_count`` is a string."""
    return {
        "category_id": interest.category_id,
        "list_id": audience.id,
        "id": interest.id,
        "name": interest.name,
        "subscriber_count": str(audience.subscriber_counts().interests[interest.id]),
        "display_order": interest.display_order,
        "_links": links(f"{_root(call, audience)}/{interest.category_id}/interests/{interest.id}"),
    }


def _drop_from_members(call: ApiCall, gone: frozenset[str]) -> None:
    ctx = change_context(call)
    for member in ctx.audience.members:
        if member.interests & gone:
            with ctx.audience.members.changing(member, ctx.now):
                member.interests -= gone


def _root(call: ApiCall, audience: EmulatedAudience) -> str:
    return f"{call.state.api_root}/lists/{audience.id}/interest-categories"
