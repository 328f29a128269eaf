"""Whose address a request has, by what proxies say of it and what callers say themselves."""

import pytest

from civiapi.http.proxies import Proxies, Route

PROXIES = Proxies(("10.0.0.0/8", "127.0.0.1", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("remote", "lines", "address"),
    [
        pytest.param("203.0.113.9", [], "203.0.113.9", id="Nobody is between."),
        pytest.param("203.0.113.9", ["198.51.100.7"], "203.0.113.9", id="A caller says that it is someone else."),
        pytest.param("10.0.0.1", ["198.51.100.7"], "198.51.100.7", id="A proxy says from whom it got the request."),
        pytest.param("10.0.0.1", ["1.2.3.4, 198.51.100.7"], "198.51.100.7", id="It appends to what the caller sent."),
        pytest.param("10.0.0.1", ["1.2.3.4", "198.51.100.7"], "198.51.100.7", id="In a line of its own, as HAProxy."),
        pytest.param("10.0.0.1", ["127.0.0.1", "198.51.100.7"], "198.51.100.7", id="The caller names our address."),
        pytest.param("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7", id="Two proxies in one line."),
        pytest.param("10.0.0.1", ["198.51.100.7", "10.0.0.2"], "198.51.100.7", id="Two proxies in a line each."),
        pytest.param(
            "10.0.0.1", ["127.0.0.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7", id="The first stranger ends it"
        ),
        pytest.param("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7", id="With a port."),
        pytest.param("10.0.0.1", ["[2001:db9::7]:4711"], "2001:db9::7", id="IPv6 with a port."),
        pytest.param("10.0.0.1", ["[2001:db9::7]"], "2001:db9::7", id="IPv6 in brackets."),
        pytest.param("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7", id="IPv4 written as IPv6."),
        pytest.param("2001:db8::1", ["198.51.100.7"], "198.51.100.7", id="A proxy with an IPv6 address."),
        pytest.param("10.0.0.1", ["127.0.0.1"], "127.0.0.1", id="A proxy itself calls through another."),
        pytest.param("", ["198.51.100.7"], "", id="No address at all."),
    ],
)
def test_the_caller_is_the_first_address_from_the_right_that_is_no_trusted_proxy(
    remote: str, lines: list[str], address: str
) -> None:
    assert PROXIES.route(remote, lines) == Route(address)


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["unknown"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["198.51.100.7,"], "10.0.0.1"),
        (["198.51.100.7", "_hidden"], "10.0.0.1"),
        (["198.51.100.7, 999.1.1.1, 10.0.0.2"], "10.0.0.2"),
        (["198.51.100.7, 10.0.0.2:x"], "10.0.0.1"),
        (["for=198.51.100.7"], "10.0.0.1"),
        (["127.0.0.1\t198.51.100.7"], "10.0.0.1"),
        (["1" * 100_000], "10.0.0.1"),
    ],
)
def test_an_entry_that_is_no_address_ends_the_walk_at_the_proxy_that_sent_it(lines: list[str], address: str) -> None:
    assert PROXIES.route("10.0.0.1", lines) == Route(address, is_whole=False)


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert Proxies(()).route("127.0.0.1", ["198.51.100.7"]) == Route("127.0.0.1")
