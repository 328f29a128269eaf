"""Blobs of the extension's tables: what it wrote is read, what we write it can read, nothing breaks on rubbish."""

import json
from pathlib import Path
from typing import Any

import phpserialize
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.store.members.blobs import data_as_json, dump_data, json_as_data, load_data

REAL_ROWS = Path(__file__).parents[4] / "shared" / "data" / "extension_rows.json"

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]))
)
maps = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda k: k != "interests"), scalars
)


@given(maps)
def test_what_is_written_is_read_again(data: dict[str, Any]) -> None:
    assert load_data(dump_data(data)) == data


def test_the_nested_interests_of_2020_become_flat() -> None:
    blob = phpserialize.dumps({"first_name": "Zoë", "interests": {"a1": True, "b2": False}})
    assert load_data(blob) == {"first_name": "Zoë", "interest-a1": True, "interest-b2": False}


def test_a_flat_interest_beside_the_nested_one_is_the_later_word() -> None:
    blob = phpserialize.dumps({"interest-a1": False, "interests": {"a1": True}})
    assert load_data(blob) == {"interest-a1": False}


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(None, id="Nothing is nothing."),
        pytest.param(b"", id="So is an empty blob."),
        pytest.param(b"rubbish", id="Text that PHP never wrote."),
        pytest.param(b'a:1:{s:3:"abc', id="A blob cut short."),
        pytest.param(b"a:999999999:{", id="A map that promises a thousand million entries."),
        pytest.param(b's:5:"hello";', id="A text where a map should be."),
        pytest.param(b"i:12;", id="A number where a map should be."),
        pytest.param(b'O:8:"stdClass":1:{s:1:"a";i:1;}', id="A PHP object is not let in."),
        pytest.param(b'a:1:{s:1:"a";O:8:"stdClass":0:{}}', id="Nor one inside a map."),
        pytest.param(b"a:1:{i:0;" * 5000 + b"}" * 5000, id="Maps nested without end."),
        pytest.param(b"a:1:{a:0:{}i:1;}", id="A map as a key."),
        pytest.param(b"i:" + b"9" * 5000 + b";", id="A number of five thousand digits."),
        pytest.param(b"\xff\xfe\x00\x00", id="Bytes of another kind."),
    ],
)
def test_what_cannot_be_read_counts_as_empty(blob: bytes | None) -> None:
    assert load_data(blob) == {}
    assert data_as_json(blob) in ("", "[]")


def test_text_that_is_not_utf8_is_read_and_can_be_shown() -> None:
    assert json.loads(data_as_json(b'a:1:{s:4:"name";s:3:"J\xf6\xff";}')) == {"name": "J��"}


def test_a_map_counted_from_zero_is_shown_as_a_list() -> None:
    assert data_as_json(phpserialize.dumps({"tags": {0: "a", 1: "b"}})) == '{"tags":["a","b"]}'


def test_json_text_becomes_a_blob_and_back() -> None:
    assert json.loads(data_as_json(json_as_data('{"tags":{"A":true}}'))) == {"tags": {"A": True}}


@pytest.mark.parametrize("text", ["", "[1]", "3", "{bad"])
def test_only_a_json_map_becomes_a_blob(text: str) -> None:
    with pytest.raises(ValueError, match=r"map|expected|empty"):
        json_as_data(text)


@pytest.mark.skipif(not REAL_ROWS.exists(), reason="the real extension's rows lie beside the project only")
def test_rows_of_the_real_extension_are_read() -> None:
    rows = json.loads(REAL_ROWS.read_text())["civicrm_mailchimpsync_cache"]
    data = [load_data(row["mailchimp_data"].encode()) for row in rows if row["mailchimp_data"]]
    assert data[0] == {"first_name": "Zoë", "last_name": "O'Neil", "interest-aaaa000001": True}
    assert all("interests" not in one for one in data)
