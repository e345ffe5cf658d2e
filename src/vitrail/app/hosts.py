"""Host names that the server accepts; others are refused, since a foreign page could point its own name here (DNS rebinding)."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from vitrail.app.environment import LOOPBACKS
from vitrail.core.errors import InvalidInputError

_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_][A-Za-z0-9_.-]{0,252})(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://([^/?#@\s]+)")
_ALL_ADDRESSES = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class AllowedHosts:
    """Names and addresses that a request may have as its host.

    Attributes:
        names: Lower case, without ports and brackets.
        addresses: Whether all IP addresses are allowed, too. That is safe: browsers look up no name for an address.
    """

    names: frozenset[str]
    addresses: bool = False

    def allow(self, name: str) -> bool:
        """Return whether a host is allowed, given as `parse_host` returns it."""
        return name in self.names or (self.addresses and _parse_address(name) is not None)


def list_allowed_hosts(address: str, additional: Sequence[str] = ()) -> AllowedHosts:
    """Return the names of the loopback, the address of the server, and additional hosts.

    If other machines can connect, the names of this machine are added; if the server listens on all addresses, all IP addresses are.

    Args:
        address: The address that the server listens on.
        additional: Names or addresses, without scheme and port.

    Raises:
        InvalidInputError: One of `additional` is neither a name nor an address.
    """
    names = {*LOOPBACKS, _normalize(address)} - set(_ALL_ADDRESSES)
    for host in additional:
        name = _normalize(host)
        if _parse_address(name) is None and (":" in host or parse_host(host) is None):
            raise InvalidInputError(
                f"expected a host name or an IP address for --allow-host, got {host!r}; leave out the scheme and the port"
            )
        names.add(name)
    if _normalize(address) not in LOOPBACKS:
        machine = socket.gethostname().lower()
        short = machine.partition(".")[0]
        names |= {name for name in (machine, short, f"{short}.local") if short and parse_host(name)}
    return AllowedHosts(frozenset(names), _normalize(address) in _ALL_ADDRESSES)


def parse_host(field: str) -> str | None:
    """Parse the value of a Host header.

    Returns:
        The name or address in lower case, without port and brackets; None if the value is malformed.
    """
    if not (match := _HOST.fullmatch(field)) or int((match[2] or ":0")[1:]) > 65_535:
        return None
    name = _normalize(match[1])
    return None if match[1].startswith("[") and _parse_address(name) is None else name


def parse_origin(field: str) -> str | None:
    """Parse the value of an Origin header.

    Returns:
        Name and port, as the Host header has them; None if the origin is malformed or not that of a web page.
    """
    match = _ORIGIN.fullmatch(field)
    return None if match is None or parse_host(match[1]) is None else match[1].lower()


def _normalize(name: str) -> str:
    bare = name.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    return _parse_address(bare) or bare


def _parse_address(name: str) -> str | None:
    try:
        return str(ip_address(name))
    except ValueError:
        return None
