"""Makes the proof of a settled transfer, keeps it, and checks proofs against our own node's chain."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from layer2._inputs import check_text
from layer2._observe import log_event
from layer2._quoting import form_of, to_asset
from layer2.errors import Layer2Error, NotFound, ProofError, UnexpectedReply
from layer2.lightning import PaymentState
from layer2.proofs import (
    Fee,
    Report,
    TransferProof,
    collect_lock_proof,
    collect_receipt_proof,
    verify_transfer_proof,
)
from layer2.terms import SwapDirection
from layer2.transactions import Depth

if TYPE_CHECKING:
    from layer2.addresses import EvmAddress
    from layer2.assets import AssetRegistry
    from layer2.bob import BobClient
    from layer2.evm import BlockRef, TxJournal
    from layer2.lightning import LightningNode
    from layer2.proofs import EvmReceiptProof, EvmStorageProof
    from layer2.storage import StoredSwap, SwapJournal
    from layer2.swaps import Deal
    from layer2.terms import DepthPolicy

__all__ = ["NotSettledError", "Prover"]

logger: Final = logging.getLogger("layer2.proofs")


class NotSettledError(NotFound):
    """There is no proof of what is not settled, or not any more."""


class Prover:
    """Proves our settled transfers. ``bob`` is the client whose chain it reads."""

    def __init__(
        self,
        *,
        bob: BobClient,
        journal: SwapJournal,
        registry: AssetRegistry,
        contract: EvmAddress,
        transactions: TxJournal,
        node: LightningNode | None,
    ) -> None:
        self._bob = bob
        self._transactions = transactions
        self._node = node
        self._journal = journal
        self._registry = registry
        self._contract = contract
        self._making: dict[str, asyncio.Lock] = {}

    @property
    def account(self) -> EvmAddress:
        """Our account on the chain."""
        return self._bob.account

    async def proof_of(self, transfer_id: str) -> TransferProof:
        """The proof of a settled transfer, made now if there is none yet, or if a reorg took its block away.

        Raises:
            NotFound: no such transfer, or it is not settled.
        """
        check_text(transfer_id, "transfer_id")
        async with self._making.setdefault(transfer_id, asyncio.Lock()):
            try:
                kept = await self._journal.proof(transfer_id)
                if kept is not None:
                    proof = TransferProof.from_json(kept)
                    if await self._is_canonical(proof):
                        return proof
                return await self._make(await self._journal.load(transfer_id))
            finally:
                self._making.pop(transfer_id, None)

    async def _make(self, swap: StoredSwap) -> TransferProof:
        preimage = getattr(swap.state, "preimage", None)
        if preimage is None:
            raise NotSettledError(f"transfer {swap.deal.id} is not settled, so there is no proof of it")
        terms = swap.deal.terms
        block = await self._deep_block(terms.depth_policy)
        storage: EvmStorageProof | None = None
        receipt: EvmReceiptProof | None = None
        try:
            storage = await collect_lock_proof(self._request, terms.lock, block=block)
        except Layer2Error as error:
            text = f"the endpoint serves no storage proof ({error}); taking the receipt's"
            log_event(logger, logging.INFO, "proofs.receipt_taken", text, transfer_id=swap.deal.id)
            receipt = await collect_receipt_proof(
                self._request, chain_id=terms.lock.chain_id, tx_hash=await self._claim_transaction(swap, block)
            )
        proof = TransferProof(
            signed_terms=swap.deal.signed,
            preimage=preimage,
            storage=storage,
            receipt=receipt,
            fees=await self._fees(swap),
            depth=terms.depth_policy.depth,
        )
        await self._journal.put_proof(swap.deal.id, proof.blocks[0].hash, proof.to_json())
        return proof

    async def _fees(self, swap: StoredSwap) -> tuple[Fee, ...]:
        """The provider's fee, which the terms fix, and what else is known of the costs by now."""
        form = form_of(self._registry, swap.deal.terms.lock)
        coin = form.asset.name
        fees = [Fee(name="provider", coin=coin, amount=to_asset(swap.deal.terms.provider_fee, form))]
        try:
            if (routing_msat := await self._routing_msat(swap.deal)) is not None:
                fees.append(Fee(name="routing", coin=coin, amount=-(-routing_msat // 1000)))
            if (gas_wei := await self._gas_wei(swap.deal)) is not None:
                fees.append(Fee(name="gas", coin="ETH", amount=gas_wei))
        except Layer2Error as error:
            text = f"not all costs are known, so the proof lists fewer: {error}"
            log_event(logger, logging.INFO, "proofs.fees_unknown", text, transfer_id=swap.deal.id)
        return tuple(fees)

    async def _routing_msat(self, deal: Deal) -> int | None:
        if self._node is None or deal.direction is SwapDirection.SUBMARINE or not deal.pays_itself:
            return None
        payment = await self._node.lookup_payment(deal.terms.lock.preimage_hash)
        return payment.fee_msat if payment.state is PaymentState.SUCCEEDED else None

    async def _gas_wei(self, deal: Deal) -> int | None:
        """What the swap's own lock or claim cost; None if none of its transactions is in the chain."""
        record = await self._transactions.get(
            f"swap:{deal.id}:{'lock' if deal.direction is SwapDirection.SUBMARINE else 'claim'}"
        )
        for variant in reversed(() if record is None else record.variants):
            receipt = await self._bob.rpc.exits.receipt(variant.hash)
            if receipt is not None:
                return receipt.fee_wei
        return None

    async def _request(self, method: str, params: list[object]) -> object:
        return await self._bob.rpc.exits.request(method, *params)

    async def _deep_block(self, policy: DepthPolicy) -> int:
        tags: dict[Depth, BlockRef] = {Depth.SAFE: "safe", Depth.FINALIZED: "finalized"}
        tag = tags.get(policy.depth, "latest")
        header = await self._bob.rpc.header(tag)
        if header is None:
            raise UnexpectedReply(f"the endpoint has no block {tag!r}")
        back = policy.confirmations - 1 if policy.depth is Depth.INCLUDED else 0
        return max(0, header.number - back)

    async def _claim_transaction(self, swap: StoredSwap, block: int) -> bytes:
        from layer2.evm import CLAIM_TOPIC

        lock = swap.deal.terms.lock
        since = max(0, block - 60 * 24 * 3600 // max(1, swap.deal.terms.timing.evm_block_s))
        pages = self._bob.rpc.logs(
            from_block=since, to_block=block, address=lock.contract, topics=(CLAIM_TOPIC, lock.lock_id)
        )
        async for logs in pages:
            if logs:
                return logs[-1].tx_hash
        raise UnexpectedReply("the endpoint shows no claim of a lock that it shows as claimed")

    async def _is_canonical(self, proof: TransferProof) -> bool:
        for block in proof.blocks:
            if (await self._anchor(block.number))[0] != block.hash:
                return False
        return True

    async def _anchor(self, number: int) -> tuple[bytes, Depth]:
        """The hash that our node has at a height now, and how deep it is."""
        header = await self._bob.rpc.header(number)
        if header is None:
            raise UnexpectedReply(f"the endpoint has no block {number}")
        heads: tuple[tuple[BlockRef, Depth], ...] = (("finalized", Depth.FINALIZED), ("safe", Depth.SAFE))
        for tag, depth in heads:
            head = await self._bob.rpc.header(tag)
            if head is not None and number <= head.number:
                return header.hash, depth
        return header.hash, Depth.INCLUDED

    async def report(self, proof: TransferProof) -> Report:
        """Every check of a proof, with the blocks of our own node as anchors.

        Raises:
            ProofError: no proof of a transfer, or not of this chain. NodeError: the node could not be asked.
        """
        if not isinstance(proof, TransferProof):
            raise ProofError(
                f"the proof is a TransferProof, not {type(proof).__name__}",
                check="kind",
                hint="from JSON: TransferProof.from_json(text)",
            )
        if proof.terms.lock.chain_id != self._bob.chain_id:
            raise ProofError(
                f"the proof is about chain {proof.terms.lock.chain_id}; this manager knows chain {self._bob.chain_id}",
                check="anchor",
            )
        # Whatever our node has at these heights is trusted, so that a block which a reorg took away fails the check.
        trusted = dict([await self._anchor(block.number) for block in proof.blocks])
        return verify_transfer_proof(
            proof,
            trusted_blocks=trusted,
            contracts={self._bob.chain_id: [self._contract]},
            assets=self._registry,
        )
