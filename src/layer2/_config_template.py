"""Settings as TOML text: a commented start for ``layer2 init``, and what is in force."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layer2._config_secret import Secret
from layer2.addresses import EvmAddress

if TYPE_CHECKING:
    from layer2.config import Layer2Config

__all__ = ["template", "to_toml"]


def to_toml(config: Layer2Config) -> str:
    """See ``Layer2Config.to_toml``."""
    lines: list[str] = []
    _write_section(config, "", lines)
    return "\n".join(lines).strip() + "\n"


def _write_section(section: Any, name: str, lines: list[str]) -> None:
    nested: list[tuple[str, Any]] = []
    if name:
        lines += ["", f"[{name}]"]
    for item in fields(section):
        value = getattr(section, item.name)
        if value is None:
            continue
        if is_dataclass(value) and not isinstance(value, EvmAddress):
            nested.append((item.name, value))
        elif isinstance(value, Mapping) and any(is_dataclass(entry) for entry in value.values()):
            nested += [(f"{item.name}.{_key(key)}", entry) for key, entry in value.items()]
        elif isinstance(value, Mapping) and not value:
            continue
        elif isinstance(value, Secret) and value.origin is None:
            lines.append(f"# {item.name} was given directly and is not shown")
        else:
            lines.append(f"{item.name} = {_value(value)}")
    for key, value in nested:
        _write_section(value, f"{name}.{key}" if name else key, lines)


def _key(name: str) -> str:
    bare = name.isascii() and all(c.isalnum() or c in "-_" for c in name)
    return name if bare and name else json.dumps(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Secret(origin=(where, what)):
            return f"{{ {where} = {json.dumps(what)} }}"
        case str() | Path() | EvmAddress():
            return json.dumps(str(value), ensure_ascii=False)
        case Mapping():
            return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
        case tuple():
            return "[" + ", ".join(_value(item) for item in value) + "]"
        case _:
            pairs = ((item.name, getattr(value, item.name)) for item in fields(value))
            return "{ " + ", ".join(f"{name} = {_value(item)}" for name, item in pairs if item is not None) + " }"


def template(
    *,
    network: str = "bob",
    rpc_url: str | None = None,
    rest_url: str | None = "https://127.0.0.1:8080",
    macaroon_file: str = "~/.lnd/data/chain/bitcoin/mainnet/admin.macaroon",
    tls_cert: str = "~/.lnd/tls.cert",
    provider_url: str | None = None,
    keystore: str | None = "keystore.json",
    provider: bool = False,
) -> str:
    """A commented settings file to start from. Whatever is None stands in it as a comment."""

    def line(key: str, value: str | None, example: str = "") -> str:
        return f"# {key} = {json.dumps(example)}" if value is None else f"{key} = {json.dumps(value)}"

    def hide(table: str, *, hidden: bool) -> str:
        return "\n".join(f"# {row}" if row and hidden else row for row in table.splitlines())

    lightning = f"""[lightning]
rest_url = {json.dumps(rest_url or "https://127.0.0.1:8080")}
macaroon = {{ file = {json.dumps(macaroon_file)} }}
tls_cert = {json.dumps(tls_cert)}"""
    signer = f"""[signer]
keystore = {json.dumps(keystore or "keystore.json")}
password = {{ env = "LAYER2_PASSWORD" }}"""
    daemon = """[provider]
listen_host = "127.0.0.1"
listen_port = 8787
# Fee: parts of 1/100 % of the amount, plus satoshi.
fee_basis_points = 50
fee_base = 200"""
    return f"""# Settings of layer2. Every key can be overridden by a variable such as LAYER2_BOB__RPC_URL.
# bob is the real network; bob-sepolia, devnet and embedded are for trying out.
network = {json.dumps(network)}

[bob]
chain = {json.dumps("devnet" if network == "embedded" else network)}
{line("rpc_url", rpc_url, "https://...")}

# Without this section there is no Lightning node of your own; invoices can still be paid from BOB.
{hide(lightning, hidden=rest_url is None)}

[swap]
{line("provider_url", provider_url, "https://...")}
# The provider's account on BOB: no other is taken.
{line("provider_address", None, "0x...")}

# The account that locks, claims and refunds. It needs some ETH for gas. `layer2 keystore new` makes the file.
{hide(signer, hidden=keystore is None)}

# Only for `layer2 provider serve`.
{hide(daemon, hidden=not provider)}
"""
