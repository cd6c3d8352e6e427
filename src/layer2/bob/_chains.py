"""Constants of the chains that ship with the package. Any other OP-Stack chain is a ``ChainPreset`` of the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from layer2.addresses import EvmAddress

__all__ = ["BOB_MAINNET", "BOB_SEPOLIA", "DEVNET", "ChainPreset"]


def _address(text: str) -> EvmAddress:
    return EvmAddress.parse(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPreset:
    """An EVM chain as this package sees it. Times are seconds."""

    name: str
    chain_id: int
    """EIP-155."""
    op_stack: bool = True
    """Whether the OP Stack's predeploys are looked for: L1 and operator fees."""
    block_time_s: int = 2
    safe_lag_s: int = 3_600
    """Longest usual time from inclusion to the safe head."""
    finality_lag_s: int = 4_500
    """Longest usual time from inclusion to the finalized head."""
    btc_token: EvmAddress | None = None
    """The ERC-20 that BTC is here, with 8 decimals."""
    rpc_url: str | None = None
    """A public endpoint."""
    fork_times: Mapping[str, int] = field(default_factory=dict)
    """Unix seconds at which the OP Stack's upgrades begin, by name in lower case; 0: since genesis."""
    poll_interval_s: float = 1.0
    """How often the head is looked at."""
    heads_max_age_s: float = 30.0
    """How old the safe and finalized heads may be."""
    max_unconfirmed_per_key: int = 16
    """Transactions of one key ahead of its last included one."""

    def fork_active(self, name: str, timestamp: int) -> bool:
        """Whether an upgrade is in force in a block with this timestamp. One that is not listed is not."""
        begins = self.fork_times.get(name)
        return begins is not None and timestamp >= begins

    def with_forks(self, **fork_times: int) -> ChainPreset:
        """The same chain with other times for the named upgrades."""
        return replace(self, fork_times=MappingProxyType({**self.fork_times, **fork_times}))


BOB_MAINNET: Final = ChainPreset(
    name="bob",
    chain_id=60808,
    btc_token=_address("0x0555E30da8f98308EdB960aa94C0Db47230d2B9c"),
    rpc_url="https://rpc.gobob.xyz/",
    fork_times=MappingProxyType(
        {
            "canyon": 0,
            "delta": 0,
            "ecotone": 0,
            "fjord": 1_720_627_201,
            "granite": 1_726_070_401,
            "holocene": 1_736_445_601,
            "isthmus": 1_746_806_401,
            "jovian": 1_773_325_801,
        }
    ),
)
"""BOB mainnet, from the superchain registry and BOB's node documentation (which alone knows the time of Jovian)."""

BOB_SEPOLIA: Final = ChainPreset(name="bob-sepolia", chain_id=808813, rpc_url="https://bob-sepolia.rpc.gobob.xyz")
"""BOB's test network on Sepolia."""

DEVNET: Final = ChainPreset(
    name="devnet",
    chain_id=60808,
    block_time_s=1,
    safe_lag_s=3,
    finality_lag_s=6,
    poll_interval_s=0.1,
    heads_max_age_s=0.25,
    max_unconfirmed_per_key=1_000,
)
"""Local networks, embedded or of real nodes. They have BOB's chain id and none of its predeploys."""
