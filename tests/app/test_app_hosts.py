"""Host names that the server accepts."""

import socket

import pytest

from vitrail.app.hosts import list_allowed_hosts, parse_host
from vitrail.core.errors import InvalidInputError


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:7860", "localhost"),
        ("localhost.", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:7860", "::1"),
        ("[0:0::1]", "::1"),
        ("my_host-2.example", "my_host-2.example"),
        ("", None),
        ("::1", None),
        ("[::1", None),
        ("[127.0.0.1:80", None),
        ("[zz]", None),
        ("a b", None),
        ("a:b", None),
        ("a:65536", None),
        ("http://a", None),
        ("a@b", None),
        ("a,b", None),
        ("x" * 300, None),
        ("a\n", None),
    ],
)
def test_hosts_are_parsed(field, name):
    assert parse_host(field) == name


def test_loopback_accepts_only_its_own_names():
    hosts = list_allowed_hosts("127.0.0.1")
    assert all(map(hosts.allow, ("127.0.0.1", "localhost", "::1")))
    assert not any(map(hosts.allow, ("0.0.0.0", "192.168.1.5", "evil.example", socket.gethostname().lower(), "")))


@pytest.mark.parametrize("bound", ["192.168.1.5", "[fe80::1]", "vitrail.lan"])
def test_address_of_the_server_is_allowed(bound):
    hosts = list_allowed_hosts(bound)
    assert hosts.allow(parse_host(bound))
    assert not hosts.allow("192.168.1.6")
    assert not hosts.allow("evil.example")


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "[::]"])
def test_all_addresses_and_machine_names_are_allowed_on_every_interface(bound, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk7.lan")
    hosts = list_allowed_hosts(bound)
    assert all(map(hosts.allow, ("desk7", "desk7.lan", "desk7.local", "192.168.1.5", "fe80::1", "localhost")))
    assert not any(map(hosts.allow, ("evil.example", "192.168.1.5.nip.io", "desk7.evil.example")))


@pytest.mark.parametrize(
    ("more", "name"), [("Vitrail.Example", "vitrail.example"), ("[fd00::1]", "fd00::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_additional_names_are_allowed(more, name):
    assert list_allowed_hosts("127.0.0.1", ["other.example", more]).allow(name)


@pytest.mark.parametrize("more", ["", "http://a", "a:80", "a/b", "*", "*.example", "a b", "[x]"])
def test_malformed_names_are_refused(more):
    with pytest.raises(InvalidInputError, match="expected a host name or an IP address for --allow-host"):
        list_allowed_hosts("127.0.0.1", [more])
