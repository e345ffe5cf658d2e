"""Host names under which the page may be asked for: a page elsewhere could have its own name lead here (DNS rebinding)."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from vitrail.app.environment import LOOPBACKS
from vitrail.core.errors import InvalidInputError

_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9_][A-Za-z0-9_.-]{0,252})(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://([^/?#@\s]+)")
_EVERY = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class AllowedHosts:
    """Names and addresses that a request may give as its host.

    Attributes:
        names: In lower case, without ports and brackets.
        addresses: Whether every IP address is allowed, too. No name is looked up for an address, so no stranger's name can lead to it.
    """

    names: frozenset[str]
    addresses: bool = False

    def allow(self, name: str) -> bool:
        """Whether a host is allowed, as `host_name` gives it."""
        return name in self.names or (self.addresses and _address(name) is not None)


def allowed_hosts(bound: str, more: Sequence[str] = ()) -> AllowedHosts:
    """The loopback's names, the address that is listened on, and further ones.

    If other machines can connect, the names of this machine are added; if the server listens on every address, all IP addresses are.

    Args:
        bound: The address that is listened on.
        more: Names or addresses, without scheme and port.

    Raises:
        InvalidInputError: One of `more` is neither a name nor an address.
    """
    names = {*LOOPBACKS, _plain(bound)} - set(_EVERY)
    for each in more:
        name = _plain(each)
        if _address(name) is None and (":" in each or host_name(each) is None):
            raise InvalidInputError(
                f"expected a host name or an IP address for --allow-host, got {each!r}; leave out the scheme and the port"
            )
        names.add(name)
    if _plain(bound) not in LOOPBACKS:
        machine = socket.gethostname().lower()
        short = machine.partition(".")[0]
        names |= {name for name in (machine, short, f"{short}.local") if short and host_name(name)}
    return AllowedHosts(frozenset(names), _plain(bound) in _EVERY)


def host_name(field: str) -> str | None:
    """Read the value of a Host header.

    Returns:
        The name or address in lower case, without port and brackets; None if the value is malformed.
    """
    if not (found := _HOST.fullmatch(field)) or int((found[2] or ":0")[1:]) > 65_535:
        return None
    name = _plain(found[1])
    return None if found[1].startswith("[") and _address(name) is None else name


def origin_host(field: str) -> str | None:
    """The value that Host has for an Origin header: name and port; None if the origin is malformed or no web page's."""
    found = _ORIGIN.fullmatch(field)
    return None if found is None or host_name(found[1]) is None else found[1].lower()


def _plain(name: str) -> str:
    bare = name.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    return _address(bare) or bare


def _address(name: str) -> str | None:
    try:
        return str(ip_address(name))
    except ValueError:
        return None
