"""The reference says all that is declared, and nothing that is not; samples are quoted by their language's rules."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner

from civiapi.api.declaration.fields import BOOLEAN, INT, TEXT, Field, FixedOptions, OptionGroup
from civiapi.api.declaration.reference import EntityPage, Parameter, as_data, make_reference
from civiapi.api.declaration.spec import Action, Entity, Registry, Result
from civiapi.api.parameters.params import fields_of
from civiapi.cli.main import cli
from civiapi.ui.explorer.export import write_reference
from civiapi.ui.explorer.samples import curl, jsonrpc, php_literal, python, rest, samples, without_secrets
from entities import catalogue
from entities.actions.generic import GENERIC

KEY = "0123456789abcdef0123456789abcdef-us7"


def run(conn: Any, request: Any) -> Result:
    """Does ``something`` to
    two lines.

    Not told: this.
    """
    return Result(1)


TREE = Entity(
    "BigTree",
    title="Tree",
    description="It grows.",
    fields=(
        Field("id", INT, title="Tree ID"),
        Field("kind", INT, options=FixedOptions.of("Oak", "Elm"), required_by={"create"}, unique_name="tree_kind"),
        Field("group", options=OptionGroup("tree_group"), multiple=True, aliases=("groups",)),
        Field("is_tall", BOOLEAN, default=0, default_by={"create": 1}),
        Field("wood_id", INT, fk="Wood", description="Where it stands."),
        Field("note", TEXT, max_length=9),
    ),
    actions=(
        Action("get", run=run),
        Action("create", run=run, writes=True),
        Action("delete", run=run, writes=True, params=(Field("id", INT, required_by={"delete"}),)),
        Action("shake", run=run, params=()),
    ),
    permissions={"get": ("see trees", ("walk", "climb")), "update": ("change trees",)},
)


@pytest.fixture(scope="module")
def tree() -> EntityPage:
    return make_reference(Registry([TREE], GENERIC))[0]


def parameter(page: EntityPage, action: str, name: str) -> Parameter:
    found = page.find_action(action)
    assert found is not None
    return next(one for one in found.parameters if one.name == name)


@pytest.mark.parametrize(
    ("action", "name", "fact", "expected"),
    [
        pytest.param("create", "kind", "required", True, id="What create demands is required there"),
        pytest.param("get", "kind", "required", False, id="A filter is never required for that"),
        pytest.param("update", "id", "required", True, id="An update says what it changes"),
        pytest.param("getsingle", "kind", "passed_on", True, id="getsingle takes what get takes"),
        pytest.param("replace", "kind", "passed_on", True, id="replace takes what create takes"),
        pytest.param("getvalue", "return", "required", True, id="getvalue says which value"),
        pytest.param("setvalue", "value", "required", True, id="setvalue says which value it becomes"),
        pytest.param("create", "is_tall", "default", 1, id="What the API puts in goes before what the database does"),
        pytest.param("get", "is_tall", "default", None, id="A filter has no default"),
        pytest.param("create", "id", "aliases", ("big_tree_id",), id="An id goes by the entity's name too"),
        pytest.param("create", "kind", "aliases", ("tree_kind",), id="A unique name is an alias"),
        pytest.param("create", "group", "aliases", ("groups",), id="Aliases are told"),
        pytest.param("create", "group", "several", True, id="A field of several values says so"),
        pytest.param("create", "group", "choices_from", "option group tree_group", id="A site's list is named"),
        pytest.param("create", "wood_id", "refers_to", "Wood", id="A reference names its entity"),
        pytest.param("create", "wood_id", "description", "Where it stands.", id="Descriptions are told"),
        pytest.param("create", "note", "max_length", 9, id="Lengths are told"),
        pytest.param("create", "note", "type", "long text", id="Types are words"),
        pytest.param("create", "id", "title", "Tree ID", id="Titles are told"),
    ],
)
def test_a_parameter_tells(tree: EntityPage, action: str, name: str, fact: str, expected: object) -> None:
    assert getattr(parameter(tree, action, name), fact) == expected


def test_a_fixed_list_is_told_whole(tree: EntityPage) -> None:
    choices = parameter(tree, "create", "kind").choices
    assert [(one.value, one.label) for one in choices] == [("0", "Oak"), ("1", "Elm")]


@pytest.mark.parametrize(
    ("action", "permission", "changes"),
    [
        ("get", ("see trees", "walk or climb"), False),
        ("getsingle", ("see trees", "walk or climb"), False),
        ("getcount", ("see trees", "walk or climb"), False),
        ("create", ("administer CiviCRM",), True),
        ("update", ("change trees",), True),
        ("setvalue", ("change trees",), True),
        ("delete", ("administer CiviCRM",), True),
        ("shake", ("administer CiviCRM",), False),
    ],
)
def test_an_action_tells_who_may_and_whether_it_changes_data(
    tree: EntityPage, action: str, permission: tuple[str, ...], changes: bool
) -> None:
    page = tree.find_action(action)
    assert page is not None
    assert (page.permission, page.changes) == (permission, changes)


def test_an_action_without_words_of_its_own_is_told_by_its_docstring(tree: EntityPage) -> None:
    page = tree.find_action("shake")
    assert page is not None
    assert page.description == "Does something to two lines."


# ---- the catalogue, whole ----


def test_every_declared_entity_action_and_parameter_appears() -> None:
    registry = catalogue()
    pages = {page.name: page for page in make_reference(registry)}
    for entity in registry.entities():
        for name, action in registry.actions(entity).items():
            page = pages[entity.name].find_action(name)
            assert page is not None
            told = {one.name for one in page.parameters}
            assert told >= {field.name for field in fields_of(entity, action)}
            assert page.description or page.title, f"{entity.name}.{name} says nothing of itself"


def test_what_cannot_be_left_out_is_told_of_every_action() -> None:
    registry = catalogue()
    for page in make_reference(registry):
        entity = registry.find_entity(page.name)
        assert entity is not None
        for action in page.actions:
            declared = {
                f.name for f in fields_of(entity, registry.actions(entity)[action.name]) if action.name in f.required_by
            }
            assert declared <= {one.name for one in action.parameters if one.required}


def test_the_reference_is_plain_json() -> None:
    data = as_data(make_reference(catalogue()))
    assert json.loads(json.dumps(data))[0]["name"] == data[0]["name"]


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_written_reference_is_whole_and_needs_no_server(tmp_path: Path) -> None:
    registry = catalogue()
    written = write_reference(registry, tmp_path / "new" / "folder")
    assert {path.name for path in written} >= {"index.html", "reference.json", "ui.css", "Email.html"}
    for path in written:
        if path.suffix != ".html":
            continue
        links = Links()
        links.feed(path.read_text("utf-8"))
        for link in links.found:
            assert link.startswith("#") or (path.parent / link).exists(), f"{path.name} links {link}"
    text = (tmp_path / "new" / "folder" / "Email.html").read_text("utf-8")
    email = registry.find_entity("Email")
    assert email is not None
    assert all(f'id="{name}"' in text for name in registry.actions(email))


def test_the_docs_command_writes_it_and_says_where(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["docs", "--out", str(tmp_path / "out")])
    assert (done.exit_code, f"start with {tmp_path / 'out' / 'index.html'}" in done.output) == (0, True)
    assert (tmp_path / "out" / "Contact.html").exists()


def test_the_docs_command_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = CliRunner().invoke(cli, ["docs", "--out", str(tmp_path / "file" / "out")])
    assert (done.exit_code, "cannot be written" in done.output) == (1, True)


# ---- samples ----

HARD: dict[str, Any] = {
    "email": {"LIKE": "o'brien%"},
    "quotes": "\"double\" 'single' `back` $HOME $(id) \\ \\' \\\\",
    "lines": "one\ntwo\ttabbed",
    "words": "Zoë & Søn <b>#?=+%41</b> 💚",
    "list": [1, 2.5, True, False, None, "x", [], {}],
    "map": {"0": "a", "1": "b"},
    "option.limit": 3,
    "api.Email.get": {"id": "$value.id"},
}


def test_the_shell_reads_what_was_meant() -> None:
    command = curl("https://crm.example.org", "Contact", "get", HARD)
    script = f"curl() {{ for word; do printf '%s\\0' \"$word\"; done; }}\n{command}\n"
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    words = printed.split("\0")
    assert words[:2] == ["https://crm.example.org/civicrm/ajax/rest", "--header"]
    sent = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    assert (sent["entity"], sent["action"]) == ("Contact", "get")
    assert json.loads(sent["json"]) == HARD


def test_the_python_sample_runs_and_sends_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text(
        "import json\n"
        "class Answer:\n"
        "    def __init__(self, data): self.data = data\n"
        "    def json(self): return json.dumps(self.data)\n"
        "def post(url, headers, data): return Answer([url, data])\n"
    )
    script = tmp_path / "sample.py"
    script.write_text(python("https://crm.example.org", "Contact", "get", HARD), "utf-8")
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    url, data = json.loads(printed)
    assert url == "https://crm.example.org/civicrm/ajax/rest"
    assert json.loads(data["json"]) == HARD


def test_the_json_rpc_sample_is_a_request() -> None:
    head, _, body = jsonrpc("https://crm.example.org", "Contact", "get", HARD).partition("\n\n")
    assert head.splitlines()[:2] == ["POST /civicrm/jsonrpc HTTP/1.1", "Host: crm.example.org"]
    assert json.loads(body) == {"jsonrpc": "2.0", "method": "Contact.get", "params": HARD, "id": 1}


@pytest.mark.parametrize(("action", "method"), [("get", "GET"), ("getcount", "GET"), ("create", "POST")])
def test_the_rest_sample_reads_by_get_and_changes_by_post(action: str, method: str) -> None:
    text = rest("https://crm.example.org", "Contact", action, HARD)
    assert text.startswith(f"{method} ")
    form = text.split("?", 1)[1].split(" HTTP")[0] if method == "GET" else text.split("\n\n", 1)[1]
    assert json.loads(parse_qs(form)["json"][0]) == HARD


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("it's", r"'it\'s'"),
        ("a\\", r"'a\\'"),
        ('$x {$y} "z"', "'$x {$y} \"z\"'"),
        (r"\'", r"'\\\''"),
        ("a\nb", "'a\nb'"),
        (True, "TRUE"),
        (None, "NULL"),
        (2.5, "2.5"),
        ([], "[]"),
        ({}, "new stdClass()"),
        ([1, "a"], "[\n  1,\n  'a',\n]"),
        ({"a": {"b": 1}}, "[\n  'a' => [\n    'b' => 1,\n  ],\n]"),
        ({"0": "x"}, "(object) [\n  '0' => 'x',\n]"),
    ],
)
def test_php_reads_what_was_meant(value: object, expected: str) -> None:
    assert php_literal(value) == expected


@pytest.mark.parametrize(
    "params",
    [
        {"api_key": "s3cret-s3cret"},
        {"key": "s3cret-s3cret"},
        {"values": [{"api_key": "s3cret-s3cret"}]},
        {"api.Contact.create": {"api_key": "s3cret-s3cret"}},
        {"config": json.dumps({"accounts": {KEY: {"apiKey": KEY, "batchWebhookSecret": "s3cret-s3cret"}}})},
        {"note": f"the key is {KEY}."},
        {KEY: 1},
    ],
)
def test_no_sample_tells_a_secret(params: dict[str, Any]) -> None:
    for sample in samples("https://crm.example.org", "Mailchimpsync", "updateconfig", params):
        assert "s3cret" not in sample.text
        assert KEY not in sample.text


def test_what_is_no_secret_is_left_as_it_is() -> None:
    assert without_secrets(HARD) == HARD
