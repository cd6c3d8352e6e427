"""By when a swap must be driven again: every state in which something of ours is bound names a time."""

from __future__ import annotations

import pytest
from swap_worlds import PREIMAGE, make_deal

from layer2.swaps import (
    DEVNET_TIMING,
    Agreed,
    AwaitingLock,
    Cancelling,
    Claiming,
    Deal,
    Invoiced,
    Locked,
    Locking,
    Offered,
    Paid,
    Paying,
    Refunded,
    Refunding,
    Revealed,
    Role,
    Settled,
    Settling,
    State,
    act_by,
    latest_claim_start,
)
from layer2.terms import SwapDirection


@pytest.mark.parametrize("state", [Paying(), Claiming(preimage=PREIMAGE)])
def test_a_provider_that_pays_must_have_its_claim_included_before_the_timelock(
    submarine_provider: Deal, state: State
) -> None:
    by = act_by(submarine_provider, state)
    assert by is not None
    assert by + DEVNET_TIMING.evm_inclusion_s + DEVNET_TIMING.evm_clock_skew_s == submarine_provider.terms.lock.timelock


@pytest.mark.parametrize("state", [Locking(), Locked(), Refunding(), Settling(preimage=PREIMAGE)])
def test_a_provider_that_locked_must_be_back_at_the_timelock(reverse_provider: Deal, state: State) -> None:
    assert act_by(reverse_provider, state) == reverse_provider.terms.lock.timelock


def test_a_client_that_claims_for_its_provider_has_nothing_at_stake(submarine_client: Deal) -> None:
    assert act_by(submarine_client, Claiming(preimage=PREIMAGE)) is None


@pytest.mark.parametrize("state", [Locking(), Locked(), Refunding()])
def test_a_client_that_locked_must_be_back_at_the_timelock(submarine_client: Deal, state: State) -> None:
    assert act_by(submarine_client, state) == submarine_client.terms.lock.timelock


@pytest.mark.parametrize("state", [Paying(), Revealed()])
def test_a_client_that_pays_must_be_back_while_it_may_still_claim(reverse_client: Deal, state: State) -> None:
    terms = reverse_client.terms
    assert act_by(reverse_client, state) == latest_claim_start(terms.timing, terms.depth_policy, terms.lock.timelock)


@pytest.mark.parametrize(
    ("role", "direction", "state"),
    [
        (Role.CLIENT, SwapDirection.SUBMARINE, Agreed()),
        (Role.CLIENT, SwapDirection.SUBMARINE, Paid(preimage=PREIMAGE)),
        (Role.CLIENT, SwapDirection.SUBMARINE, Settled(preimage=PREIMAGE)),
        (Role.CLIENT, SwapDirection.SUBMARINE, Refunded(reason="r")),
        (Role.CLIENT, SwapDirection.REVERSE, AwaitingLock()),
        (Role.PROVIDER, SwapDirection.SUBMARINE, Offered()),
        (Role.PROVIDER, SwapDirection.REVERSE, Invoiced()),
        (Role.PROVIDER, SwapDirection.REVERSE, Cancelling(outcome="expired", reason="r")),
    ],
)
def test_where_nothing_of_ours_is_bound_there_is_no_such_time(
    role: Role, direction: SwapDirection, state: State
) -> None:
    assert act_by(make_deal(role, direction), state) is None
