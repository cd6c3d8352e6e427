"""Where the real chain data lies, and what happens when it does not."""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layer2._crypto import eth_address, keccak256, public_key, sha256, sign_recoverable
from layer2._rlp import encode, encode_int
from layer2.addresses import EvmAddress
from layer2.assets import BTC, AssetForm, AssetRegistry
from layer2.evm._artifacts import HTLC_ADDRESS, HTLC_CODE_HASH
from layer2.evm._htlc import storage_slot
from layer2.evm._htlc_events import CLAIM_TOPIC
from layer2.lightning import encode_invoice
from layer2.proofs import (
    EvmReceiptProof,
    EvmStorageProof,
    Fee,
    Report,
    TransferProof,
    verify_transfer_proof,
)
from layer2.proofs._evm import EMPTY_CODE_HASH, Account, encode_account
from layer2.proofs._headers import HEADER_FIELDS, BlockHeader
from layer2.proofs._receipts import Log, Receipt, logs_bloom, receipt_key, receipts_trie_entries
from layer2.proofs._trie import EMPTY_ROOT, Trie
from layer2.terms import ChainTiming, DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "proofs"


@cache
def _load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """Loader of the files of real chain data, which are used where they lie beside the clone."""
    if not VECTORS.is_dir():
        message = f"NO REAL CHAIN DATA: {VECTORS} is missing, the proof core is not tested against real chains"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=1)
        pytest.skip(message)
    return _load


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.fixture(scope="session", name="unhex")
def _unhex() -> Callable[[str], bytes]:
    return unhex


PROVIDER_KEY = bytes([7]) * 32
PAYEE_KEY = bytes([9]) * 32
PREIMAGE = bytes(range(100, 132))
CHAIN_ID = 60808


def account(number: int) -> EvmAddress:
    return EvmAddress(raw=bytes([number]) * 20)


CONTRACT, TOKEN, USER = HTLC_ADDRESS, account(0x70), account(0x05)


class Chain:
    """One block of a chain that is made up: a state trie with the HTLC contract in it, and receipts."""

    def __init__(
        self, slots: dict[bytes, int], logs: tuple[Log, ...], *, status: int = 1, code_hash: bytes = HTLC_CODE_HASH
    ) -> None:
        self.slots = slots
        neighbours = {keccak256(bytes([n]) * 32): encode(n + 1) for n in range(40)}
        self.storage = Trie(neighbours | {keccak256(slot): encode(value) for slot, value in slots.items()})
        self.contract = Account(1, 0, self.storage.root, code_hash)
        accounts = {
            keccak256(bytes([n]) * 20): encode_account(Account(n, n, EMPTY_ROOT, EMPTY_CODE_HASH)) for n in range(40)
        }
        self.state = Trie(accounts | {keccak256(CONTRACT.raw): encode_account(self.contract)})
        plain = Receipt(type=2, status=1, cumulative_gas_used=21_000, bloom=bytes(256), logs=())
        self.receipts = [plain] * 130
        self.index = 128
        self.receipts[self.index] = Receipt(
            type=2, status=status, cumulative_gas_used=99_000, bloom=logs_bloom(logs), logs=logs
        )
        self.receipts_trie = Trie(receipts_trie_entries(self.receipts))
        values = {
            "stateRoot": self.state.root, "receiptsRoot": self.receipts_trie.root, "number": 77, "timestamp": 1_800_000_000,
            "logsBloom": bytes(256), "miner": bytes(20), "extraData": b"", "nonce": bytes(8),
        }  # fmt: skip
        filler = {length: bytes(length) for _, length in HEADER_FIELDS if length > 0}
        items = [values.get(name, filler.get(kind, 0)) for name, kind in HEADER_FIELDS]
        self.header = BlockHeader.decode(
            encode([item if isinstance(item, bytes) else encode_int(item) for item in items])
        )

    def storage_proof(self, slot: bytes, value: int, *, address: EvmAddress = CONTRACT) -> EvmStorageProof:
        return EvmStorageProof(
            chain_id=CHAIN_ID,
            header=self.header.rlp,
            address=address,
            slot=slot,
            value=value,
            account_proof=self.state.prove(keccak256(address.raw)),
            storage_proof=self.storage.prove(keccak256(slot)),
        )

    def receipt_proof(self) -> EvmReceiptProof:
        return EvmReceiptProof(
            chain_id=CHAIN_ID,
            header=self.header.rlp,
            index=self.index,
            proof=self.receipts_trie.prove(receipt_key(self.index)),
        )

    def block_answer(self) -> dict[str, str]:
        """The block as ``eth_getBlockByNumber`` gives it."""
        said = {name: value for name, value in self.header.fields.items() if value is not None}
        shown = {name: hex(value) if isinstance(value, int) else f"0x{value.hex()}" for name, value in said.items()}
        return {**shown, "hash": f"0x{self.header.hash.hex()}"}

    def proof_answer(self, slot: bytes, *, address: EvmAddress = CONTRACT) -> dict[str, Any]:
        """What ``eth_getProof`` gives for a slot of an account."""
        account = self.contract if address == CONTRACT else Account(0, 0, EMPTY_ROOT, EMPTY_CODE_HASH)
        proof = self.storage.prove(keccak256(slot)) if address == CONTRACT else ()
        return {
            "address": f"0x{address.raw.hex()}",
            "nonce": hex(account.nonce),
            "balance": hex(account.balance_wei),
            "storageHash": f"0x{account.storage_root.hex()}",
            "codeHash": f"0x{account.code_hash.hex()}",
            "accountProof": [f"0x{node.hex()}" for node in self.state.prove(keccak256(address.raw))],
            "storageProof": [
                {
                    "key": f"0x{slot.hex()}",
                    "value": hex(self.slots.get(slot, 0)),
                    "proof": [f"0x{node.hex()}" for node in proof],
                }
            ],
        }


def make_invoice(amount_msat: int | None, preimage: bytes = PREIMAGE, *, network: str = "regtest") -> str:
    unsigned = encode_invoice(
        network=network,
        timestamp=1_700_000_000,
        payment_hash=sha256(preimage),
        payment_secret=bytes(32),
        amount_msat=amount_msat,
        description="a coffee",
    )
    return unsigned.sign(PAYEE_KEY).text


def make_terms(direction: SwapDirection = SwapDirection.SUBMARINE, **changes: Any) -> SwapTerms:
    provider = EvmAddress(raw=eth_address(public_key(PROVIDER_KEY)))
    submarine = direction is SwapDirection.SUBMARINE
    lock = Lock(
        chain_id=CHAIN_ID,
        contract=CONTRACT,
        preimage_hash=sha256(PREIMAGE),
        amount=100_600 if submarine else 99_400,
        token=TOKEN,
        claimer=provider if submarine else USER,
        refunder=USER if submarine else provider,
        timelock=1_800_100_000,
    )
    timing = ChainTiming(
        name="test",
        **{item.name: item.type == "bool" or 10 for item in fields(ChainTiming) if item.name != "name"},
    )
    terms = SwapTerms(
        swap_id="ab" * 16,
        direction=direction,
        lock=lock,
        invoice=make_invoice(100_000_000),
        invoice_amount_msat=100_000_000,
        provider_fee=600,
        routing_fee_limit_msat=100_000 if submarine else 0,
        lock_by=1_800_000_500,
        depth_policy=DepthPolicy(depth=Depth.INCLUDED, confirmations=3),
        timing=timing,
        created_at=1_799_999_000,
    )
    lock_changes = {
        name[5:]: changes.pop(name) for name in list(changes) if name.startswith("lock_") and name != "lock_by"
    }
    return replace(terms, lock=replace(terms.lock, **lock_changes), **changes)


def sign(terms: SwapTerms, key: bytes = PROVIDER_KEY) -> SignedTerms:
    signature, recovery_id = sign_recoverable(terms.digest, key)
    return SignedTerms(terms=terms, signature=signature + bytes([27 + recovery_id]))


def claim_log(terms: SwapTerms, preimage: bytes = PREIMAGE) -> Log:
    return Log(
        address=terms.lock.contract.raw,
        topics=(CLAIM_TOPIC, terms.lock.lock_id, sha256(preimage)),
        data=preimage,
    )


def claimed_chain(terms: SwapTerms, preimage: bytes = PREIMAGE) -> Chain:
    other = Log(address=TOKEN.raw, topics=(bytes(32),), data=b"transfer")
    slots = {storage_slot(terms.lock.lock_id): int.from_bytes(preimage)}
    return Chain(slots, (other, claim_log(terms, preimage)))


def make_proof(terms: SwapTerms | None = None, chain: Chain | None = None, **changes: Any) -> TransferProof:
    terms = terms or make_terms()
    chain = chain or claimed_chain(terms)
    parts: dict[str, Any] = {
        "signed_terms": sign(terms),
        "preimage": PREIMAGE,
        "storage": chain.storage_proof(storage_slot(terms.lock.lock_id), int.from_bytes(PREIMAGE)),
        "receipt": chain.receipt_proof(),
        "fees": (
            Fee(name="provider", coin="BTC", amount=terms.provider_fee),
            Fee(name="gas", coin="ETH", amount=12_345),
        ),
        "depth": Depth.INCLUDED,
    }
    return TransferProof(**(parts | changes))


REGISTRY = AssetRegistry([AssetForm(asset=BTC, chain_id=CHAIN_ID, contract=TOKEN, decimals=8)])


def verify(proof: Any, **changes: Any) -> Report:
    """Check with everything a caller can give: right for ``make_proof()``, unless changed."""
    blocks = {}
    if isinstance(proof, TransferProof):
        blocks = {part.block_hash: Depth.SAFE for part in (proof.storage, proof.receipt) if part is not None}
    known: dict[str, Any] = {
        "trusted_blocks": blocks, "contracts": {CHAIN_ID: [CONTRACT]}, "assets": REGISTRY,
        "expected": None, "min_depth": Depth.INCLUDED,
    }  # fmt: skip
    return verify_transfer_proof(proof, **(known | changes))


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """Makers of swaps, chains and proofs."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})
