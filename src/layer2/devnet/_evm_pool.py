"""The embedded EVM's transaction pool: geth's rules, and geth's words where it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from layer2.evm._rpc_error import RpcError

if TYPE_CHECKING:
    from layer2.devnet._evm_types import PoolTransaction

__all__ = ["Mempool", "floor_gas"]

SERVER_ERROR: Final = -32000
BASE_GAS: Final = 21_000


def floor_gas(data: bytes) -> int:
    """The least gas that a transaction with ``data`` pays (EIP-7623): 10 for a zero byte and 40 for another, over the base."""
    return BASE_GAS + 10 * data.count(0) + 40 * (len(data) - data.count(0))


class Mempool:
    """Transactions that wait for a block, by sender and nonce. Nonces may have gaps."""

    def __init__(self, *, chain_id: int, gas_limit: int, replacement_bump_percent: int) -> None:
        self._chain_id = chain_id
        self._gas_limit = gas_limit
        self._bump = replacement_bump_percent
        self._by_hash: dict[bytes, PoolTransaction] = {}
        self._by_sender: dict[bytes, dict[int, PoolTransaction]] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def get(self, tx_hash: bytes) -> PoolTransaction | None:
        """A waiting transaction."""
        return self._by_hash.get(tx_hash)

    def add(self, transaction: PoolTransaction, *, state_nonce: int, balance: int) -> None:
        """Take a transaction, or replace the one with its nonce.

        Raises:
            RpcError: as geth would refuse it.
        """
        if transaction.hash in self._by_hash:
            raise RpcError(SERVER_ERROR, "already known")
        self._check(transaction, state_nonce, balance)
        tx = transaction.decoded
        waiting = self._by_sender.setdefault(transaction.sender, {})
        old = waiting.get(tx.nonce)
        if old is not None:
            if not (
                self._bumped(tx.max_fee_per_gas, old.decoded.max_fee_per_gas)
                and self._bumped(tx.max_priority_fee_per_gas, old.decoded.max_priority_fee_per_gas)
            ):
                raise RpcError(SERVER_ERROR, "replacement transaction underpriced")
            del self._by_hash[old.hash]
        waiting[tx.nonce] = transaction
        self._by_hash[transaction.hash] = transaction

    def _bumped(self, new: int, old: int) -> bool:
        return new > old and new * 100 >= old * (100 + self._bump)

    def _check(self, transaction: PoolTransaction, state_nonce: int, balance: int) -> None:
        tx = transaction.decoded
        if transaction.type_id == 3:
            raise RpcError(SERVER_ERROR, "transaction type not supported")
        # Transactions without a chain id pass: the deterministic deployment proxy comes in one.
        if tx.chain_id not in (None, self._chain_id):
            raise RpcError(SERVER_ERROR, f"invalid chain id for signer: have {tx.chain_id} want {self._chain_id}")
        if tx.max_priority_fee_per_gas > tx.max_fee_per_gas:
            raise RpcError(
                SERVER_ERROR,
                f"max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: "
                f"{tx.max_priority_fee_per_gas}, maxFeePerGas: {tx.max_fee_per_gas}",
            )
        if tx.gas > self._gas_limit:
            raise RpcError(SERVER_ERROR, "exceeds block gas limit")
        if tx.nonce < state_nonce:
            raise RpcError(SERVER_ERROR, f"nonce too low: next nonce {state_nonce}, tx nonce {tx.nonce}")
        if tx.gas < tx.intrinsic_gas:
            raise RpcError(SERVER_ERROR, f"intrinsic gas too low: gas {tx.gas}, minimum needed {tx.intrinsic_gas}")
        floor = floor_gas(tx.data)
        if tx.gas < floor:
            raise RpcError(
                SERVER_ERROR, f"insufficient gas for floor data gas cost: gas {tx.gas}, minimum needed {floor}"
            )
        cost = tx.gas * tx.max_fee_per_gas + tx.value
        if cost > balance:
            raise RpcError(
                SERVER_ERROR,
                f"insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, "
                f"overshot {cost - balance}",
            )

    def drop(self, tx_hash: bytes) -> bool:
        """Forget a transaction, as a node does that restarts or runs out of room. False if it was not there."""
        transaction = self._by_hash.pop(tx_hash, None)
        if transaction is None:
            return False
        waiting = self._by_sender[transaction.sender]
        del waiting[transaction.decoded.nonce]
        if not waiting:
            del self._by_sender[transaction.sender]
        return True

    def prune(self, nonce_of: Callable[[bytes], int]) -> None:
        """Forget everything whose nonce was used."""
        used = [
            tx.hash
            for sender, waiting in self._by_sender.items()
            for nonce, tx in waiting.items()
            if nonce < nonce_of(sender)
        ]
        for tx_hash in used:
            self.drop(tx_hash)

    def next_nonce(self, sender: bytes, state_nonce: int) -> int:
        """The first nonce that no waiting transaction without a gap before it uses."""
        waiting = self._by_sender.get(sender, {})
        while state_nonce in waiting:
            state_nonce += 1
        return state_nonce

    def executable(self, nonce_of: Callable[[bytes], int], base_fee: int) -> Iterator[PoolTransaction]:
        """What a block can take, best tip first, each sender's in the order of their nonces.

        If one turns out not to apply, the sender's later ones do not either: their nonces are then too high.
        """
        heads = {sender: nonce_of(sender) for sender in self._by_sender}
        while True:
            ready = [
                tx
                for sender, nonce in heads.items()
                if (tx := self._by_sender[sender].get(nonce)) is not None and tx.decoded.max_fee_per_gas >= base_fee
            ]
            if not ready:
                return
            best = min(ready, key=lambda tx: (-tx.tip(base_fee), tx.arrival))
            heads[best.sender] += 1
            yield best
