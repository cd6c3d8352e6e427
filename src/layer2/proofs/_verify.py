"""The verifier of transfer proofs: no network, no store, no clock. Format and trust are described in docs/proofs.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Final

from layer2._crypto import CURVE_ORDER, sha256
from layer2.addresses import EvmAddress
from layer2.assets import AssetForm, AssetRegistry
from layer2.errors import Layer2Error, ProofError, ValidationError
from layer2.evm._artifacts import HTLC_ADDRESS, HTLC_CODE_HASH
from layer2.evm._htlc import LockPhase, decode_state, storage_slot
from layer2.evm._htlc_events import ClaimEvent, decode_htlc_event
from layer2.lightning import Invoice, decode_invoice
from layer2.proofs._evm import EvmReceiptProof, EvmStorageProof, verify_account
from layer2.proofs._format import require
from layer2.proofs._receipts import Log
from layer2.proofs._report import Check, CheckResult, Report
from layer2.proofs._transfer import TransferExpectations, TransferProof
from layer2.terms import SwapDirection, SwapTerms
from layer2.transactions import Depth

__all__ = ["CODE_HASHES", "NOT_PROVED", "verify_transfer_proof"]

NOT_PROVED: Final = (
    "that anybody gained: two parties in collusion, or one with itself, can make a true proof of a pointless transfer",
    "who paid the invoice: invoice and preimage show that its payee was satisfied, not by whom",
    "the depth and the fees beside the provider's: they are what the maker of the proof says",
)
"""What no transfer proof shows."""

CODE_HASHES: Final = frozenset({HTLC_CODE_HASH})
"""Of the HTLC contract in every release, so that old proofs stay readable."""


class _Unchecked(Exception):
    """The check could not be made."""


class _Skipped(Exception):
    """The check is not needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchors:
    """What the caller believes."""

    blocks: Mapping[bytes, Depth | None]
    contracts: Mapping[int, frozenset[EvmAddress]] | None
    assets: AssetRegistry | None
    expected: SwapTerms | TransferExpectations | None
    min_depth: Depth | None


def verify_transfer_proof(
    proof: TransferProof | str | bytes,
    *,
    trusted_blocks: Mapping[bytes, Depth] | Iterable[bytes],
    assets: AssetRegistry | None = None,
    contracts: Mapping[int, Iterable[EvmAddress | str]] | None = None,
    expected: SwapTerms | TransferExpectations | None = None,
    min_depth: Depth | None = None,
) -> Report:
    """Check a transfer proof with nothing but what is given here.

    Args:
        proof: The proof, or its JSON text.
        trusted_blocks: Hashes of blocks that the caller knows to be of the chain that the terms name; as a mapping, with
            the depth at which it knows them.
        assets: Which token is which asset. The token of the lock must be one of them. None: what the token is worth is not
            known, and the checks ``token`` and ``amounts`` are not made.
        contracts: Chain id -> addresses of the HTLC contract there. None: the address that follows from its code, which
            is one and the same on every chain.
        expected: What the terms must be, or must say. None: whatever the proof says is to be shown.
        min_depth: How deep each block of the proof must be known to be; needs a mapping of trusted blocks.

    Raises:
        ProofError: it is not a transfer proof at all, or one of another version. That a check failed is in the report.
        ValidationError: ``trusted_blocks`` holds something that is not a block hash, or ``expected`` is of another type.
        AddressError: an address in ``contracts`` is malformed.
    """
    wanted: object = expected
    if not isinstance(wanted, (SwapTerms, TransferExpectations, NoneType)):
        raise ValidationError("expected is SwapTerms or TransferExpectations", field="expected")
    # A proof that was put together in Python goes through its text too: what is checked is what would be written.
    proof = TransferProof.from_json(proof.to_json() if isinstance(proof, TransferProof) else proof)
    anchors = _Anchors(
        blocks=_trusted(trusted_blocks),
        contracts=None if contracts is None else {chain: _addresses(known) for chain, known in contracts.items()},
        assets=assets,
        expected=expected,
        min_depth=min_depth,
    )
    checks = tuple(_run(name, check) for name, check in _checks(proof, anchors))
    return Report(checks=checks, trusted=_rests_on(proof, anchors), notes=_notes(proof))


def _addresses(known: Iterable[EvmAddress | str]) -> frozenset[EvmAddress]:
    return frozenset(EvmAddress.parse(address) if isinstance(address, str) else address for address in known)


def _trusted(blocks: Mapping[bytes, Depth] | Iterable[bytes]) -> Mapping[bytes, Depth | None]:
    given: dict[bytes, Depth | None] = {}
    if isinstance(blocks, Mapping):
        given.update(blocks)
    else:
        given.update(dict.fromkeys(blocks))
    hashes: list[object] = list(given)
    if not all(isinstance(block, bytes) and len(block) == 32 for block in hashes):
        hint = "bytes.fromhex() of the digits after 0x" if any(isinstance(block, str) for block in hashes) else None
        raise ValidationError(
            "trusted blocks are given by their hashes: 32 bytes each", field="trusted_blocks", hint=hint
        )
    return given


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name=name, result=CheckResult.PASSED, reason=check())
    except _Unchecked as unchecked:
        return Check(name=name, result=CheckResult.UNCHECKED, reason=str(unchecked))
    except _Skipped as skipped:
        return Check(name=name, result=CheckResult.SKIPPED, reason=str(skipped))
    except Layer2Error as error:
        return Check(name=name, result=CheckResult.FAILED, reason=error.message)


def _checks(proof: TransferProof, anchors: _Anchors) -> Iterable[tuple[str, Callable[[], str]]]:
    terms = proof.terms
    yield "terms_signature", lambda: _terms_signature(proof)
    yield "contract", lambda: _contract(terms, anchors)
    yield "token", lambda: _token(terms, anchors)
    yield "invoice", lambda: _invoice(terms)
    yield "payment_hash", lambda: _payment_hash(terms)
    yield "invoice_amount", lambda: _invoice_amount(terms)
    yield "amounts", lambda: _amounts(terms, anchors)
    yield "fees", lambda: _fees(proof, anchors)
    yield "preimage", lambda: _preimage(proof)
    yield "contract_code", lambda: _contract_code(proof)
    yield "lock_state", lambda: _lock_state(proof)
    yield "lock_state_block", lambda: _block(proof.storage, anchors)
    yield "claim_event", lambda: _claim_event(proof)
    yield "claim_event_block", lambda: _block(proof.receipt, anchors)
    yield "depth", lambda: _depth(proof, anchors)
    yield "expected", lambda: _expected(proof, anchors)


def _terms_signature(proof: TransferProof) -> str:
    signed = proof.signed_terms.verify()
    # For every signature there is a second one with a high s (EIP-2): accepting it, one proof would have two forms.
    require(int.from_bytes(signed.signature[32:64]) <= CURVE_ORDER // 2, "the signature of the terms has a high s")
    return f"signed by the provider {proof.terms.provider}"


def _contract(terms: SwapTerms, anchors: _Anchors) -> str:
    lock = terms.lock
    known = {HTLC_ADDRESS} if anchors.contracts is None else anchors.contracts.get(lock.chain_id)
    if known is None:
        raise _Unchecked(f"the table of HTLC contracts has none for chain {lock.chain_id}")
    require(lock.contract in known, f"{lock.contract} is no HTLC contract of chain {lock.chain_id}")
    return f"{lock.contract} is the HTLC contract on chain {lock.chain_id}"


def _contract_code(proof: TransferProof) -> str:
    if proof.storage is None:
        raise _Skipped("the proof has no storage proof")
    root = proof.storage.block.state_root
    account = verify_account(root, proof.storage.address.raw, proof.storage.account_proof)
    require(account is not None and account.code_hash in CODE_HASHES, "the contract has other code than layer2's HTLC")
    return "the state trie shows the code of layer2's HTLC contract"


def _form(terms: SwapTerms, anchors: _Anchors) -> AssetForm:
    if anchors.assets is None:
        raise _Unchecked("no asset registry was given")
    form = anchors.assets.at(terms.lock.chain_id, terms.lock.token)
    if form is None:
        raise ProofError(f"the token {terms.lock.token} is no asset of the registry on chain {terms.lock.chain_id}")
    return form


def _token(terms: SwapTerms, anchors: _Anchors) -> str:
    form = _form(terms, anchors)
    return f"{terms.lock.token} is {form.asset} with {form.decimals} decimals"


def _decoded(terms: SwapTerms) -> Invoice:
    return decode_invoice(terms.invoice)


def _invoice(terms: SwapTerms) -> str:
    invoice = _decoded(terms)
    return f"signed by the node {invoice.payee.hex()} on {invoice.network}"


def _payment_hash(terms: SwapTerms) -> str:
    require(_decoded(terms).payment_hash == terms.lock.preimage_hash, "the invoice and the lock have different hashes")
    return "the invoice and the lock have the same hash"


def _invoice_amount(terms: SwapTerms) -> str:
    require(_decoded(terms).amount_msat == terms.invoice_amount_msat, "the invoice has another amount than the terms")
    return f"{terms.invoice_amount_msat} msat, as in the terms"


def _amounts(terms: SwapTerms, anchors: _Anchors) -> str:
    """What goes in on one side comes out on the other, less the fee that the terms name and less than a satoshi."""
    form = _form(terms, anchors)
    one_msat_in_units = 10 ** max(form.decimals - 11, 0)
    one_unit_in_msat = 10 ** max(11 - form.decimals, 0)
    submarine = terms.direction is SwapDirection.SUBMARINE
    chain_side = (terms.lock.amount - terms.provider_fee) if submarine else (terms.lock.amount + terms.provider_fee)
    difference = chain_side * one_unit_in_msat - terms.invoice_amount_msat * one_msat_in_units
    rest = difference if submarine else -difference
    require(0 <= rest < 1000 * one_msat_in_units, "lock, invoice and provider's fee do not add up")
    return f"lock {terms.lock.amount}, fee {terms.provider_fee}, invoice {terms.invoice_amount_msat} msat add up"


def _fees(proof: TransferProof, anchors: _Anchors) -> str:
    named = [fee.name for fee in proof.fees]
    require(len(set(named)) == len(named), "a fee is listed twice")
    for fee in proof.fees:
        if fee.name == "provider":
            known = (
                None if anchors.assets is None else anchors.assets.at(proof.terms.lock.chain_id, proof.terms.lock.token)
            )
            if known is None and fee.amount != proof.terms.provider_fee:
                raise _Unchecked("the terms count the provider's fee in units of a token that is not known")
            in_terms = proof.terms.provider_fee
            if known is not None:
                in_terms = -(-in_terms * 10**known.asset.decimals // 10**known.decimals)
            require(fee.amount == in_terms, "the provider's fee is not the one in the terms")
            return f"the provider's fee is {fee.amount}, as in the terms"
    raise _Skipped("the proof lists no provider's fee")


def _preimage(proof: TransferProof) -> str:
    require(sha256(proof.preimage) == proof.terms.lock.preimage_hash, "the preimage is not that of the lock's hash")
    return "its SHA-256 is the hash of invoice and lock"


def _lock_state(proof: TransferProof) -> str:
    storage, lock = proof.storage, proof.terms.lock
    if storage is None:
        raise _Skipped("the proof has no storage proof")
    require(storage.chain_id == lock.chain_id, "the storage proof is of another chain than the lock")
    require(storage.address == lock.contract, "the storage proof is of another contract than the lock")
    require(storage.slot == storage_slot(lock.lock_id), "the storage proof is of another slot than the lock's")
    state = decode_state(storage.evaluate().value)
    require(state.phase is LockPhase.CLAIMED, f"the lock was not claimed: it is {state.phase.value}")
    require(state.preimage == proof.preimage, "the lock was claimed with another preimage")
    return f"lock 0x{lock.lock_id.hex()} is claimed with the preimage"


def _claim_event(proof: TransferProof) -> str:
    receipt_proof, lock = proof.receipt, proof.terms.lock
    if receipt_proof is None:
        raise _Skipped("the proof has no receipt proof")
    require(receipt_proof.chain_id == lock.chain_id, "the receipt proof is of another chain than the lock")
    receipt = receipt_proof.evaluate().receipt
    require(receipt.succeeded, "the transaction failed")
    require(any(_is_claim(log, proof) for log in receipt.logs), "the receipt has no Claim event of the lock")
    return f"a Claim event of lock 0x{lock.lock_id.hex()} with the preimage"


def _is_claim(log: Log, proof: TransferProof) -> bool:
    lock = proof.terms.lock
    if log.address != lock.contract.raw:
        return False
    event = decode_htlc_event(
        chain_id=lock.chain_id, contract=lock.contract, address=log.address, topics=log.topics, data=log.data
    )
    return isinstance(event, ClaimEvent) and event.lock_id == lock.lock_id and event.preimage == proof.preimage


def _block(part: EvmStorageProof | EvmReceiptProof | None, anchors: _Anchors) -> str:
    if part is None:
        raise _Skipped("the proof has no such part")
    if not anchors.blocks:
        raise _Unchecked("no trusted block was given")
    header = part.block
    require(
        header.hash in anchors.blocks,
        f"block {header.number} (0x{header.hash.hex()}) is not among the {len(anchors.blocks)} trusted blocks",
    )
    return f"block {header.number} (0x{header.hash.hex()}) is trusted"


def _depth(proof: TransferProof, anchors: _Anchors) -> str:
    if anchors.min_depth is None:
        raise _Skipped("no minimum depth was asked for")
    needed, hashes = anchors.min_depth, [part.block_hash for part in (proof.storage, proof.receipt) if part is not None]
    depths = [anchors.blocks.get(block) for block in hashes]
    known = [depth for depth in depths if depth is not None]
    if len(known) < len(depths):
        raise _Unchecked("the depth of a block of the proof is not known")
    require(min(known) >= needed, f"a block of the proof is only {Depth(min(known)).name}, not {Depth(needed).name}")
    return f"every block of the proof is at least {Depth(needed).name}"


def _expected(proof: TransferProof, anchors: _Anchors) -> str:
    expected, terms = anchors.expected, proof.terms
    if expected is None:
        raise _Skipped("the caller expects no certain terms")
    if isinstance(expected, SwapTerms):
        differ = [item.name for item in fields(terms) if getattr(terms, item.name) != getattr(expected, item.name)]
        require(not differ, f"other terms than expected: {', '.join(differ)}")
        return "the terms are the expected ones"
    said = _said(terms)
    asked = {item.name: value for item in fields(expected) if (value := getattr(expected, item.name)) is not None}
    if not asked:
        raise _Skipped("the caller expects nothing of the terms")
    if {"payee", "network"} & set(asked):
        invoice = _decoded(terms)
        said |= {"payee": invoice.payee, "network": invoice.network}
    differ = [name for name, value in asked.items() if said[name] != value]
    require(not differ, f"other terms than expected: {', '.join(differ)}")
    return f"as expected: {', '.join(asked)}"


def _said(terms: SwapTerms) -> dict[str, object]:
    lock = terms.lock
    return {
        "swap_id": terms.swap_id,
        "direction": terms.direction,
        "chain_id": lock.chain_id,
        "token": lock.token,
        "lock_amount": lock.amount,
        "invoice_amount_msat": terms.invoice_amount_msat,
        "invoice": terms.invoice,
        "payment_hash": lock.preimage_hash,
        "provider": terms.provider,
        "claimer": lock.claimer,
        "refunder": lock.refunder,
    }


def _rests_on(proof: TransferProof, anchors: _Anchors) -> tuple[str, ...]:
    lock = proof.terms.lock
    blocks = {part.block_hash for part in (proof.storage, proof.receipt) if part is not None}
    trusted = [
        f"block 0x{block.hex()} is a block of chain {lock.chain_id} and stays one"
        for block in sorted(blocks & set(anchors.blocks))
    ]
    if proof.storage is None:
        trusted.append(f"{lock.contract} on chain {lock.chain_id} has the code of layer2's HTLC contract")
    if anchors.assets is not None and anchors.assets.at(lock.chain_id, lock.token) is not None:
        trusted.append(f"{lock.token} on chain {lock.chain_id} is the asset that the registry calls it")
    return (*trusted, "secp256k1, SHA-256 and Keccak-256")


def _notes(proof: TransferProof) -> tuple[str, ...]:
    return (*NOT_PROVED, f"the proof says that the user's side was settled at depth {proof.depth.name}")
