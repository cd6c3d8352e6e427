"""What a provider offers: limits, fees, depth policies."""

from __future__ import annotations

from dataclasses import dataclass

from layer2.errors import ConfigurationError
from layer2.terms import DepthPolicy
from layer2.transactions import Depth

__all__ = ["Pricing", "ProviderSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """Fee and limits of one direction, in satoshi."""

    fee_ppm: int = 5_000
    fee_base_sat: int = 100
    min_sat: int = 1_000
    """Above dust and the cost of an HTLC that ends on chain."""
    max_sat: int = 5_000_000

    def __post_init__(self) -> None:
        if not 0 <= self.fee_ppm <= 500_000 or self.fee_base_sat < 0:
            raise ConfigurationError("a fee is 0 to 500000 ppm and a base of 0 or more satoshi", key="provider.fee_ppm")
        if not 546 <= self.min_sat <= self.max_sat:
            raise ConfigurationError("limits are 546 <= min <= max satoshi", key="provider.min_sat")

    def fee_sat(self, amount_sat: int) -> int:
        """The fee on an amount, rounded up."""
        return -(-amount_sat * self.fee_ppm // 1_000_000) + self.fee_base_sat


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """All of a provider's choices that are not addresses or keys."""

    submarine: Pricing = Pricing()
    reverse: Pricing = Pricing()
    routing_fee_share_percent: int = 70
    """Of a submarine fee, what may be spent on routing; below 100, so that no swap can cost more than it earns."""
    depth_policies: tuple[tuple[int, DepthPolicy], ...] = (
        (100_000, DepthPolicy(depth=Depth.INCLUDED, confirmations=2)),
        (1_000_000, DepthPolicy(depth=Depth.SAFE)),
        (2**63, DepthPolicy(depth=Depth.FINALIZED)),
    )
    """(largest amount in satoshi, depth) in rising order."""
    max_unsafe_sat: int = 2_000_000
    """Bound on the sum over all swaps whose deciding event is not yet safe."""
    max_open_reverse: int = 200
    """Unpaid hold invoices at a time."""
    max_active: int = 5_000
    accept_new: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.routing_fee_share_percent < 100:
            raise ConfigurationError("must be 1 to 99", key="provider.routing_fee_share_percent")
        bounds = [bound for bound, _ in self.depth_policies]
        if not bounds or bounds != sorted(set(bounds)):
            raise ConfigurationError("the bounds must rise", key="provider.depth_policies")

    def depth_policy(self, amount_sat: int) -> DepthPolicy:
        """The depth for an amount."""
        for bound, policy in self.depth_policies:
            if amount_sat <= bound:
                return policy
        return self.depth_policies[-1][1]
