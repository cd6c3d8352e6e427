"""What statuses, depths and amounts promise whoever decides by them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from typing import Any

import pytest

from layer2 import AmountError, Depth, EvmAddress, NodeId, Outcome, TxId, TxStatus
from layer2.assets import MAX_AMOUNT, check_amount, convert_amount
from layer2.terms import Lock

TX_ID = TxId(layer="bob", hash=bytes(range(32)))


def status(outcome: Outcome, depth: Depth) -> TxStatus:
    return TxStatus(tx_id=TX_ID, outcome=outcome, depth=depth)


def test_depths_are_ordered_by_how_hard_they_are_to_undo() -> None:
    order = [Depth.NONE, Depth.PENDING, Depth.INCLUDED, Depth.SAFE, Depth.FINALIZED]
    assert sorted(Depth) == order
    for (i, shallow), (j, deep) in itertools.product(enumerate(order), repeat=2):
        assert (shallow < deep) == (i < j)
        assert status(Outcome.SUCCEEDED, deep).at_least(shallow) == (i <= j)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("depth", Depth)
def test_a_status_is_neither_true_nor_false(outcome: Outcome, depth: Depth) -> None:
    """``if status:`` would take what is known of a failure for a success."""
    with pytest.raises(TypeError, match="succeeded"):
        bool(status(outcome, depth))
    with pytest.raises(TypeError, match="succeeded"):
        _ = not status(outcome, depth)


@pytest.mark.parametrize("depth", Depth)
def test_an_outcome_that_is_not_known_is_neither_success_nor_failure(depth: Depth) -> None:
    for outcome in (Outcome.NONE, Outcome.UNKNOWN, Outcome.DROPPED):
        seen = status(outcome, depth)
        assert (seen.succeeded, seen.failed, seen.is_final) == (False, False, False)
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.REPLACED):
        seen = status(outcome, depth)
        assert seen.succeeded is not seen.failed
        assert seen.is_final == (depth is Depth.FINALIZED)


def test_ids_and_addresses_are_shown_as_they_are_written() -> None:
    address = EvmAddress.parse("0x0555E30da8f98308EdB960aa94C0Db47230d2B9c")
    node = NodeId.parse("02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
    for value in (address, node, TX_ID):
        assert str(value) in repr(value)
        assert eval(repr(value)) == value


@pytest.mark.parametrize("amount", [1, MAX_AMOUNT])
def test_an_amount_within_its_bounds_is_given_back(amount: int) -> None:
    assert check_amount(amount) == amount


@pytest.mark.parametrize("amount", [0, -1, MAX_AMOUNT + 1, 2**64, 2**256, 1.0, True, "1", None])
def test_an_amount_out_of_its_bounds_is_refused_and_named(amount: object) -> None:
    with pytest.raises(AmountError) as caught:
        check_amount(amount, field="max_fee")
    assert caught.value.field == "max_fee"
    assert not caught.value.money_may_have_moved


@pytest.mark.parametrize("satoshi", [1, 21_000_000 * 10**8, MAX_AMOUNT])
@pytest.mark.parametrize("decimals", [8, 9, 18, 77])
def test_more_decimals_take_every_amount_there_and_back(satoshi: int, decimals: int) -> None:
    units = convert_amount(satoshi, 8, decimals)
    assert units == satoshi * 10 ** (decimals - 8)
    assert convert_amount(units, decimals, 8) == satoshi


@pytest.mark.parametrize("decimals", range(8))
def test_fewer_decimals_take_only_what_they_can_write(decimals: int) -> None:
    whole = 10 ** (8 - decimals)
    assert convert_amount(3 * whole, 8, decimals) == 3
    for satoshi in (1, whole - 1, whole + 1, 3 * whole - 1, (MAX_AMOUNT // whole) * whole + 1):
        with pytest.raises(AmountError, match="losing a digit") as caught:
            convert_amount(satoshi, 8, decimals)
        assert caught.value.field == "amount"
        assert not caught.value.money_may_have_moved


def a_lock() -> Lock:
    account, other = EvmAddress(raw=b"\x0a" * 20), EvmAddress(raw=b"\x0b" * 20)
    return Lock(
        chain_id=60808,
        contract=EvmAddress(raw=b"\x0c" * 20),
        preimage_hash=bytes(range(32)),
        amount=5,
        token=EvmAddress(raw=b"\x0d" * 20),
        claimer=account,
        refunder=other,
        timelock=2_000_000_000,
    )


def test_a_lock_whose_id_was_asked_for_is_the_same_value() -> None:
    asked, new = a_lock(), a_lock()
    lock_id = asked.lock_id
    assert asked == new
    assert hash(asked) == hash(new)
    assert repr(asked) == repr(new)
    assert asked.to_json() == new.to_json()
    copies = [
        copy.copy(asked),
        copy.deepcopy(asked),
        pickle.loads(pickle.dumps(asked)),
        Lock.from_json(asked.to_json()),
    ]
    assert [(made, made.lock_id) for made in copies] == [(new, lock_id)] * 4


def test_a_lock_changed_in_any_field_has_another_id() -> None:
    asked = a_lock()
    ids = [asked.lock_id]
    for field in dataclasses.fields(asked):
        value = getattr(asked, field.name)
        other: Any = value + 1 if isinstance(value, int) else EvmAddress(raw=b"\x0e" * 20)
        if isinstance(value, bytes):
            other = bytes(32)
        changed = dataclasses.replace(asked, **{field.name: other})
        assert changed.lock_id == Lock.from_json(changed.to_json()).lock_id
        ids.append(changed.lock_id)
    assert len(set(ids)) == len(ids)
