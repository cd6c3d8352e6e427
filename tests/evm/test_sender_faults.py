import asyncio

import pytest

from layer2.addresses import EvmAddress
from layer2.errors import (
    NodeConnectionError,
    StorageError,
    UnknownOutcome,
)
from layer2.evm import (
    FeeLimits,
    MemoryTxJournal,
    RpcError,
    SignedVariant,
    TxRecord,
    TxState,
    UnsignedTransaction,
    decode_transaction,
    sign_transaction,
)
from layer2.signers import LocalSigner
from layer2.transactions import Depth, EvmCall, Outcome

BOB = EvmAddress(raw=b"\x0b" * 20)
PAY = EvmCall(to=BOB, value_wei=1, gas_limit=21_000)
RICH = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


async def test_a_lost_answer_leads_to_the_same_bytes_again(start_anvil, make_sender, tap):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    lost = []

    async def lose_once(params):
        answer = await seen.inner.call("eth_sendRawTransaction", params)
        if not lost:
            lost.append(answer)
            raise NodeConnectionError("gone", request_sent=True)
        return answer

    seen.hooks["eth_sendRawTransaction"] = lose_once
    sender = await make_sender(anvil, transport=seen, retry_pause_s=0.01)
    record = await sender.submit(PAY)
    assert len(seen.sent()) >= 2
    assert len(set(seen.sent())) == 1
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded


async def test_an_endpoint_that_takes_nothing_gives_an_unknown_outcome_and_is_asked_on(start_anvil, make_sender, tap):
    anvil = await start_anvil()
    seen = tap(anvil)

    async def dead(params):
        raise NodeConnectionError("gone", request_sent=True)

    seen.hooks["eth_sendRawTransaction"] = dead
    sender = await make_sender(anvil, transport=seen, retry_pause_s=0.01, send_attempts=2)
    with pytest.raises(UnknownOutcome) as caught:
        await sender.submit(PAY, key="k")
    assert caught.value.money_may_have_moved
    del seen.hooks["eth_sendRawTransaction"]
    assert (await sender.wait(caught.value.tx_id.hash)).succeeded
    assert (await sender.submit(PAY, key="k")).hash == caught.value.tx_id.hash
    assert len(set(seen.sent())) == 1


async def test_nonce_too_low_after_a_lost_answer_is_our_own_transaction(start_anvil, make_sender, tap, until):
    anvil = await start_anvil()
    seen = tap(anvil)
    answers = []

    async def lose_once(params):
        answers.append(params)
        answer = await seen.inner.call("eth_sendRawTransaction", params)
        if len(answers) == 1:
            raise NodeConnectionError("gone", request_sent=True)
        return answer

    async def included(params):
        await until(lambda: anvil.client.balance(BOB))
        raise RpcError(-32003, "nonce too low")

    async def first_lose_then_refuse(params):
        seen.hooks["eth_sendRawTransaction"] = included
        return await lose_once(params)

    seen.hooks["eth_sendRawTransaction"] = first_lose_then_refuse
    sender = await make_sender(anvil, transport=seen, retry_pause_s=0.01)
    record = await sender.submit(PAY)
    assert (await sender.wait(record.hash)).succeeded
    assert await anvil.client.balance(BOB) == 1


async def test_a_restart_sends_the_same_bytes_and_goes_on_counting(start_anvil, make_sender, tap, mined):
    anvil = await start_anvil("--no-mining")
    journal, before = MemoryTxJournal(), tap(anvil)

    async def dead(params):
        raise NodeConnectionError("gone", request_sent=False)

    before.hooks["eth_sendRawTransaction"] = dead
    first = await make_sender(anvil, transport=before, journal=journal, send_attempts=1)
    with pytest.raises(UnknownOutcome) as caught:
        await first.submit(PAY, key="k")
    await first.close()
    after = tap(anvil)
    second = await make_sender(anvil, transport=after, journal=journal)
    other = await second.submit(PAY)
    assert other.nonce == 1
    assert await mined(anvil, second, caught.value.tx_id.hash)
    assert await mined(anvil, second, other.hash)
    assert before.sent()[0] in after.sent()


async def test_a_reorganised_transaction_is_pending_again_and_sent_again(start_anvil, make_sender, tap, until):
    anvil = await start_anvil("--no-mining", "--slots-in-an-epoch", "32")
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen)
    snapshot = await anvil.rpc("evm_snapshot")
    record = await sender.submit(PAY)
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded
    sends = len(seen.sent())
    await anvil.rpc("evm_revert", snapshot)
    await anvil.rpc("evm_setAutomine", False)
    await anvil.rpc("anvil_mine", "0x1", "0x7")

    async def sent_again():
        return len(seen.sent()) > sends

    await until(sent_again)
    status = await sender.status(record.hash)
    assert (status.outcome, status.depth) == (Outcome.NONE, Depth.PENDING)
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded
    assert len(set(seen.sent())) == 1


async def test_a_transaction_that_the_pool_dropped_is_sent_again(start_anvil, make_sender, tap, until):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    sender = await make_sender(anvil, transport=seen, resend_after_s=0.1)
    record = await sender.submit(PAY)
    await anvil.rpc("anvil_dropTransaction", "0x" + record.hash.hex())

    async def back():
        return await anvil.client.transaction(record.hash) is not None

    await until(back)
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded


async def foreign(anvil, nonce, **changes):
    fields = {"gas_limit": 21_000, "max_fee_per_gas": 10**11, "max_priority_fee_per_gas": 10**10, "value": 7}
    tx = UnsignedTransaction(chain_id=60808, nonce=nonce, to=BOB, **{**fields, **changes})
    return await sign_transaction(tx, LocalSigner.from_hex(RICH))


async def test_what_somebody_else_signed_is_not_taken_from_the_journal(start_anvil, make_sender):
    """Raised in price it would be signed with our key: whoever can write the store would have the account."""
    anvil = await start_anvil("--no-mining")
    tx = UnsignedTransaction(
        chain_id=60808,
        nonce=0,
        to=BOB,
        value=10**18,
        gas_limit=21_000,
        max_fee_per_gas=10**9,
        max_priority_fee_per_gas=1,
    )
    signed = await sign_transaction(tx, LocalSigner.generate())
    variant = SignedVariant(
        raw=signed.raw, hash=signed.hash, max_fee_per_gas=tx.max_fee_per_gas, max_priority_fee_per_gas=1
    )
    journal = MemoryTxJournal()
    await journal.put_new(
        TxRecord(
            key="k",
            request_digest=bytes(32),
            chain_id=60808,
            sender=LocalSigner.from_hex(RICH).address,
            nonce=0,
            variants=(variant,),
            created_ms=0,
        )
    )
    with pytest.raises(StorageError, match="tampered"):
        await make_sender(anvil, journal=journal)


async def test_a_nonce_used_by_somebody_else_is_replaced_at_finality_only(start_anvil, make_sender, tap, until):
    anvil = await start_anvil("--no-mining", "--slots-in-an-epoch", "2")
    sender = await make_sender(anvil)
    record = await sender.submit(PAY)
    await anvil.client.send_raw((await foreign(anvil, 0)).raw)
    await anvil.mine()

    async def seen():
        head = sender._tracker.head
        return head is not None and head.number == await anvil.client.block_number()

    await until(seen)
    assert not (await sender.status(record.hash)).failed
    await anvil.mine(8)
    status = await sender.wait(record.hash, Depth.FINALIZED)
    assert status.outcome is Outcome.REPLACED
    assert status.is_final
    assert (await sender.submit(PAY)).nonce == 1


async def test_a_key_used_elsewhere_is_noticed_and_not_signed_again(start_anvil, make_sender, tap, until):
    anvil = await start_anvil()
    journal = MemoryTxJournal()
    sender = await make_sender(anvil, journal=journal)
    await anvil.client.send_raw((await foreign(anvil, 0)).raw)
    with pytest.raises(UnknownOutcome):
        await sender.submit(PAY)

    async def caught_up():
        try:
            return (await sender.wait((await sender.submit(PAY)).hash)).succeeded
        except UnknownOutcome:
            return False

    await until(caught_up)
    assert await anvil.client.balance(BOB) == 8


async def test_a_price_that_is_passed_over_is_raised_within_the_bound(start_anvil, make_sender, tap, until):
    anvil = await start_anvil("--no-mining")
    seen = tap(anvil)
    journal = MemoryTxJournal()
    sender = await make_sender(
        anvil, transport=seen, journal=journal, bump_after_s=0.05, limits=FeeLimits(max_fee_per_gas_wei=4 * 10**9)
    )

    async def keep(params):
        # Taken, and left out of every block.
        return "0x" + decode_transaction(bytes.fromhex(params[0][2:])).hash.hex()

    seen.hooks["eth_sendRawTransaction"] = keep
    record = await sender.submit(PAY, key="k")

    async def raised_twice():
        await anvil.mine()
        return len((await journal.get("k")).variants) > 2

    await until(raised_twice)
    del seen.hooks["eth_sendRawTransaction"]
    current = await journal.get("k")
    for old, new in zip(current.variants, current.variants[1:], strict=False):
        assert new.max_fee_per_gas * 10 >= old.max_fee_per_gas * 11
        assert new.max_priority_fee_per_gas * 10 >= old.max_priority_fee_per_gas * 11
        assert new.max_fee_per_gas <= 4 * 10**9
    await anvil.rpc("evm_setAutomine", True)
    await anvil.rpc("evm_setIntervalMining", 1)
    status = await sender.wait(record.hash)
    assert status.succeeded
    assert status.tx_id.hash == record.hash
    assert await anvil.client.balance(BOB) == 1


async def test_a_transaction_that_is_never_taken_leaves_no_gap(start_anvil, make_sender, tap, until):
    anvil = await start_anvil("--no-mining")
    seen, journal = tap(anvil), MemoryTxJournal()
    both = asyncio.Event()

    async def refuse_first(params):
        del seen.hooks["eth_sendRawTransaction"]
        await both.wait()
        raise RpcError(-32000, "intrinsic gas too low")

    seen.hooks["eth_sendRawTransaction"] = refuse_first
    sender = await make_sender(anvil, transport=seen, journal=journal)
    refused = asyncio.create_task(sender.submit(PAY, key="refused"))
    while not seen.sent():
        await asyncio.sleep(0)
    second = await sender.submit(PAY)
    both.set()
    with pytest.raises(UnknownOutcome, match="intrinsic"):
        await refused
    assert (await journal.get("refused")).state is TxState.ABANDONED

    async def included():
        await anvil.mine()
        return (await sender.status(second.hash)).succeeded

    await until(included)
    assert await anvil.client.balance(BOB) == 1
