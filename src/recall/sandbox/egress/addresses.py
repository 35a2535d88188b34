"""Names to addresses, and which addresses a name may stand for. It opens no connection.

A tool that controls a name's records could point it at this machine, at its neighbours or at the cloud's metadata
service. So an address is judged after it was resolved, and the connection is made to the address that was judged.
"""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal, Protocol

AddressKind = Literal["public", "loopback", "private", "never"]
"""`never`: no name may stand for it, whatever the rule says: only a rule that spells out the address reaches it."""

_LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
# Metadata services that lie in ranges otherwise public or private.
_METADATA = frozenset(
    map(
        ip_address,
        ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::253", "fd20:ce::254"),
    )
)
# Beside what `is_global` denies: its tables differ between versions of Python, and it takes some tunnels for global.
_NEVER = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            # Addresses that hold an IPv4 address: compatible, mapped, translated, Teredo, 6to4.
            *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"),
            *("2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32", "3fff::/20", "5f00::/16"),
        ),
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_ASSIGNED = ip_network("2000::/3")
"""All of IPv6 that was ever given out for use across the Internet."""


def kind_of(address: IPv4Address | IPv6Address) -> AddressKind:
    """What sort of address a name was resolved to.

    The address of a NAT64 gateway is as good as the IPv4 address within it; those of all other ways to wrap an IPv4
    address are `never`.
    """
    if address in _NAT64:
        return kind_of(IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _METADATA or (isinstance(address, IPv6Address) and address.scope_id is not None):
        return "never"
    for kind, networks in (("loopback", _LOOPBACK), ("private", _PRIVATE), ("never", _NEVER)):
        if any(address in network for network in networks):
            return kind  # type: ignore[return-value]
    return "public" if address.is_global and (address.version == 4 or address in _ASSIGNED) else "never"


class Resolver(Protocol):
    """Finds the addresses of a name."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses of `host`, best first.

        Raises:
            OSError: there are none, or they cannot be had.
        """


class SystemResolver:
    """Asks this machine's resolver."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses of `host`, in the system's order."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]


class ScriptedResolver:
    """Answers from a table and notes what it was asked; for tests."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {host: list(turns) for host, turns in answers.items()}
        self.asked: list[str] = []
        """The names, in the order asked."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The next answer for `host`; its last one is repeated."""
        self.asked.append(host)
        turns = self._answers.get(host)
        if not turns:
            raise socket.gaierror(socket.EAI_NONAME, "no such name in the script")
        return turns.pop(0) if len(turns) > 1 else turns[0]
