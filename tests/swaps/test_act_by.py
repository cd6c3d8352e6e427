"""By when a swap must be driven again: every state in which something of ours is bound names a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from swap_worlds import PREIMAGE, make_deal

from layer2.swaps import (
    BOB_TIMING,
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
    may_claim,
    run_again_by,
)
from layer2.terms import ChainTiming, DepthPolicy, SwapDirection
from layer2.transactions import Depth


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


@pytest.mark.parametrize("timing", [BOB_TIMING, DEVNET_TIMING])
@pytest.mark.parametrize("confirmations", [1, 3, 30, 300])
def test_a_preimage_shown_just_in_time_is_in_the_chain_before_a_fast_chain_passes_the_timelock(
    reverse_client: Deal, timing: ChainTiming, confirmations: int
) -> None:
    """A claim that was signed by a process that died is sent by the next one, by its own clock alone."""
    policy, lock = DepthPolicy(depth=Depth.INCLUDED, confirmations=confirmations), reverse_client.terms.lock
    by = latest_claim_start(timing, policy, lock.timelock)
    assert by + timing.evm_clock_skew_s + timing.evm_inclusion_s <= lock.timelock
    assert may_claim(timing, policy, timelock=lock.timelock, now=by, head_timestamp=by)


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


@dataclass(frozen=True)
class Stored:
    """As much of a stored swap as is asked."""

    deal: Deal
    state: State


def test_the_nearest_of_all_times_is_told(submarine_client: Deal, submarine_provider: Deal) -> None:
    """Whoever ends the process for longer than that loses money, so no swap may hide another's time."""
    terms = submarine_client.terms
    later = replace(terms, lock=replace(terms.lock, timelock=terms.lock.timelock + 1_000))
    swaps = [
        Stored(replace(submarine_client, signed=replace(submarine_client.signed, terms=later)), Locked()),
        Stored(submarine_provider, Paying()),
        Stored(submarine_client, Locked()),
        Stored(submarine_client, Agreed()),
    ]
    assert run_again_by(swaps) == act_by(submarine_provider, Paying())  # type: ignore[arg-type]
    assert run_again_by(swaps[2:]) == terms.lock.timelock  # type: ignore[arg-type]
    assert run_again_by(swaps[3:]) is None  # type: ignore[arg-type]
    assert run_again_by([]) is None


@pytest.mark.parametrize(
    "state",
    [
        Locking(),
        Locked(),
        Paying(),
        Revealed(),
        Claiming(preimage=PREIMAGE),
        Settling(preimage=PREIMAGE),
        Refunding(),
        Cancelling(outcome="expired", reason="r"),
    ],
)
def test_what_moves_money_or_is_on_its_way_out_never_queues_behind_offers(state: State) -> None:
    assert state.urgent


@pytest.mark.parametrize("state", [Agreed(), Offered(), Invoiced()])
def test_what_binds_nothing_waits_its_turn(state: State) -> None:
    assert not state.urgent
