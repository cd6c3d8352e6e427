"""Whom a provider believes about whose request he passes on."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from layer2.errors import ConfigurationError

__all__ = ["Proxies"]

_MAPPED: Final = int(IPv6Address("::ffff:0:0"))
"""Where a socket for both versions shows IPv4."""


class Proxies:
    """Addresses and networks of proxies; whoever connects from elsewhere speaks for himself.

    Raises:
        ConfigurationError: one of ``networks`` is neither an address nor a network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        try:
            self._networks = frozenset(_as_ipv6(ip_network(each)) for each in networks)
        except ValueError as error:
            raise ConfigurationError(
                f"no proxy can be told by that: {error}", key="provider.trusted_proxies"
            ) from error

    def __contains__(self, host: str | None) -> bool:
        try:
            single = _as_ipv6(ip_network((host or "").partition("%")[0]))
        except ValueError:
            return False
        return any(single.subnet_of(network) for network in self._networks)

    def written(self) -> list[str]:
        """All of them in each way in which a socket or a proxy may write them."""
        mapped = IPv6Network((_MAPPED, 96))
        inner = [network for network in self._networks if network.subnet_of(mapped)]
        return [
            *map(str, self._networks),
            *(f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}" for network in inner),
        ]


def _as_ipv6(network: IPv4Network | IPv6Network) -> IPv6Network:
    if isinstance(network, IPv6Network):
        return network
    return IPv6Network((_MAPPED + int(network.network_address), 96 + network.prefixlen))
