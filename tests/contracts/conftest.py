"""A real EVM to try the contracts on: one chain a module, driven without an event loop."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from layer2 import _rlp
from layer2._crypto import eth_address, keccak256, public_key, sha256, sign_recoverable
from layer2.addresses import EvmAddress
from layer2.devnet import EmbeddedEvm
from layer2.evm import (
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    LockState,
    RpcError,
    decode_htlc_revert,
    decode_status,
    decode_uint,
    encode_approve,
    encode_balance_of,
    encode_call,
    encode_lock,
    encode_status,
)
from layer2.terms import Lock

T = TypeVar("T")

DAY_S = 86_400
TOKENS = Path(__file__).parent / "tokens"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine that never waits, which is all that the chain has when it runs on the caller's thread."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the chain waited for something")


@dataclass(frozen=True)
class Account:
    key: bytes = field(repr=False)

    @property
    def address(self) -> EvmAddress:
        return EvmAddress(raw=eth_address(public_key(self.key)))

    def sign(self, digest: bytes) -> bytes:
        signature, parity = sign_recoverable(digest, self.key)
        return signature + bytes([27 + parity])


class StoppedClock:
    """Shows what it is set to."""

    def __init__(self, now_s: int) -> None:
        self.now_s = now_s

    def now_ms(self) -> int:
        return self.now_s * 1000

    def monotonic_s(self) -> float:
        return float(self.now_s)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here sleeps")


class Bench:
    """The chain with the HTLC contract and a token, and shorthands for what the tests do with them."""

    def __init__(self, evm: EmbeddedEvm, clock: StoppedClock, accounts: Sequence[Account]) -> None:
        self.evm = evm
        self.clock = clock
        self.payer, self.claimer, self.refunder, self.stranger = accounts
        self._serial = itertools.count(1)

    def rpc(self, method: str, *params: Any) -> Any:
        return run(self.evm.call(method, params))

    def another(self, evm: EmbeddedEvm) -> Bench:
        """The same people on another chain, which this starts."""
        run(evm.start())
        return Bench(evm, self.clock, (self.payer, self.claimer, self.refunder, self.stranger))

    def close(self) -> None:
        run(self.evm.aclose())

    def mine(self) -> None:
        run(self.evm.mine())

    @property
    def next_timestamp(self) -> int:
        """Of the next block."""
        head = self.rpc("eth_getBlockByNumber", "latest", False)
        return max(self.clock.now_s, int(head["timestamp"], 16) + 1)

    def fresh_preimage(self) -> bytes:
        return sha256(b"preimage %d" % next(self._serial))

    def lock(self, preimage: bytes | None = None, **changes: Any) -> Lock:
        """A lock with good parameters, except for ``changes``."""
        lock = Lock(
            chain_id=self.evm.chain_id,
            contract=HTLC_ADDRESS,
            preimage_hash=sha256(preimage or self.fresh_preimage()),
            amount=1000,
            token=TEST_TOKEN_ADDRESS,
            claimer=self.claimer.address,
            refunder=self.refunder.address,
            timelock=self.next_timestamp + DAY_S,
        )
        return replace(lock, **changes)

    def locked(self, preimage: bytes | None = None, **changes: Any) -> Lock:
        """A lock that is on the chain."""
        lock = self.lock(preimage, **changes)
        assert self.succeeds(self.payer, encode_lock(lock))
        return lock

    def send(self, sender: Account, data: bytes, *, to: EvmAddress | None = HTLC_ADDRESS, gas: int = 3_000_000) -> Any:
        """Send a transaction, mine it and give its receipt."""
        nonce = int(self.rpc("eth_getTransactionCount", str(sender.address), "latest"), 16)
        to_raw = to.raw if to else b""
        fields = [self.evm.chain_id, nonce, 10**6, 10**9, gas, to_raw, 0, data, []]
        signature, parity = sign_recoverable(keccak256(b"\x02" + _rlp.encode(fields)), sender.key)
        scalars = [int.from_bytes(signature[:32]), int.from_bytes(signature[32:])]
        raw = b"\x02" + _rlp.encode([*fields, parity, *scalars])
        tx_hash = self.rpc("eth_sendRawTransaction", "0x" + raw.hex())
        self.mine()
        return self.rpc("eth_getTransactionReceipt", tx_hash)

    def succeeds(self, sender: Account, data: bytes, *, to: EvmAddress = HTLC_ADDRESS) -> bool:
        return self.send(sender, data, to=to)["status"] == "0x1"

    def simulate(self, sender: Account, data: bytes, *, to: EvmAddress = HTLC_ADDRESS, value: int = 0) -> bytes:
        """Run it in the context of the next block."""
        call = {"from": str(sender.address), "to": str(to), "data": "0x" + data.hex(), "value": hex(value)}
        return bytes.fromhex(self.rpc("eth_call", call, "pending")[2:])

    def refusal(self, sender: Account, data: bytes, **more: Any) -> str | None:
        """Why it is refused: the name of the error, or the text, or None where the refusal says nothing."""
        with pytest.raises(RpcError) as caught:
            self.simulate(sender, data, **more)
        assert caught.value.code == 3, caught.value
        return decode_htlc_revert(bytes.fromhex(caught.value.data[2:]))

    def status(self, lock: Lock) -> LockState:
        return decode_status(self.simulate(self.stranger, encode_status(lock.lock_id)), lock.preimage_hash)

    def balance(self, owner: EvmAddress, token: EvmAddress = TEST_TOKEN_ADDRESS) -> int:
        return decode_uint(self.simulate(self.stranger, encode_balance_of(owner), to=token))

    def deploy(self, bytecode: bytes) -> EvmAddress:
        return EvmAddress.parse(self.send(self.stranger, bytecode, to=None)["contractAddress"])

    def mint(self, token: EvmAddress, owner: EvmAddress, amount: int) -> None:
        assert self.succeeds(self.stranger, encode_call("mint(address,uint256)", owner, amount), to=token)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    clock = StoppedClock(1_800_000_000)
    accounts = [Account(sha256(name)) for name in (b"payer", b"claimer", b"refunder", b"stranger")]
    evm = EmbeddedEvm(
        clock=clock,
        block_time_s=None,
        in_thread=False,
        balances={account.address: 10**20 for account in accounts},
    )
    run(evm.start())
    bench = Bench(evm, clock, accounts)
    bench.mint(TEST_TOKEN_ADDRESS, bench.payer.address, 10**12)
    assert bench.succeeds(bench.payer, encode_approve(HTLC_ADDRESS, 2**256 - 1), to=TEST_TOKEN_ADDRESS)
    yield bench
    bench.close()


@pytest.fixture(scope="session")
def token_bytecode() -> dict[str, bytes]:
    """Tokens that only tests use, compiled once."""
    sources = sorted(TOKENS.glob("*.vy"))
    command = [sys.executable, "-m", "vyper.cli.vyper_compile", "-f", "bytecode", *map(str, sources)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {source.stem: bytes.fromhex(line[2:]) for source, line in zip(sources, lines, strict=True)}
