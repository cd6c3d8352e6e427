"""What all sections of the settings share: a ``repr`` without secrets, and checks that name the key."""

from __future__ import annotations

from dataclasses import fields

from layer2._config_secret import public_url
from layer2.errors import ConfigurationError

__all__ = ["Section"]


class Section:
    """Base of the sections: a ``repr`` without secrets, and range checks that name the key."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for item in fields(self):  # type: ignore[arg-type]  # every section is a dataclass
            value = getattr(self, item.name)
            if item.metadata.get("sensitive") and value is not None:
                value = public_url(value)
            shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _bounds(self, section: str, **bounds: tuple[int, int]) -> None:
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is None:
                continue
            key = f"{section}.{name}" if section else name
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigurationError(f"{key} must be a whole number, not {value!r:.40}", key=key)
            if not low <= value <= high:
                raise ConfigurationError(f"{key} must be between {low} and {high}, not {value}", key=key)

    def _url(self, section: str, name: str, *schemes: str) -> None:
        value = getattr(self, name)
        if value is not None and not str(value).startswith(tuple(f"{scheme}://" for scheme in schemes)):
            key = f"{section}.{name}"
            raise ConfigurationError(
                f"{key} must be a URL that starts with {' or '.join(f'{s}://' for s in schemes)}", key=key
            )
