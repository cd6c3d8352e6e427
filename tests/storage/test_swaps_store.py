from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from layer2.errors import IdempotencyConflict, NotFound, StorageError
from layer2.storage import EffectStatus, HashTaken, Inserted, StaleVersion, swaps
from layer2.swaps._effects import CancelInvoice, Claim, PayInvoice, SendLock
from layer2.swaps._observations import CancelRequested, EffectRefused, RefundOffer
from layer2.swaps._observations import HashTaken as HashTakenSeen
from layer2.swaps._states import Abandoned, Claiming, Locked, Locking, Paying, Role

AT = 1_800_000_000_000
LOCK = SendLock(not_after=1_800_000_600)
CLAIM = Claim(preimage=b"\x09" * 32, not_after=None)


async def step(store, new, version, state, effects=(), *, seen=None, at_ms=AT + 1, **more):
    return await store.run(
        swaps.apply_transition,
        swap_id=new.deal.id,
        expected_version=version,
        state=state,
        observation=seen or CancelRequested(),
        effects=effects,
        at_ms=at_ms,
        **more,
    )


async def dump(store):
    """Everything in the swap tables, to show that nothing was written."""

    def read(conn):
        return [
            conn.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2")).all()
            for name in ("swap", "swap_event", "swap_effect", "used_hash")
        ]

    return await store.run(read)


async def test_a_swap_comes_back_as_it_was_stored(store, make_swap):
    new = make_swap(1, effects=(LOCK,), idempotency_key="key", request_digest="d", note="lunch", wake_at_ms=AT + 5)
    assert await store.run(swaps.insert_swap, new, at_ms=AT) == Inserted(id=new.deal.id, created=True)
    found = await store.run(swaps.load_swap, new.deal.id)
    assert (found.deal, found.state, found.state_kind, found.version) == (new.deal, new.state, "agreed", 1)
    assert (found.id, found.active, found.restored, found.note, found.wake_at_ms) == (
        new.deal.id,
        True,
        False,
        "lunch",
        AT + 5,
    )
    assert (found.created_at_ms, found.updated_at_ms) == (AT, AT)
    assert (found.idempotency_key, found.request_digest) == ("key", "d")
    assert [(each.key, each.effect, each.status, each.attempts) for each in found.effects] == [
        ("lock", LOCK, EffectStatus.PENDING, 0)
    ]


async def test_neither_preimage_nor_invoice_is_in_a_repr(store, make_swap):
    secret = bytes.fromhex("c0ffee" * 10 + "0102")
    new = make_swap(1, state=Claiming(preimage=secret), effects=(Claim(preimage=secret, not_after=None),))
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await step(store, new, 1, Claiming(preimage=secret), seen=RefundOffer(signature=secret))
    shown = repr(
        [
            new,
            await store.run(swaps.load_swap, new.deal.id),
            await store.run(swaps.history, new.deal.id),
            await store.run(swaps.effects_of, new.deal.id),
        ]
    )
    for secret_text in (secret.hex(), repr(secret)[2:-1], new.deal.terms.invoice):
        assert secret_text not in shown


async def test_a_transition_changes_state_history_and_outbox_together(store, make_swap):
    new = make_swap(1)
    await store.run(swaps.insert_swap, new, at_ms=AT)
    seen = RefundOffer(signature=b"\x07" * 65)
    assert await step(store, new, 1, Locking(), (LOCK,), seen=seen, at_ms=AT + 7, wake_at_ms=AT + 90) == 2
    found = await store.run(swaps.load_swap, new.deal.id)
    assert (found.state, found.version, found.updated_at_ms, found.wake_at_ms) == (Locking(), 2, AT + 7, AT + 90)
    assert [each.effect for each in found.effects] == [LOCK]
    first, second = await store.run(swaps.history, new.deal.id)
    assert (first.kind, first.observation, first.state_before, first.state_after) == ("created", None, "", "agreed")
    assert (second.kind, second.observation, second.state_before, second.state_after, second.state, second.at_ms) == (
        "refund_offer",
        seen,
        "agreed",
        "locking",
        Locking(),
        AT + 7,
    )
    assert await store.run(swaps.history, new.deal.id, after_version=1) == [second]
    assert await store.run(swaps.verify_history, new.deal.id) == 2


async def test_a_decision_from_an_old_version_writes_nothing(store, make_swap):
    new = make_swap(1)
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await step(store, new, 1, Locking(), (LOCK,))
    before = await dump(store)
    for version in (1, 3):
        with pytest.raises(StaleVersion) as caught:
            await step(store, new, version, Locked(), (), bind_hash=b"\x01" * 32)
        assert caught.value.swap_id == new.deal.id
    assert await dump(store) == before


async def test_a_transition_of_an_unknown_swap_is_stale(store, make_swap):
    with pytest.raises(StaleVersion):
        await step(store, make_swap(1), 1, Locked())


async def test_a_failure_in_a_later_statement_takes_the_whole_transaction_back(store, make_swap):
    new = make_swap(1)
    await store.run(swaps.insert_swap, new, at_ms=AT)
    before = await dump(store)

    def both(conn):
        swaps.apply_transition(
            conn,
            swap_id=new.deal.id,
            expected_version=1,
            state=Paying(),
            observation=CancelRequested(),
            effects=(PayInvoice(),),
            at_ms=AT,
            bind_hash=b"\x01" * 32,
        )
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        await store.run(both)
    assert await dump(store) == before


async def test_a_version_that_is_in_the_history_already_cannot_be_written_again(store, make_swap):
    new = make_swap(1)
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await step(store, new, 1, Locking())
    await store.run(lambda conn: conn.execute(text("UPDATE swap SET version = 1")))
    with pytest.raises(StorageError) as caught:
        await step(store, new, 1, Locking())
    assert caught.value.__cause__ is not None


async def test_effects_that_a_state_no_longer_wants_are_given_up(store, make_swap):
    new = make_swap(1, effects=(LOCK, PayInvoice()))
    await store.run(swaps.insert_swap, new, at_ms=AT)
    assert await store.run(swaps.mark_effect, swap_id=new.deal.id, key="lock", version=1, status=EffectStatus.DONE)
    await step(store, new, 1, Claiming(preimage=CLAIM.preimage), (CLAIM,))
    assert {each.key: each.status for each in await store.run(swaps.effects_of, new.deal.id)} == {
        "lock": EffectStatus.DONE,
        "pay": EffectStatus.SUPERSEDED,
        "claim": EffectStatus.PENDING,
    }
    assert [each.key for each in await store.run(swaps.pending_effects, new.deal.id)] == ["claim"]


@pytest.mark.parametrize("status", list(EffectStatus))
async def test_an_effect_that_is_wanted_again_is_pending_with_its_new_content(store, make_swap, status):
    new = make_swap(1, effects=(LOCK, CLAIM))
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await store.run(swaps.mark_effect, swap_id=new.deal.id, key="claim", version=1, status=status, error="no gas")
    later = replace(CLAIM, not_after=1_800_000_001)
    await step(store, new, 1, Locked(), (later,))
    (found,) = await store.run(swaps.pending_effects, new.deal.id)
    assert (found.effect, found.version, found.attempts, found.last_error) == (later, 2, 1, "no gas")


async def test_effects_keep_the_order_in_which_they_are_wanted(store, make_swap):
    new = make_swap(1, effects=(PayInvoice(), CLAIM, LOCK, CancelInvoice()))
    await store.run(swaps.insert_swap, new, at_ms=AT)
    assert [each.key for each in await store.run(swaps.pending_effects, new.deal.id)] == [
        "pay",
        "claim",
        "lock",
        "cancel",
    ]


async def test_swaps_that_are_read_together_have_their_own_effects_in_their_own_order(store, make_swap):
    wanted = {1: (PayInvoice(), CLAIM), 2: (), 3: (LOCK, CancelInvoice(), PayInvoice()), 4: (CLAIM,)}
    for number, effects in wanted.items():
        await store.run(swaps.insert_swap, make_swap(number, effects=effects), at_ms=AT)
    done = {"key": "claim", "version": 1, "status": EffectStatus.DONE}
    assert await store.run(swaps.mark_effect, swap_id=make_swap(1).deal.id, **done)
    found = {swap.id: [each.effect for each in swap.effects] for swap in await store.run(swaps.page_active)}
    assert found == {
        make_swap(1).deal.id: [PayInvoice()],
        make_swap(2).deal.id: [],
        make_swap(3).deal.id: [LOCK, CancelInvoice(), PayInvoice()],
        make_swap(4).deal.id: [CLAIM],
    }


async def test_an_outcome_of_an_earlier_attempt_does_not_touch_what_was_wanted_since(store, make_swap):
    new = make_swap(1, effects=(CLAIM,))
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await step(store, new, 1, Locked(), (CLAIM,))
    mark = {"swap_id": new.deal.id, "key": "claim", "status": EffectStatus.DONE}
    assert not await store.run(swaps.mark_effect, version=1, **mark)
    assert await store.run(swaps.mark_effect, version=2, **mark)
    assert not await store.run(swaps.mark_effect, version=2, **mark)


async def test_a_state_may_not_want_one_effect_twice(store, make_swap):
    with pytest.raises(StorageError, match="twice"):
        await store.run(swaps.insert_swap, make_swap(1, effects=(CLAIM, CLAIM)), at_ms=AT)
    assert await store.run(swaps.list_swaps) == []


async def test_the_same_key_and_request_give_the_same_swap(store, make_swap):
    first = make_swap(1, idempotency_key="key", request_digest="digest")
    await store.run(swaps.insert_swap, first, at_ms=AT)
    again = make_swap(2, idempotency_key="key", request_digest="digest")
    assert await store.run(swaps.insert_swap, again, at_ms=AT) == Inserted(id=first.deal.id, created=False)
    with pytest.raises(IdempotencyConflict) as caught:
        await store.run(swaps.insert_swap, replace(again, request_digest="other"), at_ms=AT)
    assert caught.value.key == "key"
    assert len(await store.run(swaps.list_swaps)) == 1
    assert (await store.run(swaps.by_idempotency_key, "key")).id == first.deal.id
    assert await store.run(swaps.by_idempotency_key, "none") is None


async def test_an_id_is_stored_once(store, make_swap):
    await store.run(swaps.insert_swap, make_swap(1), at_ms=AT)
    with pytest.raises(StorageError):
        await store.run(swaps.insert_swap, make_swap(1), at_ms=AT)


async def test_a_hash_belongs_to_one_swap_for_ever_in_any_role(store, make_swap):
    same = b"\x11" * 32
    first = make_swap(1, payment_hash=same)
    other = make_swap(2, payment_hash=same, role=Role.PROVIDER)
    for new in (first, other):
        await store.run(swaps.insert_swap, new, at_ms=AT)
    assert await store.run(swaps.hash_owner, same) is None
    await step(store, first, 1, Paying(), (PayInvoice(),), bind_hash=same)
    before = await dump(store)
    with pytest.raises(HashTaken) as caught:
        await step(store, other, 1, Paying(), (PayInvoice(),), bind_hash=same)
    assert (caught.value.swap_id, caught.value.owner) == (other.deal.id, first.deal.id)
    with pytest.raises(HashTaken):
        await store.run(swaps.insert_swap, make_swap(3, payment_hash=same, bind_hash=True), at_ms=AT)
    assert await dump(store) == before
    await step(store, other, 1, Abandoned(reason="taken"), seen=HashTakenSeen())
    await step(store, first, 2, Abandoned(reason="x"))
    with pytest.raises(HashTaken):
        await step(store, other, 2, Paying(), bind_hash=same)
    assert await store.run(swaps.hash_owner, same) == first.deal.id


async def test_binding_the_same_hash_to_the_same_swap_again_changes_nothing(store, make_swap):
    new = make_swap(1, bind_hash=True)
    own = new.deal.terms.lock.preimage_hash
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await step(store, new, 1, Paying(), bind_hash=own)
    assert await store.run(swaps.hash_owner, own) == new.deal.id


async def test_a_hash_is_known_once_a_swap_names_it_or_is_bound_to_it(store, make_swap):
    new = make_swap(1)
    own, other = new.deal.terms.lock.preimage_hash, b"\x22" * 32
    assert not await store.run(swaps.hash_known, own)
    await store.run(swaps.insert_swap, new, at_ms=AT)
    assert await store.run(swaps.hash_known, own)
    assert not await store.run(swaps.hash_known, other)
    await step(store, new, 1, Paying(), bind_hash=other)
    assert await store.run(swaps.hash_known, other)


async def test_swaps_are_found_by_hash_and_by_lock_oldest_first(store, make_swap):
    same = b"\x33" * 32
    for number, at_ms in ((2, AT), (1, AT + 1)):
        await store.run(swaps.insert_swap, make_swap(number, payment_hash=same), at_ms=at_ms)
    lock_id = make_swap(1, payment_hash=same).deal.terms.lock.lock_id
    for found in (
        await store.run(swaps.by_payment_hash, same),
        await store.run(swaps.by_lock_id, lock_id),
    ):
        assert [each.id for each in found] == [f"{2:032x}", f"{1:032x}"]
    assert await store.run(swaps.by_payment_hash, b"\x00" * 32) == []


async def test_active_swaps_come_in_pages_without_gap_or_repetition(store, make_swap):
    for number in range(1, 8):
        role = Role.PROVIDER if number % 2 else Role.CLIENT
        await store.run(swaps.insert_swap, make_swap(number, role=role), at_ms=AT)
    await step(store, make_swap(3), 1, Abandoned(reason="gone"))
    await step(store, make_swap(4), 1, Abandoned(reason="kept"), active=True)
    seen, after = [], None
    while page := await store.run(swaps.page_active, after_id=after, limit=2):
        seen += [int(each.id, 16) for each in page]
        after = page[-1].id
    assert seen == [1, 2, 4, 5, 6, 7]
    assert await store.run(swaps.count_active) == 6
    assert await store.run(swaps.count_active, role=Role.PROVIDER) == 3
    providers = await store.run(swaps.page_active, role=Role.PROVIDER)
    assert [int(each.id, 16) for each in providers] == [1, 5, 7]


async def test_lists_are_newest_first_and_can_be_narrowed_and_continued(store, make_swap):
    for number in range(1, 7):
        role = Role.PROVIDER if number == 6 else Role.CLIENT
        await store.run(swaps.insert_swap, make_swap(number, role=role), at_ms=AT + number // 2)
    await step(store, make_swap(2), 1, Abandoned(reason="gone"))
    ids = [int(each.id, 16) for each in await store.run(swaps.list_swaps)]
    assert ids == [6, 5, 4, 3, 2, 1]
    paged, after = [], None
    while page := await store.run(swaps.list_swaps, limit=4, after=after):
        paged += [int(each.id, 16) for each in page]
        after = page[-1].id
    assert paged == ids
    for narrowed, expected in (
        ({"role": Role.PROVIDER}, [6]),
        ({"kinds": {"abandoned"}}, [2]),
        ({"active": False}, [2]),
        ({"active": True, "kinds": {"agreed"}, "limit": 2}, [6, 5]),
    ):
        found = await store.run(swaps.list_swaps, **narrowed)
        assert [int(each.id, 16) for each in found] == expected
    with pytest.raises(NotFound):
        await store.run(swaps.list_swaps, after="f" * 32)


async def test_what_is_not_there_is_not_found(store):
    for function in (swaps.load_swap, swaps.verify_history):
        with pytest.raises(NotFound):
            await store.run(function, "0" * 32)
    with pytest.raises(NotFound):
        await store.run(swaps.annotate, "0" * 32, "x")
    assert await store.run(swaps.history, "0" * 32) == []
    assert await store.run(swaps.pending_effects, "0" * 32) == []


async def test_a_note_can_be_changed(store, make_swap):
    await store.run(swaps.insert_swap, make_swap(1), at_ms=AT)
    await store.run(swaps.annotate, make_swap(1).deal.id, "waits for gas")
    assert (await store.run(swaps.load_swap, make_swap(1).deal.id)).note == "waits for gas"


async def test_a_refused_effect_is_kept_in_the_history(store, make_swap):
    new = make_swap(1, effects=(LOCK,))
    await store.run(swaps.insert_swap, new, at_ms=AT)
    seen = EffectRefused(key="lock", reason="no gas")
    await step(store, new, 1, Abandoned(reason="no gas"), seen=seen)
    assert (await store.run(swaps.history, new.deal.id))[-1].observation == seen
    assert not (await store.run(swaps.load_swap, new.deal.id)).active


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE swap_event SET at_ms = at_ms + 1 WHERE version = 2",
        "UPDATE swap_event SET observation = '{}' WHERE version = 1",
        "UPDATE swap_event SET checksum = 'x' WHERE version = 3",
        "UPDATE swap_event SET state_before = 'paid' WHERE version = 2",
        "DELETE FROM swap_event WHERE version = 2",
        "DELETE FROM swap_event WHERE version = 3",
        "DELETE FROM swap_event",
        "UPDATE swap SET state_kind = 'locking'",
        "UPDATE swap SET version = 4",
    ],
)
async def test_damage_to_the_history_is_noticed(store, make_swap, damage):
    new = make_swap(1)
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await step(store, new, 1, Locking())
    await step(store, new, 2, Locked())
    assert await store.run(swaps.verify_history, new.deal.id) == 3
    await store.run(lambda conn: conn.execute(text(damage)))
    with pytest.raises(StorageError):
        await store.run(swaps.verify_history, new.deal.id)


async def test_a_history_with_a_gap_is_not_written_on(store, make_swap):
    new = make_swap(1)
    await store.run(swaps.insert_swap, new, at_ms=AT)
    await store.run(lambda conn: conn.execute(text("DELETE FROM swap_event")))
    with pytest.raises(StorageError, match="lacks version 1"):
        await step(store, new, 1, Locking())


async def test_preimage_times_never_repeat_even_when_the_clock_goes_back(store):
    times = [await store.run(swaps.next_preimage_time, now) for now in (AT, AT, AT - 10_000, AT + 5, AT + 5)]
    assert times == [AT, AT + 1, AT + 2, AT + 5, AT + 6]


async def test_a_preimage_time_of_a_rolled_back_transaction_was_never_given(store):
    def take(conn):
        swaps.next_preimage_time(conn, AT)
        raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError):
        await store.run(take)
    assert await store.run(swaps.next_preimage_time, AT) == AT
