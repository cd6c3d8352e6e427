"""Proofs about an EVM chain: a receipt in a block, and a storage slot after a block (EIP-1186).

Both hold the block's header. They show what that block says; that the block is one of the chain has to be known from
elsewhere, so the caller gives the hashes of blocks that it trusts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from layer2._crypto import keccak256
from layer2._rlp import Item, RlpError, decode, decode_int, encode, encode_int
from layer2._values import Bytes, Uint
from layer2.addresses import EvmAddress
from layer2.errors import ProofError
from layer2.proofs._format import ProofValue, require, require_bytes, require_int, require_nodes
from layer2.proofs._headers import BlockHeader
from layer2.proofs._hexadecimal import data, quantity
from layer2.proofs._receipts import Receipt, receipt_key
from layer2.proofs._trie import EMPTY_ROOT, verify_trie_proof

__all__ = [
    "EMPTY_CODE_HASH",
    "Account",
    "EvmReceiptProof",
    "EvmStorageProof",
    "ProofAnswer",
    "ProvenReceipt",
    "ProvenSlot",
    "SlotAnswer",
    "encode_account",
    "read_proof_answer",
    "verify_account",
    "verify_slot",
]

EMPTY_CODE_HASH: Final = keccak256(b"")
"""Code hash of an account without code."""


class Account(NamedTuple):
    """What the state trie holds of an account that exists."""

    nonce: int
    balance_wei: int
    storage_root: bytes
    code_hash: bytes


class ProvenReceipt(NamedTuple):
    """What a receipt proof shows, if its block is one of the chain."""

    header: BlockHeader
    receipt: Receipt


class ProvenSlot(NamedTuple):
    """What a storage proof shows, if its block is one of the chain."""

    header: BlockHeader
    account: Account | None
    """None: there is no such account, so all its slots are 0."""
    value: int


class SlotAnswer(NamedTuple):
    """One slot of a checked ``eth_getProof`` answer."""

    value: int
    proof: tuple[bytes, ...]


def verify_account(state_root: bytes, address: bytes, nodes: Sequence[bytes]) -> Account | None:
    """The account that the state trie holds under ``address``, or None where the nodes prove that there is none.

    Raises:
        ProofError: the nodes are not the path of the address, or its value is not an account.
    """
    raw = verify_trie_proof(state_root, keccak256(address), nodes, check="account")
    if raw is None:
        return None
    try:
        return _account(decode(raw))
    except RlpError as error:
        raise ProofError(f"the account is malformed: {error}", check="account") from error


def _account(items: Item) -> Account:
    flat = [item for item in items if isinstance(item, bytes)] if isinstance(items, list) else []
    if len(flat) != 4 or len(items) != 4:
        raise RlpError("an account is a list of 4 items")
    nonce, balance, storage_root, code_hash = flat
    if len(storage_root) != 32 or len(code_hash) != 32:
        raise RlpError("a hash of an account has 32 bytes")
    return Account(decode_int(nonce), decode_int(balance), storage_root, code_hash)


def verify_slot(storage_root: bytes, slot: bytes, nodes: Sequence[bytes]) -> int:
    """The value of a 32-byte ``slot``; 0 where the nodes prove that the storage trie does not hold it.

    Raises:
        ProofError: the nodes are not the path of the slot, or its value is not one that a slot can have.
    """
    raw = verify_trie_proof(storage_root, keccak256(slot), nodes, check="storage")
    if raw is None:
        return 0
    try:
        value = decode_int(decode(raw))
    except RlpError as error:
        raise ProofError(f"the value of the slot is malformed: {error}", check="storage") from error
    if not 0 < value < 2**256:
        raise ProofError("a slot that is present holds a number from 1 to 2**256 - 1", check="storage")
    return value


def _require_trusted(header: BlockHeader, trusted_blocks: Collection[bytes]) -> None:
    if header.hash not in trusted_blocks:
        raise ProofError(
            f"block {header.number} (0x{header.hash.hex()}) is not among the {len(trusted_blocks)} trusted blocks",
            check="block",
            hint="ask a node that you trust for the hash at this height",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmReceiptProof(ProofValue):
    """A transaction's receipt is in a block, at an index."""

    chain_id: int
    """Of the chain whose block it is said to be. A header does not name its chain: the trusted hash decides."""
    header: Bytes
    """RLP of the block's header."""
    index: int
    """Of the transaction in the block."""
    proof: tuple[Bytes, ...] = field(repr=False)
    """Nodes of the receipts trie on the path of the index."""
    version: Literal[1] = 1
    kind: Literal["evm_receipt"] = "evm_receipt"

    def __post_init__(self) -> None:
        self._require_own_envelope()
        require_int(self.chain_id, "chain_id", 1, 2**64)
        require_int(self.index, "index", 0, 2**32)
        require_bytes(self.header, "header")
        require_nodes(self.proof, "proof")

    @property
    def block_hash(self) -> bytes:
        """Hash of the header: what has to be trusted."""
        return keccak256(self.header)

    @property
    def block(self) -> BlockHeader:
        """The header, read: number, timestamp, hash, roots.

        Raises:
            ProofError: it is not one.
        """
        return BlockHeader.decode(self.header)

    def evaluate(self) -> ProvenReceipt:
        """What the proof shows of its block, whether or not that block is one of the chain.

        Raises:
            ProofError: it shows nothing.
        """
        header = BlockHeader.decode(self.header)
        raw = verify_trie_proof(header.receipts_root, receipt_key(self.index), self.proof, check="receipt")
        if raw is None:
            raise ProofError(f"the block has no transaction of index {self.index}", check="receipt")
        return ProvenReceipt(header, Receipt.decode(raw))

    def verify(self, trusted_blocks: Collection[bytes]) -> ProvenReceipt:
        """What the proof shows, its block being one of ``trusted_blocks`` (hashes).

        Raises:
            ProofError: it shows nothing, or its block is not trusted.
        """
        proven = self.evaluate()
        _require_trusted(proven.header, trusted_blocks)
        return proven


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmStorageProof(ProofValue):
    """A slot of a contract holds a value after a block (0: the slot or the contract is not there)."""

    chain_id: int
    """Of the chain whose block it is said to be. A header does not name its chain: the trusted hash decides."""
    header: Bytes
    """RLP of the block's header."""
    address: EvmAddress
    slot: Bytes
    """32 bytes."""
    value: Uint = field(repr=False)
    account_proof: tuple[Bytes, ...] = field(repr=False)
    """Nodes of the state trie on the path of the address."""
    storage_proof: tuple[Bytes, ...] = field(repr=False)
    """Nodes of the account's storage trie on the path of the slot; none if that trie is empty or there is no account."""
    version: Literal[1] = 1
    kind: Literal["evm_storage"] = "evm_storage"

    def __post_init__(self) -> None:
        self._require_own_envelope()
        require_int(self.chain_id, "chain_id", 1, 2**64)
        require_bytes(self.header, "header")
        require(isinstance(self.address, EvmAddress), "address is not an EvmAddress", field="address")
        require_bytes(self.slot, "slot", 32)
        require_int(self.value, "value", 0, 2**256)
        require_nodes(self.account_proof, "account_proof")
        require_nodes(self.storage_proof, "storage_proof")

    @property
    def block_hash(self) -> bytes:
        """Hash of the header: what has to be trusted."""
        return keccak256(self.header)

    @property
    def block(self) -> BlockHeader:
        """The header, read: number, timestamp, hash, roots.

        Raises:
            ProofError: it is not one.
        """
        return BlockHeader.decode(self.header)

    def evaluate(self) -> ProvenSlot:
        """What the proof shows of its block, whether or not that block is one of the chain.

        Raises:
            ProofError: it shows nothing, or another value than it claims.
        """
        header = BlockHeader.decode(self.header)
        account = verify_account(header.state_root, self.address.raw, self.account_proof)
        # An account that is not there has no storage trie, and so none but the empty proof about it.
        storage_root = EMPTY_ROOT if account is None else account.storage_root
        if storage_root == EMPTY_ROOT and self.storage_proof:
            raise ProofError("nodes of a storage trie that is empty", check="storage")
        value = verify_slot(storage_root, self.slot, self.storage_proof)
        if value != self.value:
            raise ProofError("the slot holds another value than the proof claims", check="storage")
        return ProvenSlot(header, account, value)

    def verify(self, trusted_blocks: Collection[bytes]) -> ProvenSlot:
        """What the proof shows, its block being one of ``trusted_blocks`` (hashes).

        Raises:
            ProofError: it shows nothing, another value than it claims, or its block is not trusted.
        """
        proven = self.evaluate()
        _require_trusted(proven.header, trusted_blocks)
        return proven


class ProofAnswer(NamedTuple):
    """A checked ``eth_getProof`` answer."""

    account: Account | None
    account_proof: tuple[bytes, ...]
    slots: Mapping[bytes, SlotAnswer]
    """By 32-byte slot."""


def read_proof_answer(answer: Mapping[str, Any], state_root: bytes, address: bytes) -> ProofAnswer:
    """Check an ``eth_getProof`` answer against the state root of its block.

    Nodes describe an absent account in two ways (hashes of zeros, or those of empty code and storage) and an empty
    storage trie in two ways (no node, or the empty node); each pair is one fact and comes out alike.

    Raises:
        ProofError: malformed, or anything that it says is not what its nodes prove.
    """
    if data(answer.get("address"), "address", 20) != address:
        raise ProofError("the answer is about another account", field="address", check="account")
    account_proof = _nodes(answer.get("accountProof"), "accountProof")
    account = verify_account(state_root, address, account_proof)
    said = Account(
        quantity(answer.get("nonce"), "nonce"),
        quantity(answer.get("balance"), "balance"),
        data(answer.get("storageHash"), "storageHash", 32),
        data(answer.get("codeHash"), "codeHash", 32),
    )
    absent = (Account(0, 0, EMPTY_ROOT, EMPTY_CODE_HASH), Account(0, 0, bytes(32), bytes(32)))
    if said not in (absent if account is None else (account,)):
        raise ProofError("the account is not what its nodes prove", check="account")
    storage_root = EMPTY_ROOT if account is None else account.storage_root
    entries = answer.get("storageProof")
    if not isinstance(entries, list):
        raise ProofError("storageProof is not a list", field="storageProof", check="format")
    slots: dict[bytes, SlotAnswer] = {}
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise ProofError("storageProof holds something other than objects", field="storageProof", check="format")
        slot = _slot(entry.get("key"))
        proof = _nodes(entry.get("proof"), "proof")
        value = verify_slot(storage_root, slot, proof)
        if value != quantity(entry.get("value"), "value"):
            raise ProofError("a slot holds another value than the answer says", field="value", check="storage")
        slots[slot] = SlotAnswer(value, () if storage_root == EMPTY_ROOT else proof)
    return ProofAnswer(account, account_proof, slots)


def _nodes(value: object, name: str) -> tuple[bytes, ...]:
    if not isinstance(value, list):
        raise ProofError(f"{name} is not a list", field=name, check="format")
    return tuple(data(node, name) for node in value)


def _slot(value: object) -> bytes:
    """A storage key: nodes write it with 32 bytes, or as a number with or without leading zeros."""
    digits = value[2:] if isinstance(value, str) and value[:2] == "0x" and 2 < len(value) <= 66 else ""
    return data(f"0x{digits.zfill(64)}" if digits else value, "key", 32)


def encode_account(account: Account) -> bytes:
    """The value in the state trie."""
    return encode(
        [
            encode_int(account.nonce),
            encode_int(account.balance_wei),
            account.storage_root,
            account.code_hash,
        ]
    )
