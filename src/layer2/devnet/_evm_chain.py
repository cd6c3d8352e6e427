"""A chain of Prague blocks on py-evm: real headers, receipts and tries, several transactions a block, reorganisations.

Synchronous and for one thread. Importing this file imports py-evm, which takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

import rlp
from eth.chains.base import MiningChain
from eth.constants import BLANK_ROOT_HASH, POST_MERGE_DIFFICULTY, POST_MERGE_MIX_HASH, POST_MERGE_NONCE
from eth.db.account import AccountDB
from eth.db.atomic import AtomicDB
from eth.db.backends.memory import MemoryDB
from eth.vm.chain_context import ChainContext
from eth.vm.forks.cancun.constants import BEACON_ROOTS_ADDRESS, BEACON_ROOTS_CONTRACT_CODE
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.constants import HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CONTRACT_CODE
from eth.vm.forks.shanghai.withdrawals import Withdrawal
from eth.vm.spoof import SpoofTransaction
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.exceptions import ValidationError as EthValidationError
from trie.hexary import HexaryTrie

from layer2._crypto import CURVE_ORDER, eth_address, keccak256, recover
from layer2.devnet._evm_pool import SERVER_ERROR, Mempool
from layer2.devnet._evm_types import GAS_LIMIT, AccountProof, Block, EvmMessage, PoolTransaction
from layer2.evm._artifacts import (
    CREATE2_PROXY,
    CREATE2_PROXY_DEPLOYMENT,
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    load_artifact,
)
from layer2.evm._rpc_error import RpcError

__all__ = ["EvmChain"]

FEE_VAULT: Final = bytes.fromhex("4200000000000000000000000000000000000011")
"""The sequencer's fee recipient on OP Stack chains."""
OP_FEE_CONTRACTS: Final = (
    bytes.fromhex("420000000000000000000000000000000000000f"),
    bytes.fromhex("4200000000000000000000000000000000000015"),
)
"""GasPriceOracle and L1Block."""
ZERO_ANSWER: Final = bytes.fromhex("5f5f5260205ff3")
"""Code that answers any call with one zero word: here data on L1 costs nothing."""
WEI_PER_GWEI: Final = 10**9
STORAGE_ROOTS: Final = 64
"""Kept of the accounts whose storage was read last."""


@dataclass(slots=True)
class _Draft:
    header: Any
    transactions: list[PoolTransaction] = field(default_factory=list)
    receipts: list[Any] = field(default_factory=list)
    created: list[bytes | None] = field(default_factory=list)


class EvmChain:
    """Blocks, state and pool.

    ``preinstalled``: the genesis state has the HTLC contract, the test token and what OP Stack chains come with.
    """

    def __init__(
        self,
        *,
        chain_id: int,
        genesis_timestamp: int,
        balances: Mapping[bytes, int],
        replacement_bump_percent: int,
        preinstalled: bool,
    ) -> None:
        class _Chain(MiningChain):
            vm_configuration = ((BlockNumber(0), PragueVM),)

        _Chain.chain_id = chain_id
        self.chain_id = chain_id
        self._context = ChainContext(chain_id)
        self._chain = _Chain.from_genesis(
            AtomicDB(MemoryDB()),
            {
                "coinbase": FEE_VAULT,
                "difficulty": POST_MERGE_DIFFICULTY,
                "extra_data": b"",
                "gas_limit": GAS_LIMIT,
                "mix_hash": POST_MERGE_MIX_HASH,
                "nonce": POST_MERGE_NONCE,
                "timestamp": genesis_timestamp,
                "base_fee_per_gas": 10**6,
            },
            _genesis_state(balances, preinstalled=preinstalled),
        )
        self.db: Any = self._chain.chaindb.db
        genesis = self._chain.get_canonical_head()
        self.blocks: list[Block] = [Block(genesis, (), (), (), (), len(rlp.encode([genesis, [], [], []])))]
        self.by_hash: dict[bytes, Block] = {self.head.hash: self.head}
        """Every block that ever was, replaced ones included."""
        self.places: dict[bytes, tuple[int, int]] = {}
        """Transaction hash -> number of its block and index there."""
        self.pool = Mempool(chain_id=chain_id, gas_limit=GAS_LIMIT, replacement_bump_percent=replacement_bump_percent)
        self._storage_root = lru_cache(maxsize=STORAGE_ROOTS)(self._read_storage_root)
        self._arrivals = 0
        self._withdrawals = 0
        self._reorgs = 0

    @property
    def head(self) -> Block:
        """The latest block."""
        return self.blocks[-1]

    def accounts(self, block: Block) -> Any:
        """The state after ``block``, for reading."""
        return AccountDB(self.db, block.header.state_root)

    def storage(self, account: bytes, slot: int, block: Block) -> int:
        """The value of a slot in the state after ``block``."""
        root = self._storage_root(block.header.state_root, account)
        if root == BLANK_ROOT_HASH:
            return 0
        trie: Any = HexaryTrie(self.db, root)
        encoded = trie.get(keccak256(slot.to_bytes(32)))
        return int.from_bytes(rlp.decode(encoded)) if encoded else 0

    def _read_storage_root(self, state_root: bytes, account: bytes) -> bytes:
        # To find the account is most of the work of reading a slot, and the root of a state says which storage it has.
        accounts: Any = HexaryTrie(self.db, Hash32(state_root))
        encoded = accounts.get(keccak256(account))
        # An account is nonce, balance, storage root and code hash (Yellow Paper, section 4.1).
        return bytes(rlp.decode(encoded)[2]) if encoded else BLANK_ROOT_HASH

    def submit(self, raw: bytes) -> PoolTransaction:
        """Put a signed transaction into the pool.

        Raises:
            RpcError: it is malformed or refused.
        """
        transaction = self._decode(raw)
        state = self.accounts(self.head)
        self.pool.add(
            transaction,
            state_nonce=state.get_nonce(transaction.sender),
            balance=state.get_balance(transaction.sender),
        )
        return transaction

    def _decode(self, raw: bytes) -> PoolTransaction:
        try:
            decoded: Any = PragueVM.get_transaction_builder().decode(raw)
            canonical = decoded.encode() == raw
            signature = decoded.r.to_bytes(32) + decoded.s.to_bytes(32)
            digest, parity = keccak256(decoded.get_message_for_signing()), decoded.y_parity
        except Exception as exc:
            raise RpcError(SERVER_ERROR, "rlp: the bytes are not a signed transaction") from exc
        if not canonical:
            raise RpcError(SERVER_ERROR, "rlp: not the canonical form of the transaction")
        public = recover(digest, signature, parity) if parity in (0, 1) else None
        if public is None or decoded.s > CURVE_ORDER // 2:
            raise RpcError(SERVER_ERROR, "invalid transaction v, r, s values")
        self._arrivals += 1
        return PoolTransaction(
            decoded=decoded,
            hash=bytes(decoded.hash),
            sender=eth_address(public),
            type_id=raw[0] if raw[0] < 0x80 else 0,
            raw=raw,
            arrival=self._arrivals,
        )

    def next_header(self, timestamp: int, extra_data: bytes = b"") -> Any:
        """The header of an empty block on top of the head."""
        parent = self.head.header
        # Abstract only for the type checker: the fork binds it as an attribute of the class.
        return PragueVM.create_header_from_parent(  # pyright: ignore[reportAbstractUsage]  # see above
            parent,
            timestamp=max(timestamp, parent.timestamp + 1),
            gas_limit=parent.gas_limit,
            coinbase=FEE_VAULT,
            extra_data=extra_data,
        )

    def mine(
        self, timestamp: int, *, credits: Sequence[tuple[bytes, int]] = (), empty: bool = False, extra_data: bytes = b""
    ) -> Block:
        """Make the next block out of the pool.

        ``timestamp``: not below the parent's plus one, else that is taken. ``credits``: (account, wei) that come out of nothing,
        as withdrawals (EIP-4895) do, in whole gwei. ``empty``: leave the pool alone.
        """
        draft = _Draft(self.next_header(timestamp, extra_data))
        vm: Any = self._chain.get_vm(draft.header)
        vm.block_preprocessing(vm.get_block())
        if not empty:
            self._fill(vm, draft)
        withdrawals = tuple(self._withdrawal(account, wei) for account, wei in credits)
        if withdrawals:
            vm.apply_all_withdrawals(withdrawals)
        raw_block = vm.set_block_transactions_and_withdrawals(
            vm.get_block(),
            draft.header,
            tuple(tx.decoded for tx in draft.transactions),
            tuple(draft.receipts),
            withdrawals=withdrawals,
        )
        sealed = vm.mine_block(vm.block_postprocessing(raw_block)).block
        self.db[sealed.header.hash] = rlp.encode(sealed.header)
        block = Block(
            header=sealed.header,
            transactions=tuple(draft.transactions),
            receipts=tuple(draft.receipts),
            created=tuple(draft.created),
            withdrawals=withdrawals,
            size=len(rlp.encode(sealed)),
        )
        self.blocks.append(block)
        self.by_hash[block.hash] = block
        for index, tx in enumerate(block.transactions):
            self.places[tx.hash] = (block.number, index)
            self.pool.drop(tx.hash)
        self.pool.prune(self.accounts(block).get_nonce)
        return block

    def _fill(self, vm: Any, draft: _Draft) -> None:
        base_fee = draft.header.base_fee_per_gas
        nonce_of = self.accounts(self.head).get_nonce
        for transaction in self.pool.executable(nonce_of, base_fee):
            # Signature and sender were checked on arrival, by a library that is a hundred times faster than py-evm's.
            checked: Any = SpoofTransaction(
                transaction.decoded,
                sender=transaction.sender,
                get_sender=lambda sender=transaction.sender: sender,
                validate=lambda: None,
            )
            try:
                receipt, computation = vm.apply_transaction(draft.header, checked)
            except EthValidationError:
                # As a miner does: what is not valid on top of the others (nonce, balance, gas left) is left out of the block.
                continue
            draft.header = vm.add_receipt_to_header(draft.header, receipt)
            draft.transactions.append(transaction)
            draft.receipts.append(receipt)
            draft.created.append(bytes(computation.msg.storage_address) if computation.msg.is_create else None)

    def _withdrawal(self, account: bytes, wei: int) -> Any:
        self._withdrawals += 1
        return Withdrawal(
            index=self._withdrawals, validator_index=0, address=Address(account), amount=-(-wei // WEI_PER_GWEI)
        )

    def reorganise(self, depth: int, transactions: Literal["include", "wait", "drop"] = "include") -> list[Block]:
        """Replace the last ``depth`` blocks by as many others with the same timestamps and credits.

        ``transactions``: those of the replaced blocks are included again at once (in the first block that can take them), wait
        in the pool for blocks after the new ones, or are dropped, so that somebody has to send them again.

        Returns the new blocks.
        """
        if not 0 < depth < len(self.blocks):
            raise ValueError(f"a chain of {len(self.blocks)} blocks cannot replace its last {depth}")
        old, self.blocks = self.blocks[-depth:], self.blocks[:-depth]
        returned = [tx for block in old for tx in block.transactions]
        for tx in returned:
            del self.places[tx.hash]
        if transactions == "include":
            self._resubmit(returned)
        self._reorgs += 1
        new = [
            self.mine(
                block.header.timestamp,
                credits=[(item.address, item.amount * WEI_PER_GWEI) for item in block.withdrawals],
                empty=transactions != "include",
                extra_data=b"reorg %d" % self._reorgs,
            )
            for block in old
        ]
        if transactions == "wait":
            self._resubmit(returned)
        return new

    def _resubmit(self, transactions: Sequence[PoolTransaction]) -> None:
        for tx in transactions:
            try:
                self.submit(tx.raw)
            except RpcError:
                # As in a node: what the new chain made invalid, or the pool replaced meanwhile, is gone.
                continue

    def execute(self, message: EvmMessage, block: Block, *, pending_timestamp: int | None = None) -> Any:
        """Run a message on the state after ``block``, free of gas costs, and forget its effects.

        Its context is that of ``block`` itself, or of the block to come if ``pending_timestamp`` is given.

        Raises:
            RpcError: it cannot begin: no gas or no funds.
        """
        header = block.header if pending_timestamp is None else self.next_header(pending_timestamp)
        free = header.copy(base_fee_per_gas=0)
        ancestors: Any = PragueVM.get_prev_hashes(header.parent_hash, self._chain.chaindb)
        state: Any = PragueVM.build_state(self.db, free, self._context, ancestors)
        builder: Any = PragueVM.get_transaction_builder()
        unsigned = builder.new_unsigned_dynamic_fee_transaction(
            self.chain_id,
            state.get_nonce(message.sender),
            0,
            0,
            message.gas,
            message.to,
            message.value,
            message.data,
            (),
        )
        if message.gas < unsigned.intrinsic_gas:
            have, want = message.gas, unsigned.intrinsic_gas
            raise RpcError(SERVER_ERROR, f"intrinsic gas too low: have {have}, want {want}")
        balance = state.get_balance(message.sender)
        if message.value > balance:
            raise RpcError(
                SERVER_ERROR,
                f"insufficient funds for gas * price + value: address 0x{message.sender.hex()} "
                f"have {balance} want {message.value}",
            )
        return state.apply_transaction(SpoofTransaction(unsigned, from_=message.sender, validate=lambda: None))

    def prove(self, account: bytes, slots: Sequence[bytes], block: Block) -> AccountProof:
        """Merkle-Patricia proofs of an account and of slots in the state after ``block``."""
        state = self.accounts(block)
        storage_root = self._storage_root(block.header.state_root, account)
        return AccountProof(
            balance=state.get_balance(account),
            nonce=state.get_nonce(account),
            code_hash=bytes(state.get_code_hash(account)),
            storage_root=storage_root,
            account_nodes=self._nodes(block.header.state_root, account),
            slots=[
                (state.get_storage(account, int.from_bytes(slot)), self._nodes(storage_root, slot)) for slot in slots
            ],
        )

    def _nodes(self, root: bytes, key: bytes) -> list[bytes]:
        trie: Any = HexaryTrie(self.db, root)
        nodes = [rlp.encode(node) for node in trie.get_proof(keccak256(key))]
        # A node of less than 32 bytes stands inside its parent and is no entry of its own.
        return [node for index, node in enumerate(nodes) if index == 0 or len(node) >= 32]


def _genesis_state(balances: Mapping[bytes, int], *, preinstalled: bool) -> Any:
    code: dict[bytes, bytes] = {
        HISTORY_STORAGE_ADDRESS: HISTORY_STORAGE_CONTRACT_CODE,
        BEACON_ROOTS_ADDRESS: BEACON_ROOTS_CONTRACT_CODE,
    }
    if preinstalled:
        code |= dict.fromkeys(OP_FEE_CONTRACTS, ZERO_ANSWER) | {
            CREATE2_PROXY.raw: _proxy_code(),
            HTLC_ADDRESS.raw: load_artifact("htlc").runtime_bytecode,
            TEST_TOKEN_ADDRESS.raw: load_artifact("test_token").runtime_bytecode,
        }
    return {
        account: {
            "balance": balances.get(account, 0),
            "nonce": 1 if account in code else 0,
            "code": code.get(account, b""),
            "storage": {},
        }
        for account in {*code, *balances}
    }


def _proxy_code() -> bytes:
    initcode = rlp.decode(CREATE2_PROXY_DEPLOYMENT)[5]
    # Its first 14 bytes copy the other 69 to memory and return them.
    return bytes(initcode[14:])
