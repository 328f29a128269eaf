"""A page cut between members and decoded in parts is the page decoded whole, whatever stands in it."""

import gzip
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.mailchimp.decoding import LARGE_BODY, decode, read_body

TEXTS = st.text(max_size=8) | st.sampled_from(['},{"id":"', '"}]', "}]}", '{"members":[{"id":"', "\\"])
NESTED = st.lists(st.fixed_dictionaries({"id": TEXTS}) | TEXTS, max_size=3)
MEMBERS = st.lists(
    st.fixed_dictionaries({"id": TEXTS, "email_address": TEXTS}, optional={"tags": NESTED, "merge_fields": NESTED}),
    max_size=12,
)
RESTS = st.sampled_from([{}, {"total_items": 7}, {"total_items": 7, "_links": [{"rel": "self"}]}])


@given(MEMBERS, RESTS)
def test_a_page_is_the_same_however_it_is_decoded(members: list[dict[str, Any]], rest: dict[str, Any]) -> None:
    content = orjson.dumps({"members": members, **rest})
    assert decode(content, chunk=3) == orjson.loads(content)


@given(MEMBERS.filter(lambda members: len(members) > 4), st.integers(1, 60))
def test_a_page_that_breaks_off_is_none(members: list[dict[str, Any]], lost: int) -> None:
    content = orjson.dumps({"members": members, "total_items": len(members)})
    assert decode(content[:-lost], chunk=3) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"<html>", b'{"members":[{"id":"', b'{"members":[{"id":"}]'])
def test_what_is_no_object_is_none(content: bytes) -> None:
    assert decode(content, chunk=3) is None


async def test_a_large_body_is_unpacked_and_decoded_in_a_thread_and_comes_out_whole() -> None:
    page = {"members": [{"id": f"{n:032x}", "tags": [{"id": "a"}, {"id": "b"}]} for n in range(9000)], "total_items": 1}
    packed = gzip.compress(orjson.dumps(page))
    assert len(packed) > LARGE_BODY
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response, body = await read_body(httpx.Response(200, headers=headers, stream=httpx.ByteStream(packed)))
    assert body == page
    assert response.json() == page


async def test_a_body_that_cannot_be_unpacked_is_httpx_s_own_error() -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with pytest.raises(httpx.DecodingError):
        await read_body(httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"no gzip")))
