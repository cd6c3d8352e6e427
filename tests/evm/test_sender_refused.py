"""An endpoint that refuses a transaction may have shown it to others: one key still pays once, and its status is the truth."""

import asyncio

import pytest

from layer2._clock import SystemClock
from layer2.addresses import EvmAddress
from layer2.errors import UnknownOutcome
from layer2.evm import MemoryTxJournal, RpcError, TxState, decode_transaction
from layer2.storage import SqlTxJournal, Store
from layer2.transactions import Depth, EvmCall, Outcome

BOB = EvmAddress(raw=b"\x0b" * 20)
CAROL = EvmAddress(raw=b"\x0c" * 20)
PAY = EvmCall(to=BOB, value_wei=10**18, gas_limit=21_000)
OTHER = EvmCall(to=CAROL, value_wei=1, gas_limit=21_000)
REFUSALS = ["insufficient funds for gas * price + value", "intrinsic gas too low"]


@pytest.fixture(params=["memory", "store"])
async def journal(request, tmp_path):
    if request.param == "memory":
        yield MemoryTxJournal()
        return
    store = await Store.open(f"sqlite:///{tmp_path}/store.db", clock=SystemClock())
    yield SqlTxJournal(store)
    await store.close()


class Liar:
    """Refuses the first transaction that it is given, and hands it on when told to."""

    def __init__(self, tap, *, refusal=REFUSALS[0], hands_on=False, knows=False):
        self.tap, self.refusal, self.hands_on, self.knows = tap, refusal, hands_on, knows
        self.kept = None
        tap.hooks["eth_sendRawTransaction"] = self.take
        tap.hooks["eth_getTransactionByHash"] = self.show

    async def take(self, params):
        if self.kept is None:
            self.kept = params[0]
            if self.hands_on:
                await self.hand_on()
            raise RpcError(-32000, self.refusal)
        return await self.tap.inner.call("eth_sendRawTransaction", params)

    async def show(self, params):
        return await self.tap.inner.call("eth_getTransactionByHash", params) if self.knows else None

    async def hand_on(self):
        return await self.tap.inner.call("eth_sendRawTransaction", [self.kept])

    @property
    def tx(self):
        return decode_transaction(bytes.fromhex(self.kept[2:]))


async def refused(sender, call=PAY, **options):
    """Submit, and give the id under which it is known."""
    with pytest.raises(UnknownOutcome, match=r"refuses|no node") as caught:
        await sender.submit(call, **options)
    assert caught.value.money_may_have_moved
    return caught.value.tx_id.hash


@pytest.fixture
def finally_(until):
    """Mines until a transaction is final in the journal."""

    async def final(anvil, journal, key):
        async def done():
            await anvil.mine()
            record = await journal.get(key)
            return record is not None and record.state is not TxState.OPEN and record.state is not TxState.ABANDONED

        await until(done)
        return await journal.get(key)

    return final


async def test_an_endpoint_that_refuses_what_it_has_is_not_believed(start_anvil, make_sender, tap):
    """One of many behind a balancer took it, and another says no."""
    anvil = await start_anvil("--no-mining")
    Liar(tapped := tap(anvil), hands_on=True, knows=True)
    sender = await make_sender(anvil, transport=tapped)
    record = await sender.submit(PAY)
    await anvil.mine()
    assert (await sender.wait(record.hash)).succeeded


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("restart", [True, False], ids=["restart", "same process"])
async def test_one_key_pays_once_whatever_the_endpoint_says(
    start_anvil, make_sender, tap, until, journal, finally_, refusal, restart
):
    anvil = await start_anvil()
    Liar(tapped := tap(anvil), refusal=refusal, hands_on=True)
    sender = await make_sender(anvil, transport=tapped, journal=journal)
    tx_hash = await refused(sender, key="k")
    await until(lambda: anvil.client.balance(BOB))
    if restart:
        await sender.close()
        sender = await make_sender(anvil, transport=tapped, journal=journal)
    again = await sender.submit(PAY, key="k")
    assert again.hash == tx_hash
    assert (await sender.wait(tx_hash)).succeeded
    assert (await finally_(anvil, journal, "k")).state is TxState.FINAL
    assert await anvil.client.balance(BOB) == 10**18


@pytest.mark.parametrize("restart", [True, False], ids=["restart", "same process"])
async def test_a_key_is_signed_again_at_its_old_nonce_only(start_anvil, make_sender, tap, journal, restart):
    anvil = await start_anvil("--no-mining")
    liar = Liar(tapped := tap(anvil))
    sender = await make_sender(anvil, transport=tapped, journal=journal)
    tx_hash = await refused(sender, key="k")
    status = await sender.status(tx_hash)
    assert (status.outcome, status.depth) == (Outcome.DROPPED, Depth.NONE)
    if restart:
        await sender.close()
        sender = await make_sender(anvil, transport=tapped, journal=journal)
    again = await sender.submit(PAY, key="k")
    assert again.nonce == liar.tx.transaction.nonce
    await anvil.rpc("anvil_dropTransaction", "0x" + again.latest.hash.hex())
    await liar.hand_on()  # they compete for the nonce, and the old one wins
    await anvil.mine(2)
    assert (await sender.wait(tx_hash)).succeeded
    assert await anvil.client.balance(BOB) == 10**18


@pytest.mark.parametrize("is_exit", [True, False], ids=["exit", "user"])
@pytest.mark.parametrize("restart", [True, False], ids=["restart", "same process"])
async def test_nobody_else_gets_the_nonce_of_what_was_refused(
    start_anvil, make_sender, tap, until, journal, finally_, restart, is_exit
):
    """Its bytes may be included yet. Then it succeeded, and what was sent since is not hindered."""
    anvil = await start_anvil("--no-mining")
    liar = Liar(tapped := tap(anvil))
    sender = await make_sender(anvil, transport=tapped, journal=journal)
    tx_hash = await refused(sender, key="k")
    if restart:
        await sender.close()
        sender = await make_sender(anvil, transport=tapped, journal=journal)
    await liar.hand_on()
    other = await sender.submit(OTHER, key="other", exit=is_exit)
    assert other.nonce == liar.tx.transaction.nonce + 1
    await anvil.mine()
    assert (await sender.wait(other.hash)).succeeded
    assert (await sender.wait(tx_hash)).succeeded
    assert (await finally_(anvil, journal, "k")).state is TxState.FINAL
    assert (await finally_(anvil, journal, "other")).state is TxState.FINAL
    assert await anvil.client.balance(BOB) == 10**18
    await sender.close()
    anew = await make_sender(await start_anvil(), journal=journal)  # an endpoint that has forgotten all of it
    assert (await anew.status(tx_hash)).outcome is Outcome.SUCCEEDED


async def uses_its_nonce_up(journal, sender, until, anvil):
    """Mine until what has nonce 0 is final."""

    async def final():
        await anvil.mine()
        holder = await journal.in_force(sender._chain_id, sender.account, 0)
        return holder is not None and holder.state is TxState.FINAL

    await until(final)


@pytest.mark.parametrize("restart", [True, False], ids=["restart", "same process"])
async def test_what_was_refused_is_never_signed_at_another_nonce(
    start_anvil, make_sender, tap, until, journal, mined, restart
):
    """That another transaction has used its nonce for good is only what the endpoint says."""
    anvil = await start_anvil("--no-mining", "--slots-in-an-epoch", "4")
    Liar(tapped := tap(anvil))
    sender = await make_sender(anvil, transport=tapped, journal=journal)
    tx_hash = await refused(sender, key="k")
    other = await sender.submit(OTHER)
    assert await mined(anvil, sender, other.hash)
    await uses_its_nonce_up(journal, sender, until, anvil)
    if restart:
        await sender.close()
        sender = await make_sender(anvil, transport=tapped, journal=journal)
    with pytest.raises(UnknownOutcome, match=f"nonce 0 of {sender.account} is used by another") as caught:
        await sender.submit(PAY, key="k")
    assert caught.value.tx_id.hash == tx_hash
    assert not caught.value.retry_safe
    assert "another endpoint or a block explorer" in caught.value.hint
    assert "another idempotency key" in caught.value.hint
    paid = await sender.submit(PAY, key="another")
    assert await mined(anvil, sender, paid.hash)
    assert await anvil.client.balance(BOB) == 10**18


async def test_an_endpoint_with_a_chain_of_its_own_cannot_make_one_key_pay_twice(
    start_anvil, make_sender, tap, until, journal
):
    """It hands all on to the real chain but what uses up the nonce of a payment that it refused, which only its own chain has."""
    real, fake = await start_anvil(), await start_anvil("--no-mining", "--slots-in-an-epoch", "4")
    liar = Liar(tapped := tap(fake))

    async def take(params):
        first = liar.kept is None
        if decode_transaction(bytes.fromhex(params[0][2:])).transaction.to != sender.account:
            await real.rpc("eth_sendRawTransaction", params[0])
        if first:
            await until(lambda: real.client.balance(BOB))
        return await liar.take(params)

    tapped.hooks["eth_sendRawTransaction"] = take
    sender = await make_sender(fake, transport=tapped, journal=journal)
    await refused(sender, key="k")
    await sender.submit(OTHER)
    await uses_its_nonce_up(journal, sender, until, fake)
    with pytest.raises(UnknownOutcome):
        await sender.submit(PAY, key="k")
    await until(lambda: real.client.balance(CAROL))
    assert await real.client.balance(BOB) == 10**18


async def test_an_exit_that_was_refused_waits_for_nothing(start_anvil, make_sender, tap, mined, journal):
    """A claim or refund can take effect only once, whatever its nonce."""
    anvil = await start_anvil("--no-mining", "--slots-in-an-epoch", "32")
    liar = Liar(tapped := tap(anvil))
    sender = await make_sender(anvil, transport=tapped, journal=journal)
    tx_hash = await refused(sender, OTHER, key="exit", exit=True)
    other = await sender.submit(PAY)
    assert await mined(anvil, sender, other.hash)
    again = await sender.submit(OTHER, key="exit", exit=True)
    assert (again.nonce, again.hash) == (liar.tx.transaction.nonce + 2, tx_hash)
    assert await mined(anvil, sender, tx_hash)


async def test_exits_that_fill_the_window_behind_a_refused_one_are_included(start_anvil, make_sender, tap, mined):
    """What uses its nonce up needs no place in the window."""
    anvil = await start_anvil("--no-mining")
    Liar(tapped := tap(anvil))
    sender = await make_sender(anvil, transport=tapped)
    await refused(sender)
    window = sender.settings.max_unconfirmed_per_key
    exits = [asyncio.create_task(sender.submit(OTHER, exit=True)) for _ in range(window)]
    first, _ = await asyncio.wait(exits, return_when=asyncio.FIRST_COMPLETED)
    assert await mined(anvil, sender, next(iter(first)).result().hash)
    for record in await asyncio.gather(*exits):
        assert await mined(anvil, sender, record.hash)


async def test_a_refused_ones_nonce_used_by_another_wallet_ends_it(start_anvil, make_sender, tap, journal, finally_):
    anvil = await start_anvil("--no-mining")
    liar = Liar(tapped := tap(anvil))
    sender = await make_sender(anvil, transport=tapped, journal=journal)
    tx_hash = await refused(sender, key="k")
    await sender.close()
    elsewhere = await make_sender(anvil, journal=MemoryTxJournal())
    stranger = await elsewhere.submit(OTHER)
    assert stranger.nonce == liar.tx.transaction.nonce
    await anvil.mine()
    sender = await make_sender(anvil, transport=tapped, journal=journal)
    assert (await finally_(anvil, journal, "k")).state is TxState.REPLACED
    assert (await sender.submit(PAY, key="k")).hash == tx_hash
    assert (await sender.status(tx_hash)).outcome is Outcome.REPLACED
    assert await anvil.client.balance(BOB) == 0
