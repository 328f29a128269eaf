"""The batch result archive: what is read is what was written, and nothing hostile gets far."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.mailchimp.archive import CHUNK, ArchiveLimits, read_archive, read_in_thread, split_array, write_archive
from sync.mailchimp.errors import BadArchive
from sync.mailchimp.wire import OperationResult

SMALL = ArchiveLimits(unpacked=400_000, result=10_000, files=5, ratio=50, ratio_free=100_000)


def a_result(number: int, **more: Any) -> dict[str, Any]:
    return {"status_code": 200, "operation_id": f"sync-{number}", "response": '{"id":"x"}', **more}


def a_tar(*contents: bytes, change: Callable[[tarfile.TarInfo], None] = lambda entry: None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number, content in enumerate(contents):
            entry = tarfile.TarInfo(f"./{number}.json")
            entry.size = len(content)
            change(entry)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def read(packed: bytes, limits: ArchiveLimits = SMALL) -> list[OperationResult]:
    return list(read_archive(io.BytesIO(packed), limits=limits))


def ids(results: list[OperationResult]) -> list[str]:
    return sorted(result.operation_id or "" for result in results)


@given(st.integers(0, 60), st.integers(1, 6), st.integers())
def test_every_result_that_was_written_is_read_once(count: int, files: int, seed: int) -> None:
    packed = write_archive([a_result(number) for number in range(count)], files=files, rng=Random(seed))
    limits = ArchiveLimits()
    assert ids(read(packed, limits)) == sorted(f"sync-{number}" for number in range(count))


def test_an_archive_that_the_http_layer_has_unpacked_already_is_read_as_well() -> None:
    packed = write_archive([a_result(1)], rng=Random(1))
    assert read(gzip.decompress(packed)) == read(packed) == [OperationResult("sync-1", 200, {"id": "x"})]


def test_the_same_seed_writes_the_same_archive() -> None:
    results = [a_result(number) for number in range(9)]
    assert write_archive(results, files=3, rng=Random(4)) == write_archive(results, files=3, rng=Random(4))


def test_a_written_archive_begins_with_a_directory_and_now_and_then_holds_an_empty_file() -> None:
    sizes = []
    for seed in range(40):
        with tarfile.open(fileobj=io.BytesIO(write_archive([a_result(1)], files=2, rng=Random(seed)))) as tar:
            first, *rest = tar.getmembers()
        assert first.isdir()
        assert first.name in (".", "./")
        assert all(entry.name.startswith("./") and entry.name.endswith(".json") for entry in rest)
        sizes += [entry.size for entry in rest]
    assert 0 in sizes


def test_a_result_longer_than_any_read_is_put_together() -> None:
    long = orjson.dumps({"detail": "é" * (3 * CHUNK)}).decode()
    packed = a_tar(orjson.dumps([a_result(1, response=long), a_result(2)]))
    results = read(packed, ArchiveLimits())
    assert ids(results) == ["sync-1", "sync-2"]
    assert results[0].response == {"detail": "é" * (3 * CHUNK)}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_an_array_is_split_however_small_the_reads_are(size: int) -> None:
    stream = io.BytesIO(' [ {"a":"]},{\\"é"} ,\n{"b":[{}]} ] '.encode())
    assert list(split_array(lambda _: stream.read(size))) == [{"a": ']},{"é'}, {"b": [{}]}]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param({"response": ""}, None, id="An empty response, as of a 204, is none."),
        pytest.param({"response": "<html>"}, None, id="A response that is not JSON is none."),
        pytest.param({"response": "[1]"}, None, id="A response that is no object is none."),
        pytest.param({"response": {"id": "x"}}, {"id": "x"}, id="A response that is no string is taken as it is."),
        pytest.param({"response": None}, None, id="A null response is none."),
    ],
)
def test_how_a_response_is_read(told: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert read(a_tar(orjson.dumps([a_result(1, **told)])))[0].response == expected


ODD = [
    pytest.param(b"null", id="no object"),
    pytest.param(b"[1, {}]", id="an array"),
    pytest.param(b"-1.5e3", id="a number"),
    pytest.param(b'"{}"', id="a text"),
    pytest.param(b'{"operation_id":"odd","response":"\xff\xfe"}', id="bytes that are not UTF-8"),
    pytest.param(b'{"operation_id":"odd","response":NaN}', id="a number that is none"),
    pytest.param(b'{"operation_id":"odd","response":"a\x01\nb"}', id="control characters"),
]


@pytest.mark.parametrize("size", [1, 2, CHUNK])
@pytest.mark.parametrize("odd", ODD)
def test_one_odd_result_takes_none_of_the_others_with_it(odd: bytes, size: int) -> None:
    whole = orjson.dumps(a_result(1)), odd, orjson.dumps(a_result(2))
    stream = io.BytesIO(b"[" + b", ".join(whole) + b"]")
    found = [one["operation_id"] for one in split_array(lambda _: stream.read(size))]
    assert [one for one in found if one != "odd"] == ["sync-1", "sync-2"]


def test_an_operation_id_or_status_may_be_missing() -> None:
    packed = a_tar(b'[{"response":"{}"},{"operation_id":null,"status_code":"odd"}]')
    assert read(packed) == [OperationResult(None, 0, {}), OperationResult(None, 0, None)]


def test_numbers_of_a_result_may_be_text() -> None:
    refusal = '{"status":"404","title":"Resource Not Found"}'
    packed = a_tar(orjson.dumps([a_result(1, status_code="200"), a_result(2, status_code="404", response=refusal)]))
    assert read(packed) == [
        OperationResult("sync-1", 200, {"id": "x"}),
        OperationResult("sync-2", 404, {"status": 404, "title": "Resource Not Found"}),
    ]


@pytest.mark.parametrize("content", [b"", b"[]", b" \n", b"[ ]", b"\xef\xbb\xbf[]"])
def test_an_empty_file_holds_no_results(content: bytes) -> None:
    assert ids(read(a_tar(content, orjson.dumps([a_result(1)])))) == ["sync-1"]


def test_member_names_are_never_paths(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def climb(entry: tarfile.TarInfo) -> None:
        entry.name = "../../../../../tmp/evil.json"

    monkeypatch.chdir(tmp_path)
    assert ids(read(a_tar(orjson.dumps([a_result(1)]), change=climb))) == ["sync-1"]
    assert list(tmp_path.iterdir()) == []


def a_link(entry: tarfile.TarInfo) -> None:
    entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0


def a_device(entry: tarfile.TarInfo) -> None:
    entry.type, entry.size = tarfile.CHRTYPE, 0


def a_long_header() -> bytes:
    """A header of two megabytes, which a naive reader would hold in memory."""
    return a_tar(b"[]", change=lambda entry: setattr(entry, "pax_headers", {"comment": "x" * 2_000_000}))


def a_claim_of_size() -> bytes:
    entry = tarfile.TarInfo("./1.json")
    entry.size = 2**40
    return entry.tobuf()


def a_negative_size(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo("./1.json")
    entry.type = kind
    header = bytearray(entry.tobuf())
    header[124:136] = size.to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) * 3


GOOD = orjson.dumps([a_result(1)])
HOSTILE = [
    pytest.param(b"", id="Nothing at all is no archive."),
    pytest.param(b"<Error><Code>AccessDenied</Code></Error>", id="An error page is no archive."),
    pytest.param(gzip.compress(b"not a tar" * 200), id="Gzip of something else is no archive."),
    pytest.param(gzip.compress(a_tar(GOOD))[:-20], id="A download that broke off is noticed."),
    pytest.param(gzip.compress(a_tar(GOOD))[:-8] + b"\0" * 8, id="A wrong checksum is noticed."),
    pytest.param(b"\x1f\x8b" + b"\xff" * 50, id="Gzip's magic alone is no gzip."),
    pytest.param(a_tar(b'[{"a":1}')[:600], id="A tar that breaks off inside a file is noticed."),
    pytest.param(a_tar(b"not json"), id="A file that is not JSON is refused where it is alone."),
    pytest.param(a_tar(b'{"a":1}'), id="A file that is no array is refused where it is alone."),
    pytest.param(a_tar(b'[{"a":1}'), id="An array that breaks off is refused."),
    pytest.param(a_tar(b'[{"a":1},]'), id="An array with a trailing comma is refused."),
    pytest.param(a_tar(b'[{"a":1} {"b":2}]'), id="An array without a comma is refused."),
    pytest.param(a_tar(b'[{"a":1}]x'), id="What follows an array is refused."),
    pytest.param(a_tar(b'[{"a":' + b"[" * 9_000), id="Bottomless nesting is refused."),
    pytest.param(a_tar(b'[{"a":"' + b"x" * 20_000 + b'"}]'), id="A result past the limit is refused."),
    pytest.param(a_tar(b"", change=a_link), id="A symbolic link alone is refused."),
    pytest.param(a_tar(b"", change=a_device), id="A device alone is refused."),
    pytest.param(a_tar(*[b"[]"] * 6), id="Too many files are refused."),
    pytest.param(a_long_header(), id="A header of megabytes is refused."),
    pytest.param(a_claim_of_size(), id="A file that claims a terabyte is refused."),
    pytest.param(a_negative_size(-1), id="A file of negative size is refused."),
    pytest.param(a_negative_size(-512), id="A file of one negative block is refused."),
    pytest.param(a_negative_size(-512, tarfile.XHDTYPE), id="A header of negative size is refused."),
    pytest.param(gzip.compress(a_tar(b" " * 300_000)), id="A bomb is refused by its ratio."),
    pytest.param(a_tar(b" " * 500_000), id="More than the limit unpacked is refused."),
    pytest.param(gzip.compress(a_tar(GOOD) + b"\0" * 1_000_000), id="A bomb behind the last file is refused as well."),
]


def beside_results(content: bytes, change: Callable[[tarfile.TarInfo], None] = lambda entry: None) -> bytes:
    """An archive with an entry of somebody's tools between two files of results."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number, (data, alter) in enumerate([(GOOD, None), (content, change), (orjson.dumps([a_result(2)]), None)]):
            entry = tarfile.TarInfo(f"./{number}.json")
            entry.size = len(data)
            if alter is not None:
                alter(entry)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def an_apple_double(entry: tarfile.TarInfo) -> None:
    entry.name = "./._0.json"


FOREIGN = [
    pytest.param(beside_results(b"", a_link), id="a symbolic link"),
    pytest.param(beside_results(b"", a_device), id="a device"),
    pytest.param(
        beside_results(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(range(256)) * 600, an_apple_double),
        id="an AppleDouble file",
    ),
    pytest.param(beside_results(b'{"exported": true}'), id="an object"),
    pytest.param(beside_results(b'[{"status_code": 200, ' + b" " * 9_000), id="an array that breaks off"),
    pytest.param(
        beside_results(b"[1 2" + b" " * 200_000), id="an array without a comma, much longer than a header may be"
    ),
    pytest.param(beside_results(b'[{"a":' + b"[" * 9_000), id="bottomless nesting"),
]


@pytest.mark.parametrize("packed", FOREIGN)
def test_what_is_no_file_of_results_takes_none_of_the_results_beside_it_with_it(packed: bytes) -> None:
    assert ids(read(packed)) == ["sync-1", "sync-2"]


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(beside_results(b'[{"a":"' + b"x" * 20_000 + b'"}]'), id="a result past the limit"),
        pytest.param(beside_results(b" " * 500_000), id="more than the limit unpacked"),
        pytest.param(gzip.compress(a_tar(GOOD, *[b"junk"] * 5)), id="too many files, whatever they hold"),
        pytest.param(a_tar(GOOD)[:1024] + a_claim_of_size(), id="a file that claims a terabyte"),
    ],
)
def test_limits_hold_for_what_is_left_out_as_well(packed: bytes) -> None:
    with pytest.raises(BadArchive, match="cannot be trusted") as caught:
        read(packed)
    assert not caught.value.may_be_retried


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"<Error><Code>AccessDenied</Code></Error>", id="an error page"),
        pytest.param(gzip.compress(a_tar(GOOD))[:-20], id="a download that broke off"),
        pytest.param(gzip.compress(a_tar(GOOD))[:-8] + b"\0" * 8, id="a wrong checksum"),
        pytest.param(a_tar(GOOD)[:600], id="a tar that breaks off"),
    ],
)
def test_a_broken_archive_may_be_downloaded_again(packed: bytes) -> None:
    with pytest.raises(BadArchive, match="cannot be read") as caught:
        read(packed)
    assert caught.value.may_be_retried


@pytest.mark.parametrize("packed", HOSTILE)
def test_what_cannot_be_trusted_is_refused(packed: bytes) -> None:
    with pytest.raises(BadArchive) as caught:
        read(packed)
    assert caught.value.outcome_unknown
    assert str(caught.value).startswith("The batch result archive cannot be")


@given(st.binary(max_size=2000))
def test_any_bytes_at_all_give_results_or_a_bad_archive(packed: bytes) -> None:
    for candidate in (packed, gzip.compress(packed), a_tar(packed)):
        try:
            read(candidate)
        except BadArchive:
            continue


@given(st.integers(0, 1600), st.integers(0, 255))
def test_any_damaged_byte_gives_results_or_a_bad_archive(place: int, value: int) -> None:
    damaged = bytearray(write_archive([a_result(number) for number in range(30)], files=2, rng=Random(1)))
    damaged[place % len(damaged)] = value
    try:
        read(bytes(damaged), ArchiveLimits())
    except BadArchive:
        return


def test_results_before_the_damage_stand() -> None:
    results = read_archive(io.BytesIO(a_tar(GOOD, GOOD)[:1600]), limits=SMALL)
    assert next(results).operation_id == "sync-1"
    with pytest.raises(BadArchive):
        next(results)


async def test_a_thread_gives_the_same_results_in_chunks() -> None:
    packed = write_archive([a_result(number) for number in range(45)], files=3, rng=Random(1))
    results = [result async for result in read_in_thread(io.BytesIO(packed), chunk=10)]
    assert ids(results) == sorted(f"sync-{number}" for number in range(45))
