"""Transfers as the manager offers them, on top of the swap engine: check, price, begin, follow, prove."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from layer2._observe import operation_context
from layer2._proving import NotSettledError, Prover
from layer2._quoting import quote_of_price
from layer2._stored_transfers import page_of
from layer2._transfer_arguments import TransferArguments, direction_of
from layer2._transfer_view import ends_a_wait, event_of, failure_of, step, transfer_of
from layer2.addresses import Address, EvmAddress, InvoiceText, LightningAddress, LnurlPay, NodeId, parse_address
from layer2.assets import BTC, AssetId, AssetRegistry, check_amount
from layer2.errors import (
    AddressError,
    AmountError,
    AssetError,
    AsyncRuntimeError,
    AsyncTimeout,
    ConfigurationError,
    FeeLimitExceeded,
    IdempotencyConflict,
    NotFound,
    SwapRefused,
    TaskCancelled,
    ValidationError,
)
from layer2.proofs import TransferProof
from layer2.protocol import DEFAULT, Layer2ProtocolType, Timeout
from layer2.swaps import Price, SwapEngine, SwapRequests
from layer2.terms import SwapDirection
from layer2.transactions import check_idempotency_key
from layer2.transfers import Payer, Transfer, TransferEvent, TransferQuote, TransferState

if TYPE_CHECKING:
    from layer2._operations import Operations
    from layer2.config import Layer2Config
    from layer2.lightning import Invoice, LightningNode, LnurlClient
    from layer2.storage import StoredSwap, SwapJournal
    from layer2.swaps import Deal

__all__ = ["TransferService"]

logger: Final = logging.getLogger("layer2.transfers")

SAT_MSAT: Final = 1000


class TransferService:
    """Implements ``TransferHost``. One per manager."""

    def __init__(
        self,
        *,
        config: Layer2Config,
        engine: SwapEngine,
        journal: SwapJournal,
        requests: SwapRequests | None,
        prover: Prover,
        node: LightningNode | None,
        lnurl: LnurlClient,
        operations: Operations,
        registry: AssetRegistry,
    ) -> None:
        self._config = config
        self._registry = registry
        self._engine = engine
        self._journal = journal
        self._requests = requests
        self._prover = prover
        self._node = node
        self._lnurl = lnurl
        self._operations = operations
        self._keys: dict[str, tuple[asyncio.Lock, int]] = {}
        self._storing = asyncio.Lock()

    def check(
        self,
        asset: AssetId,
        amount: int,
        source: Layer2ProtocolType | str,
        destination: Layer2ProtocolType | str,
        recipient: Address | str | None,
        max_fee: int | None,
        payer: Payer,
        idempotency_key: str | None,
    ) -> TransferArguments:
        """Refuse what cannot be right, before anything is asked of anybody.

        Raises:
            ValidationError and its kinds: with the argument's name in ``field``.
        """
        if not isinstance(asset, AssetId):
            raise AssetError(
                f"asset_id is an AssetId, not {type(asset).__name__}", field="asset_id", hint="for example BTC"
            )
        check_amount(amount)
        direction = direction_of(source, destination)
        if asset != BTC:
            raise AssetError(f"{asset} has no form on Lightning, which moves BTC", field="asset_id")
        limit = self._config.swap.max_amount
        if limit is not None and amount > limit:
            raise AmountError(f"amount {amount} is above swap.max_amount = {limit}", field="amount")
        if max_fee is not None and (type(max_fee) is not int or max_fee < 0):
            raise AmountError(f"max_fee must be a whole number of base units, not {max_fee!r:.40}", field="max_fee")
        if payer not in ("self", "anyone"):
            raise ValidationError(f"payer is 'self' or 'anyone', not {payer!r:.40}", field="payer")
        if payer == "anyone" and direction is SwapDirection.SUBMARINE:
            raise ValidationError(
                "from BOB to Lightning your own account pays; payer='anyone' is for Lightning to BOB",
                field="payer",
                hint="leave payer out, or swap source and destination",
            )
        check_idempotency_key(idempotency_key)
        return TransferArguments(
            asset=asset,
            amount=amount,
            direction=direction,
            recipient=self._recipient(direction, recipient),
            max_fee=self._config.swap.max_fee(amount) if max_fee is None else max_fee,
            given_max_fee=max_fee,
            payer=payer,
            idempotency_key=idempotency_key,
        )

    def _recipient(self, direction: SwapDirection, recipient: Address | str | None) -> Address | None:
        if recipient is not None and not isinstance(recipient, str | Address):
            raise AddressError(
                f"recipient is text or an address of layer2, not {type(recipient).__name__}",
                field="recipient",
                hint="for an invoice give its text: invoice.text",
            )
        address = parse_address(recipient) if isinstance(recipient, str) else recipient
        if direction is SwapDirection.REVERSE:
            if address is not None and not isinstance(address, EvmAddress):
                raise AddressError("on BOB the recipient is an EVM address", field="recipient")
            if address is not None and self._requests is not None:
                place = self._requests.place
                if address.is_zero or address in (place.contract, place.token.contract):
                    raise AddressError(f"{address} cannot receive: what is sent there is lost", field="recipient")
            return address
        if isinstance(address, EvmAddress | NodeId):
            raise AddressError(
                "on Lightning the recipient of a transfer is an invoice, a Lightning address or an LNURL",
                field="recipient",
                hint="ask the payee for an invoice",
            )
        return address

    def _ready(self) -> SwapRequests:
        if self._requests is None:
            raise ConfigurationError(
                "transfers need BOB with a signer, and a swap provider",
                key="swap.provider_url",
                hint="set bob, signer and swap.provider_url, or use Layer2Config.embedded()",
            )
        return self._requests

    def _needs_node(self, arguments: TransferArguments) -> bool:
        if arguments.direction is SwapDirection.SUBMARINE:
            return arguments.recipient is None
        return arguments.payer == "self"

    async def _price(self, arguments: TransferArguments) -> Price:
        requests = self._ready()
        if self._needs_node(arguments) and self._node is None:
            submarine = arguments.direction is SwapDirection.SUBMARINE
            raise ConfigurationError(
                "no Lightning node is configured",
                key="lightning",
                hint="give a recipient: an invoice of the payee"
                if submarine
                else 'use payer="anyone" and show the invoice',
            )
        try:
            return await requests.price(
                arguments.direction,
                arguments.amount,
                max_fee_sat=arguments.max_fee,
                pays_itself=arguments.payer == "self",
            )
        except FeeLimitExceeded as error:
            if isinstance(error.quote, Price):
                error.quote = self._as_quote(arguments, error.quote, 0)
            raise

    async def quote(
        self, arguments: TransferArguments, timeout: Timeout, cancel: asyncio.Event | None
    ) -> TransferQuote:
        """What it would cost now. Takes and reserves nothing."""
        return await self._operations.run(
            lambda: self._quote(arguments),
            timeout=None if timeout is DEFAULT else timeout,
            cancel=cancel,
            what="a quote",
            slot=False,
            moves_money=False,
        )

    async def _quote(self, arguments: TransferArguments) -> TransferQuote:
        price = await self._price(arguments)
        rounding = 0
        if isinstance(arguments.recipient, InvoiceText):
            invoice = await self._readable(arguments, arguments.recipient.text, price)
            rounding = arguments.amount * SAT_MSAT - (invoice.amount_msat or 0)
        return self._as_quote(arguments, price, rounding)

    def _as_quote(self, arguments: TransferArguments, price: Price, rounding_msat: int) -> TransferQuote:
        place = self._ready().place
        return quote_of_price(
            arguments.direction,
            price,
            place.token,
            place.contract,
            rounding_msat=rounding_msat,
            payer=arguments.payer,
        )

    async def start_alone(self, arguments: TransferArguments) -> Transfer:
        """As ``start``; ended early, it asks for the transfer to be abandoned, since nobody has its handle."""
        ids: list[str] = []

        async def begin() -> Transfer:
            try:
                return await self.start(arguments, ids.append)
            except asyncio.CancelledError:
                self._give_up(ids)
                raise

        return await self._operations.run(begin, timeout=None, what="starting a transfer", slot=False)

    async def start(self, arguments: TransferArguments, begun: Callable[[str], None]) -> Transfer:
        """Agree with the provider and begin; the same key and arguments attach to the first transfer.

        ``begun`` is told the transfer's id before anything is stored under it.
        """
        if arguments.idempotency_key is None:
            return self.view(await self._begin(arguments, begun))
        async with self._key_lock(arguments.idempotency_key):
            known = await self._journal.by_key(arguments.idempotency_key)
            if known is not None:
                if not arguments.is_request(known.request_digest):
                    raise IdempotencyConflict.of(arguments.idempotency_key)
                begun(known.id)
                self._engine.take_up(known)
                return self.view(known)
            return self.view(await self._begin(arguments, begun))

    @asynccontextmanager
    async def _key_lock(self, key: str) -> AsyncIterator[None]:
        lock, waiting = self._keys.get(key, (asyncio.Lock(), 0))
        self._keys[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._keys[key]
            if waiting == 1:
                del self._keys[key]
            else:
                self._keys[key] = (lock, waiting - 1)

    async def _begin(self, arguments: TransferArguments, begun: Callable[[str], None]) -> StoredSwap:
        price = await self._price(arguments)
        deal = await self._deal(arguments, price)
        begun(deal.id)
        with operation_context(transfer_id=deal.id):
            return await self._stored_deal(arguments, deal)

    async def _stored_deal(self, arguments: TransferArguments, deal: Deal) -> StoredSwap:
        # Two at once could both take the last room below the bound.
        async with self._storing:
            self._ready().check_bound(deal)
            await self._engine.begin(
                deal,
                idempotency_key=arguments.idempotency_key,
                request_digest=arguments.digest,
                bind_hash=True,
            )
        return await self._journal.load(deal.id)

    async def _deal(self, arguments: TransferArguments, price: Price) -> Deal:
        requests = self._ready()
        max_fee = arguments.max_fee
        if arguments.direction is SwapDirection.REVERSE:
            claimer = arguments.recipient if isinstance(arguments.recipient, EvmAddress) else self._prover.account
            return await requests.reverse(claimer, price, max_fee_sat=max_fee, pays_itself=arguments.payer == "self")
        match arguments.recipient:
            case None:
                text = await requests.own_invoice(arguments.amount, price.policy)
            case InvoiceText(text=text):
                pass
            case LightningAddress() | LnurlPay() as payee:
                fetch = partial(self._lnurl.fetch_invoice, payee, arguments.amount * SAT_MSAT)
                text = (await self._operations.ask("asking a payee for an invoice", fetch)).text
            case _:
                raise AddressError("an EVM address cannot be paid over Lightning", field="recipient")
        await self._readable(arguments, text, price)
        return await requests.submarine(text, price, max_fee_sat=max_fee, own_invoice=arguments.recipient is None)

    async def _readable(self, arguments: TransferArguments, text: str, price: Price) -> Invoice:
        """An invoice that can be paid by a swap at this price. Raises as ``SwapRequests.read_invoice``."""
        invoice = self._ready().read_invoice(text, arguments.amount, price)
        if arguments.recipient is not None and self._node is not None:
            info = await self._operations.ask("asking the Lightning node who it is", self._node.info)
            if invoice.payee == info.node_id:
                raise SwapRefused(
                    "the invoice is of your own node", rule="own_invoice", hint="leave recipient out to pay yourself"
                )
        return invoice

    async def get(self, transfer_id: str) -> Transfer:
        """A transfer as it stands. Raises ``NotFound``."""
        return self.view(await self._journal.load(transfer_id))

    async def page(self, *, state: TransferState | str | None, limit: int, after: str | None) -> list[Transfer]:
        """Transfers, newest first.

        Raises:
            ValidationError: ``state`` cannot be right. NotFound: no transfer has the id ``after``.
        """
        return await page_of(self._journal, self.view, state=state, limit=limit, after=after)

    def view(self, swap: StoredSwap) -> Transfer:
        """A swap as its user sees it."""
        return transfer_of(swap, self, self._registry)

    async def transfer_events(self, transfer_id: str) -> AsyncIterator[TransferEvent]:
        """See ``Transfer.events``."""
        seen = 0
        # Followed before the history is read: nothing falls between the two, however long the reader takes for a step.
        async with aclosing(self._engine.follow(transfer_id)) as changes:
            async for swap in changes:
                if swap.version <= seen:
                    continue
                steps = [event_of(swap)]
                if swap.version > seen + 1:
                    kept = await self._journal.events(transfer_id)
                    steps = [
                        step(transfer_id, each.version, each.state, each.at_ms) for each in kept if each.version > seen
                    ]
                for each in steps:
                    seen = each.version
                    yield each
                if steps[-1].state.is_final:
                    return

    async def transfer_cancel(self, transfer_id: str, timeout: Timeout) -> bool:
        """See ``Transfer.cancel_async``."""

        async def abandoned() -> bool:
            self._engine.cancel(transfer_id)
            swap = await self._journal.load(transfer_id)
            state = swap.state
            if state.cancellable and not swap.restored:
                state = (await self._engine.wait_for(transfer_id, lambda state: not state.cancellable)).state
            return not state.committed and not state.settled

        return await self._operations.run(
            abandoned,
            timeout=timeout,
            what="cancelling a transfer",
            transfer_id=transfer_id,
            slot=False,
            repeatable=True,
        )

    async def transfer_result(self, transfer_id: str, timeout: Timeout, cancel: asyncio.Event | None) -> TransferProof:
        """See ``Transfer.result_async``."""
        while True:
            await self._end_of_wait(transfer_id, timeout, cancel)
            try:
                return await self._prover.proof_of(transfer_id)
            except NotSettledError:
                # A reorganisation took the last step back between the two: it is waited for again.
                continue

    async def _end_of_wait(self, transfer_id: str, timeout: Timeout, cancel: asyncio.Event | None) -> None:
        """Wait until a transfer is settled; raise what became of it instead."""
        try:
            swap = await self._operations.run(
                lambda: self._engine.wait_for(transfer_id, ends_a_wait),
                timeout=timeout,
                cancel=cancel,
                what="waiting for a transfer",
                transfer_id=transfer_id,
                slot=False,
                awaits=True,
                repeatable=True,
            )
        except (AsyncTimeout, TaskCancelled) as error:
            error.run_again_by = self._engine.act_by(transfer_id)
            raise
        if (failure := failure_of(swap)) is not None:
            raise failure

    async def run_to_end(
        self, arguments: TransferArguments, timeout: Timeout, cancel: asyncio.Event | None
    ) -> TransferProof:
        """Begin and wait for the end; ending the wait abandons the transfer only if nothing was bound yet.

        Raises:
            AsyncTimeout: with the transfer's id, under which it goes on.
            TaskCancelled: ``goes_on`` says whether it does.
        """
        ids: list[str] = []
        began_s = asyncio.get_running_loop().time()

        async def work() -> TransferProof:
            transfer = await self.start(arguments, ids.append)
            return await self.transfer_result(transfer.id, None, None)

        try:
            return await self._operations.run(
                work,
                timeout=timeout,
                cancel=cancel,
                what="a transfer",
                slot=False,
                repeatable=arguments.idempotency_key is not None,
            )
        except AsyncTimeout as error:
            swap = await self._stored(ids) or await self._under(arguments.idempotency_key)
            error.transfer_id = None if swap is None else swap.id
            error.run_again_by = None if swap is None else self._engine.act_by(swap.id)
            error.money_may_have_moved = swap is not None
            error.retry_safe = swap is None or arguments.idempotency_key is not None
            error.hint = "nothing was begun: ask again, with more time" if swap is None else _goes_on(swap)
            raise
        except TaskCancelled as error:
            left_s = self._operations.default_timeout_s
            if isinstance(timeout, int | float):
                left_s = max(0.0, timeout - (asyncio.get_running_loop().time() - began_s))
            swap = await self._stored(ids)
            earlier = None if swap is not None else await self._under(arguments.idempotency_key)
            if earlier is not None:
                error.transfer_id, error.goes_on = earlier.id, not earlier.state.final
                error.run_again_by, error.hint = self._engine.act_by(earlier.id), _goes_on(earlier)
            else:
                await self._abandon(error, swap, left_s)
            error.money_may_have_moved = earlier is not None or error.goes_on is not False
            error.retry_safe = not error.money_may_have_moved or arguments.idempotency_key is not None
            raise
        except asyncio.CancelledError:
            # The task's own cancellation: ask for the transfer to be abandoned, and let the exception pass at once.
            self._give_up(ids)
            raise

    async def _abandon(self, error: TaskCancelled, swap: StoredSwap | None, timeout: Timeout) -> None:
        """Abandon what a cancelled call has begun, and let the error say whether that went."""
        error.goes_on = False
        if swap is not None:
            error.transfer_id = swap.id
            try:
                error.goes_on = not await self.transfer_cancel(swap.id, timeout)
            except (AsyncTimeout, AsyncRuntimeError):
                error.goes_on = None
                error.hint = "it is abandoned if nothing was bound yet, which is not known: look at transfer_id"
            if error.goes_on is not False:
                error.run_again_by = (await self.get(swap.id)).act_by
            if error.goes_on:
                error.hint = _goes_on(swap)
        if error.goes_on is False:
            error.hint = "nothing was begun, or it was abandoned before anything was bound"

    async def _stored(self, ids: list[str]) -> StoredSwap | None:
        """What was begun under an id, if the store has it: a call may end between the two."""
        if not ids:
            return None
        try:
            return await self._journal.load(ids[0])
        except NotFound:
            return None

    async def _under(self, key: str | None) -> StoredSwap | None:
        """What an earlier call has begun under a key."""
        return None if key is None else await self._journal.by_key(key)

    def _give_up(self, ids: list[str]) -> None:
        for transfer_id in ids:
            self._engine.cancel(transfer_id)


def _goes_on(swap: StoredSwap) -> str:
    """What to do about a transfer for which nobody waits any more."""
    if swap.state.final:
        return f"transfer {swap.id} is over: look at it by its id"
    return f"transfer {swap.id} goes on without this call: follow it up with its id"
