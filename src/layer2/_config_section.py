"""What all sections of the settings share: a ``repr`` without secrets, and checks of type and range that name the key."""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import ip_network
from urllib.parse import urlsplit

from layer2._config_convert import hints, settle
from layer2._config_secret import is_plain_http_elsewhere, public_url
from layer2.errors import ConfigurationError

__all__ = ["Section"]


@dataclass(frozen=True, slots=True, repr=False)
class Section:
    """Base of the sections: a ``repr`` without secrets, and checks of type and range that name the key."""

    def __repr__(self) -> str:
        shown = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.metadata.get("sensitive") and value is not None:
                value = public_url(value)
            shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _types(self, section: str) -> None:
        kinds = hints(type(self))
        for item in fields(self):
            value, key = getattr(self, item.name), f"{section}.{item.name}" if section else item.name
            settled = settle(kinds[item.name], value, key, sensitive=bool(item.metadata.get("sensitive")))
            if settled is not value:
                object.__setattr__(self, item.name, settled)

    def _bounds(self, section: str, **bounds: tuple[int, int]) -> None:
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is None:
                continue
            key = f"{section}.{name}" if section else name
            if not low <= value <= high:
                raise ConfigurationError(f"{key} must be between {low} and {high}, not {value}", key=key)

    def _url(self, section: str, name: str, *schemes: str) -> None:
        value, key = getattr(self, name), f"{section}.{name}"
        if value is None:
            return
        if not str(value).startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ConfigurationError(
                f"{key} must be a URL that starts with {' or '.join(f'{s}://' for s in schemes)}", key=key
            )
        if str(value).startswith("http") and not _names_a_place(str(value)):
            raise ConfigurationError(f"{key} must name a host, and a port from 1 to 65535 if any", key=key)

    def _no_plain_http(self, section: str, name: str, danger: str, otherwise: str | None = None) -> None:
        key, url = f"{section}.{name}", getattr(self, name)
        if otherwise is None:
            otherwise = (
                "where the network between is yours alone, as between containers of one machine, "
                f"set {section}.allow_plain_http = true"
            )
        if url is not None and not getattr(self, "allow_plain_http", False) and is_plain_http_elsewhere(url):
            raise ConfigurationError(
                f"{key} is plain HTTP to another machine: anybody on the way {danger}",
                key=key,
                hint=f"use https://, or {otherwise}",
            )

    def _networks(self, section: str, name: str) -> None:
        key = f"{section}.{name}"
        for value in getattr(self, name):
            try:
                everybody = ip_network(value).prefixlen == 0
            except (TypeError, ValueError):
                raise ConfigurationError(
                    f"{key} must hold IP addresses or networks, not {value!r:.60}",
                    key=key,
                    hint='such as "10.0.0.2" or "10.0.0.0/24", with no bit set behind the prefix',
                ) from None
            if everybody:
                raise ConfigurationError(
                    f"{key} must not hold {value}: then any stranger could say whose request his is", key=key
                )


def _names_a_place(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
