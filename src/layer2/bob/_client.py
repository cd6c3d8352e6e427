"""BOB as a layer: calls, transfers, statuses and proofs on an OP-Stack chain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from layer2._clock import Clock, SystemClock
from layer2._closing import Closing
from layer2._operations import Operations
from layer2.addresses import Address, EvmAddress, parse_address
from layer2.assets import AssetForm, AssetId, AssetRegistry, check_amount, convert_amount
from layer2.bob._endpoint import BindChain, check_endpoint
from layer2.bob._fees import OpStackFees
from layer2.errors import (
    AddressError,
    AssetError,
    AsyncRuntimeError,
    AsyncTimeout,
    InsufficientFunds,
    NodeNotReady,
    ProofError,
    SignerError,
    TaskCancelled,
    ValidationError,
)
from layer2.evm import (
    HTLC_ADDRESS,
    EvmClient,
    FeeLimits,
    Heads,
    NoDataFee,
    SenderSettings,
    StatusReader,
    SubmitProgress,
    TxJournal,
    TxSender,
    decode_transaction,
    decode_uint,
    encode_balance_of,
    encode_call,
    encode_transfer,
    send_foreign,
)
from layer2.protocol import DEFAULT, Capabilities, Layer2ProtocolAsync, Layer2ProtocolType, Signer, Timeout
from layer2.transactions import (
    Depth,
    EvmCall,
    Outcome,
    SignedEvmTransaction,
    Transaction,
    TxId,
    TxStatus,
    check_depth,
    check_idempotency_key,
    read_tx_id,
)

if TYPE_CHECKING:
    from layer2.bob._chains import ChainPreset
    from layer2.evm import RpcTransport
    from layer2.proofs import Proof, ProvenReceipt, ProvenSlot

__all__ = ["BobClient"]

T = TypeVar("T")
_Submit: TypeAlias = Callable[[SubmitProgress], Awaitable[TxStatus]]
_PROOF_KINDS = ("evm_receipt", "evm_storage")


class BobClient(Layer2ProtocolAsync):
    """The user's account on BOB, or on any chain of ``preset``.

    Everything it works with is given to it: the transport (which it closes), the signer (None: reading only), the registry of
    assets, the journal of transactions, the clock, the bounds on fees. ``operations`` shares slots and limits with other layers.
    ``bind_chain`` (``Store.bind_chain``) keeps what is stored from being carried on on another chain of the same id.
    """

    def __init__(
        self,
        *,
        transport: RpcTransport,
        signer: Signer | None,
        registry: AssetRegistry,
        journal: TxJournal,
        preset: ChainPreset,
        clock: Clock | None = None,
        limits: FeeLimits | None = None,
        settings: SenderSettings | None = None,
        operations: Operations | None = None,
        htlc_contract: EvmAddress = HTLC_ADDRESS,
        bind_chain: BindChain | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.preset = preset
        self.registry = registry
        self.htlc_contract = htlc_contract
        self._operations = operations or Operations(owner="BOB")
        self._owns_operations = operations is None
        self._rpc = EvmClient(transport)
        self._journal = journal
        self._bind_chain = bind_chain
        self._settings = settings or SenderSettings(
            layer=Layer2ProtocolType.BOB.value,
            max_unconfirmed_per_key=preset.max_unconfirmed_per_key,
            poll_interval_s=preset.poll_interval_s,
            heads_max_age_s=preset.heads_max_age_s,
            idle_poll_interval_s=min(15.0, max(preset.poll_interval_s, preset.heads_max_age_s)),
            send_timeout_s=self._operations.default_timeout_s,
        )
        self._clock = clock
        self._sender = (
            None
            if signer is None
            else TxSender(
                self._rpc,
                signer,
                journal,
                chain_id=preset.chain_id,
                clock=clock,
                limits=limits,
                data_fee=OpStackFees(self._rpc, clock) if preset.op_stack else NoDataFee(),
                settings=self._settings,
            )
        )
        heads = Heads(self._rpc, clock, max_age_s=self._settings.heads_max_age_s)
        self._reader = StatusReader(self._rpc, journal, heads, lambda _: None, layer=self._settings.layer)
        self._token_decimals: dict[EvmAddress, int] = {}
        self._initialized = False
        self._closing = Closing(self._operations, "closing BOB", self._close)
        self._start_lock = asyncio.Lock()

    @property
    def protocol_type(self) -> str:
        """``bob``."""
        return Layer2ProtocolType.BOB

    @property
    def capabilities(self) -> Capabilities:
        """Contracts and EVM proofs, at every depth."""
        depths = (Depth.PENDING, Depth.INCLUDED, Depth.SAFE, Depth.FINALIZED)
        return Capabilities(hold_invoices=False, proofs=_PROOF_KINDS, depths=depths, smart_contracts=True)

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id."""
        return self.preset.chain_id

    @property
    def account(self) -> EvmAddress:
        """The user's account.

        Raises:
            SignerError: there is none.
        """
        return self.sender.account

    @property
    def rpc(self) -> EvmClient:
        """The chain's endpoint, typed."""
        return self._rpc

    @property
    def sender(self) -> TxSender:
        """What sends the account's transactions.

        Raises:
            SignerError: there is no signer.
        """
        if self._sender is None:
            raise SignerError("this account only reads: no signer is configured", hint="configure one, or pass signer=")
        return self._sender

    async def initialize_async(self, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None) -> None:
        """Check the chain id, and take up the account's unfinished transactions. Idempotent.

        Raises:
            ConfigurationError: the endpoint serves another chain, by its id or by its first block; NodeError: it does not answer.
        """
        self._operations.open()

        async def start() -> None:
            async with self._start_lock:
                if self._initialized:
                    return
                await check_endpoint(self._rpc, self.preset, self._bind_chain)
                if self._sender is not None:
                    await self._sender.start()
                self._initialized = True

        await self._operations.run(start, timeout=timeout, cancel=cancel, what="initialising BOB", moves_money=False)

    async def submit_transaction_async(
        self, transaction: Transaction, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """Send a call or a signed transaction. Returns when a node took it.

        Waiting for the account's turn counts towards an explicit ``timeout`` only.

        Raises:
            Reverted, InsufficientFunds, FeeLimitExceeded, IdempotencyConflict, ValidationError: nothing was sent.
            AsyncTimeout, TaskCancelled, UnknownOutcome: with ``tx_id`` if it may be under way.
        """
        self._check("submit_transaction_async")
        if isinstance(transaction, EvmCall):
            return await self._submit(transaction, transaction.idempotency_key, timeout, cancel)
        if not isinstance(transaction, SignedEvmTransaction):
            raise ValidationError(f"BOB does not take a {type(transaction).__name__}", field="transaction")
        signed = decode_transaction(transaction.raw)
        if signed.transaction.chain_id != self.preset.chain_id:
            raise ValidationError(
                f"the transaction is for chain {signed.transaction.chain_id}, not {self.preset.chain_id}", field="raw"
            )
        if self._sender is not None and signed.sender == self._sender.account:
            sender, key = self._sender, transaction.idempotency_key

            async def submit_own(progress: SubmitProgress) -> TxStatus:
                record = await sender.submit_signed(signed.raw, key=key, progress=progress)
                return await self._status_after(record.hash, progress)

            return await self._submitting(submit_own, timeout, cancel, repeatable=True)  # one nonce
        tx_id = TxId(layer=Layer2ProtocolType.BOB, hash=signed.hash)

        async def submit_foreign() -> TxStatus:
            await send_foreign(self._rpc, signed, self._clock, tx_id=tx_id)
            return TxStatus(tx_id=tx_id, outcome=Outcome.NONE, depth=Depth.PENDING)

        what = "sending a signed transaction"
        return await self._operations.run(
            submit_foreign, timeout=timeout, cancel=cancel, what=what, tx_id=tx_id, repeatable=True
        )

    async def get_transaction_status_async(
        self, tx_id: TxId | str, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> TxStatus:
        """Outcome and depth now. A transaction that nobody here knows is ``Outcome.UNKNOWN``, not failed."""
        self._check("get_transaction_status_async")
        parsed = read_tx_id(tx_id, Layer2ProtocolType.BOB)
        status = self._reader.status if self._sender is None else self._sender.status
        return await self._operations.run(
            lambda: status(parsed.hash),
            timeout=timeout,
            cancel=cancel,
            what=f"the status of {parsed}",
            name="the status of a transaction",
            tx_id=parsed,
            moves_money=False,
        )

    async def wait_for_transaction_async(
        self,
        tx_id: TxId | str,
        depth: Depth = Depth.INCLUDED,
        *,
        timeout: Timeout = None,
        cancel: asyncio.Event | None = None,
    ) -> TxStatus:
        """Wait until the outcome is known at ``depth``. No limit by default."""
        self._check("wait_for_transaction_async")
        check_depth(depth)
        parsed = read_tx_id(tx_id, Layer2ProtocolType.BOB)
        alone = partial(self._reader.wait, clock=self._clock, pause_s=self._settings.poll_interval_s)
        wait = alone if self._sender is None else self._sender.wait
        return await self._operations.run(
            lambda: wait(parsed.hash, depth),
            timeout=None if timeout is DEFAULT else timeout,
            cancel=cancel,
            what=f"waiting for {parsed}",
            name="waiting for a transaction",
            tx_id=parsed,
            slot=False,
            awaits=True,
            moves_money=False,
        )

    async def transfer_asset_async(
        self,
        asset_id: AssetId,
        amount: int,
        recipient: Address | str,
        *,
        idempotency_key: str | None = None,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
    ) -> TxId:
        """Send ``amount`` (in the asset's base unit) to an account on this chain. Returns when a node took it.

        Raises:
            AmountError, AssetError, AddressError: the arguments cannot be right.
            InsufficientFunds: of the asset, or of ETH for gas. Nothing was sent.
        """
        self._check("transfer_asset_async")
        check_amount(amount)
        check_idempotency_key(idempotency_key)
        form = self.registry.form(asset_id, self.preset.chain_id)
        to = self._recipient(recipient, form)
        units = convert_amount(amount, asset_id.decimals, form.decimals)
        token = form.contract
        call = EvmCall(to=token, data=encode_transfer(to, units)) if token else EvmCall(to=to, value_wei=units)

        async def ready() -> None:
            if token is not None:
                await self._check_token(token, form)
                await self._check_balance(form, units)

        return (await self._submit(call, idempotency_key, timeout, cancel, ready)).tx_id

    async def verify_proof_async(
        self, proof: Proof, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None
    ) -> bool:
        """Whether a receipt or storage proof holds, and its block is the one this endpoint has at that height.

        Raises:
            ProofError: not a proof about this chain. NodeNotReady: the endpoint does not have that height yet.
        """
        self._check("verify_proof_async")
        from layer2.proofs import EvmReceiptProof, EvmStorageProof

        if not isinstance(proof, EvmReceiptProof | EvmStorageProof):
            raise ProofError(f"BOB does not verify a {type(proof).__name__}", check="kind")
        if proof.chain_id != self.preset.chain_id:
            raise ProofError(f"the proof is about chain {proof.chain_id}, not {self.preset.chain_id}", check="chain_id")
        try:
            proven: ProvenReceipt | ProvenSlot = await asyncio.to_thread(proof.evaluate)
        except ProofError:
            return False
        block = proven.header

        async def canonical() -> bool:
            header = await self._rpc.header(block.number)
            if header is None:
                raise NodeNotReady(f"the endpoint has no block {block.number} yet", retry_safe=True)
            return header.hash == block.hash

        return await self._read(canonical, timeout, cancel, "verifying a proof", None)

    async def balance_async(
        self,
        asset_id: AssetId,
        account: EvmAddress | str | None = None,
        *,
        timeout: Timeout = DEFAULT,
        cancel: asyncio.Event | None = None,
    ) -> int:
        """What the account (None: the user's) holds, in the asset's base unit, rounded down.

        Raises:
            AssetError: the asset has no form here. AddressError: ``account`` is no EVM address.
        """
        self._check("balance_async")
        form = self.registry.form(asset_id, self.preset.chain_id)
        holder = EvmAddress.parse(account) if isinstance(account, str) else self.account if account is None else account
        if not isinstance(holder, EvmAddress):
            raise AddressError(f"account is an EVM address, not a {type(holder).__name__}", field="account")
        units = await self._read(lambda: self._units(form, holder), timeout, cancel, "reading a balance", None)
        return int(units * 10**asset_id.decimals // 10**form.decimals)

    async def close_async(self, *, timeout: Timeout = DEFAULT, cancel: asyncio.Event | None = None) -> None:
        """End tasks and connections; transactions under way stay in the journal. Idempotent, bounded: see the interface."""
        self._operations.check_place("close_async")
        await self._closing.wait(timeout=timeout, cancel=cancel)

    async def _close(self, caller: asyncio.Task[object] | None) -> None:
        if self._owns_operations:
            await self._operations.close_async(besides=caller)
        if self._sender is not None:
            await self._sender.close()
        await self._rpc.close()

    def _check(self, what: str) -> None:
        self._operations.check(what)
        if self._closing.begun or not self._initialized:
            raise AsyncRuntimeError(
                f"{what}: BOB is {'closed' if self._closing.begun else 'not initialised'}",
                hint="make a new client" if self._closing.begun else "await initialize_async() first",
            )

    async def _read(
        self,
        factory: Callable[[], Awaitable[T]],
        timeout: Timeout,
        cancel: asyncio.Event | None,
        what: str,
        tx_id: TxId | None,
    ) -> T:
        return await self._operations.run(
            factory, timeout=timeout, cancel=cancel, what=what, tx_id=tx_id, moves_money=False
        )

    async def _submitting(
        self, submit: _Submit, timeout: Timeout, cancel: asyncio.Event | None, *, repeatable: bool, keyed: bool = False
    ) -> TxStatus:
        """Run a submission without a slot, since most of it waits for the account's turn; its network operations have their own."""
        progress = SubmitProgress()

        def known_id() -> TxId | None:
            record = progress.record
            return None if record is None else TxId(layer=self._settings.layer, hash=record.hash)

        try:
            return await self._operations.run(
                lambda: submit(progress),
                timeout=None if timeout is DEFAULT else timeout,
                cancel=cancel,
                what="sending a transaction",
                tx_id=known_id,
                slot=False,
                repeatable=repeatable,
                keyed=keyed,
            )
        except (TaskCancelled, AsyncTimeout, AsyncRuntimeError) as error:
            if not progress.begun and (progress.looked or not keyed):
                error.money_may_have_moved, error.retry_safe = False, True
                error.hint = "nothing was sent: make the same call again when you like"
                if isinstance(error, TaskCancelled):
                    error.goes_on = False
            raise

    async def _submit(
        self,
        call: EvmCall,
        key: str | None,
        timeout: Timeout,
        cancel: asyncio.Event | None,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> TxStatus:
        sender = self.sender

        async def prepare() -> int:
            if ready is not None:
                await ready()
            return await sender.estimate(call)

        async def estimate() -> int:
            return await self._read(prepare, DEFAULT, None, "preparing a transaction", None)

        async def submit(progress: SubmitProgress) -> TxStatus:
            record = await sender.submit(call, key=key, progress=progress, estimate=estimate)
            return await self._status_after(record.hash, progress)

        return await self._submitting(submit, timeout, cancel, repeatable=key is not None, keyed=key is not None)

    async def _status_after(self, tx_hash: bytes, progress: SubmitProgress) -> TxStatus:
        if progress.attached:
            return await self.sender.status(tx_hash)
        tx_id = TxId(layer=self._settings.layer, hash=tx_hash)
        return TxStatus(tx_id=tx_id, outcome=Outcome.NONE, depth=Depth.PENDING)

    def _recipient(self, recipient: Address | str, form: AssetForm) -> EvmAddress:
        address = parse_address(recipient) if isinstance(recipient, str) else recipient
        if not isinstance(address, EvmAddress):
            raise AddressError(
                f"BOB pays EVM addresses, not a {type(address).__name__}",
                field="recipient",
                hint="to pay a Lightning invoice from BOB, use a cross-layer transfer",
            )
        if address.is_zero:
            raise AddressError("what is sent to the zero address is lost", field="recipient")
        if address == form.contract:
            raise AddressError(
                "the recipient is the token's own contract; what is sent there is lost", field="recipient"
            )
        if address == self.htlc_contract:
            raise AddressError("the recipient is the HTLC contract; what is sent there is lost", field="recipient")
        return address

    async def _check_token(self, contract: EvmAddress, form: AssetForm) -> None:
        """A token with other decimals than the registry says would move another amount."""
        if contract not in self._token_decimals:
            if not await self._rpc.code(contract):
                raise AssetError(f"there is no contract at {contract}, which is to be {form.asset}", field="asset_id")
            self._token_decimals[contract] = decode_uint(await self._rpc.call(contract, encode_call("decimals()")), 8)
        if self._token_decimals[contract] != form.decimals:
            raise AssetError(
                f"the token {contract} has {self._token_decimals[contract]} decimals, not {form.decimals}",
                field="asset_id",
                hint="correct the asset registry",
            )

    async def _check_balance(self, form: AssetForm, units: int) -> None:
        available = await self._units(form, self.account)
        if available < units:
            raise InsufficientFunds(
                f"the account {self.account} holds {available} of {form.asset} and needs {units}",
                coin=form.asset.name,
                needed=units,
                available=available,
                account=str(self.account),
            )

    async def _units(self, form: AssetForm, holder: EvmAddress) -> int:
        if form.contract is None:
            return await self._rpc.balance(holder)
        return decode_uint(await self._rpc.call(form.contract, encode_balance_of(holder)))
