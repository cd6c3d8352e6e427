"""The compiled contracts that the package ships, and the addresses at which they stand on every chain.

A contract without constructor arguments is deployed through the deterministic deployment proxy (``CREATE2_PROXY``),
which OP Stack chains have from their first block and which anybody can put on any other chain. The address follows from
the code alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from layer2._crypto import keccak256
from layer2.addresses import EvmAddress

__all__ = [
    "CREATE2_PROXY",
    "CREATE2_PROXY_DEPLOYER",
    "CREATE2_PROXY_DEPLOYMENT",
    "CREATE2_PROXY_FUNDING_WEI",
    "CREATE2_SALT",
    "HTLC_ADDRESS",
    "HTLC_CODE_HASH",
    "TEST_TOKEN_ADDRESS",
    "Artifact",
    "create2_address",
    "encode_create2",
    "load_artifact",
]

CREATE2_PROXY = EvmAddress(raw=bytes.fromhex("4e59b44847b379578588920ca78fbf26c0b4956c"))
"""The deterministic deployment proxy, which has one address on every chain."""
CREATE2_PROXY_DEPLOYER = EvmAddress(raw=bytes.fromhex("3fab184622dc19b6109349b94811493bf2a45362"))
"""The account that nobody has the key of, and that sends ``CREATE2_PROXY_DEPLOYMENT``."""
CREATE2_PROXY_FUNDING_WEI = 10**16
"""What the deployer needs: 100,000 gas at 100 gwei."""
CREATE2_PROXY_DEPLOYMENT = bytes.fromhex(
    "f8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffffffffffffffffffffffffff"
    "ffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf31ba0"
) + b"\xa0".join((b"\x22" * 32, b"\x22" * 32))
"""A signed transaction, valid on every chain that takes transactions without a chain id: it deploys the proxy."""
CREATE2_SALT = bytes(32)
"""The salt of this package's deployments."""

HTLC_ADDRESS = EvmAddress(raw=bytes.fromhex("cf4d3b46ec8a1d88002635dfdc1a7e17a4dc0e92"))
"""Where the HTLC contract stands on every chain."""
HTLC_CODE_HASH = bytes.fromhex("6ab43152db3b1b2e747e636c6ecef6d83eb71215d7d30f5674b418fd91c32294")
"""keccak256 of the code there: the account's ``codeHash`` in the state trie."""
TEST_TOKEN_ADDRESS = EvmAddress(raw=bytes.fromhex("713e4b81e1f547e1d5678f88bab02a1b4ff95574"))
"""Where development networks have their token. Worthless: anybody can mint it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A compiled contract."""

    contract: str
    compiler: str
    abi: list[dict[str, Any]]
    """With the custom errors."""
    bytecode: bytes
    """What a deployment runs."""
    runtime_bytecode: bytes
    """What stands at the address afterwards."""


@cache
def load_artifact(name: Literal["htlc", "test_token"]) -> Artifact:
    """Read a shipped artifact."""
    text = (resources.files("layer2.evm") / "artifacts" / f"{name}.json").read_text(encoding="utf-8")
    fields = json.loads(text)
    return Artifact(
        contract=fields["contract"],
        compiler=f"{fields['compiler']['name']} {fields['compiler']['version']}",
        abi=fields["abi"],
        bytecode=bytes.fromhex(fields["bytecode"].removeprefix("0x")),
        runtime_bytecode=bytes.fromhex(fields["runtime_bytecode"].removeprefix("0x")),
    )


def create2_address(bytecode: bytes, salt: bytes = CREATE2_SALT) -> EvmAddress:
    """Where the proxy deploys ``bytecode`` (EIP-1014)."""
    return EvmAddress(raw=keccak256(b"\xff" + CREATE2_PROXY.raw + salt + keccak256(bytecode))[12:])


def encode_create2(bytecode: bytes, salt: bytes = CREATE2_SALT) -> bytes:
    """The data of the call to ``CREATE2_PROXY`` that deploys ``bytecode``. It reverts if that was done before."""
    return salt + bytecode
