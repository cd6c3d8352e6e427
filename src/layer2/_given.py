"""What a manager is given besides its settings, checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping

from layer2._inputs import kind_of
from layer2.errors import ValidationError
from layer2.protocol import Layer2ProtocolAsync
from layer2.transactions import check_layer

__all__ = ["check_parts", "layers_by_name"]

_METHODS = {
    "signer": ("sign_digest", "derive_secret"),
    "clock": ("now_ms", "monotonic_s", "sleep"),
    "metrics_registry": ("register", "unregister"),
}


def check_parts(**parts: object) -> None:
    """Refuse a signer, a clock or a registry of metrics that has not the methods of one; None is fine.

    Raises:
        ValidationError: with the argument's name in ``field``.
    """
    for name, part in parts.items():
        missing = [method for method in _METHODS[name] if not callable(getattr(part, method, None))]
        if part is not None and missing:
            raise ValidationError(f"{name} cannot be {kind_of(part)}: it has no {', '.join(missing)}", field=name)


def layers_by_name(protocols: object) -> dict[str, Layer2ProtocolAsync]:
    """The layers that the caller made, by their names.

    Raises:
        ValidationError: it is no mapping, a name is none, or what stands under it is no layer.
    """
    if protocols is None:
        return {}
    if not isinstance(protocols, Mapping):
        raise ValidationError(f"protocols maps names to layers; it cannot be {kind_of(protocols)}", field="protocols")
    found: dict[str, Layer2ProtocolAsync] = {}
    for name, protocol in protocols.items():
        check_layer(name, "protocols")
        if not isinstance(protocol, Layer2ProtocolAsync):
            raise ValidationError(
                f"the layer {name} is a Layer2ProtocolAsync, not {kind_of(protocol)}", field="protocols"
            )
        found[str(name)] = protocol
    return found
