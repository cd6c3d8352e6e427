from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from layer2.addresses import EvmAddress
from layer2.storage import NewSwap, Store
from layer2.swaps._states import Agreed, Deal, Role
from layer2.terms import ChainTiming, DepthPolicy, Lock, SignedTerms, SwapDirection, SwapTerms
from layer2.transactions import Depth


class FixedClock:
    """A clock that stands still."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return self.now / 1000

    async def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


TIMING = ChainTiming(
    name="test",
    bitcoin_block_ms=600_000,
    bitcoin_poisson=True,
    bitcoin_rate_margin_percent=20,
    evm_block_s=2,
    evm_inclusion_s=60,
    evm_clock_skew_s=1800,
    clock_skew_s=60,
    safe_lag_s=600,
    finality_s=1800,
    lock_window_s=600,
    invoice_expiry_s=3600,
    payment_time_limit_s=300,
    route_cltv_blocks=100,
    hold_expiry_delta_blocks=18,
    onchain_resolve_blocks=6,
    slack_blocks=3,
    grace_s=60,
    max_timelock_s=500_000,
)


def _make_deal(
    number: int = 1,
    *,
    role: Role = Role.CLIENT,
    direction: SwapDirection = SwapDirection.SUBMARINE,
    payment_hash: bytes | None = None,
) -> Deal:
    lock = Lock(
        chain_id=60808,
        contract=EvmAddress(raw=b"\x01" * 20),
        preimage_hash=payment_hash or number.to_bytes(32),
        amount=2**255 + 1,
        token=EvmAddress(raw=b"\x02" * 20),
        claimer=EvmAddress(raw=b"\x03" * 20),
        refunder=EvmAddress(raw=b"\x04" * 20),
        timelock=1_800_100_000,
    )
    terms = SwapTerms(
        swap_id=f"{number + 2**100:032x}",
        direction=direction,
        lock=lock,
        invoice="lnbc1example",
        invoice_amount_msat=2**63,
        provider_fee=500,
        routing_fee_limit_msat=400_000,
        lock_by=1_800_000_600,
        depth_policy=DepthPolicy(depth=Depth.SAFE),
        timing=TIMING,
        created_at=1_800_000_000,
    )
    return Deal(
        id=f"{number:032x}",
        role=role,
        signed=SignedTerms(terms=terms, signature=b"\x05" * 65),
        invoice_expires_at=1_800_003_600,
        invoice_final_cltv=80,
    )


def _make_swap(number: int = 1, *, role: Role = Role.CLIENT, payment_hash: bytes | None = None, **fields) -> NewSwap:
    new = NewSwap(deal=_make_deal(number, role=role, payment_hash=payment_hash), state=Agreed())
    return replace(new, **fields)


@dataclass
class Databases:
    """Makes empty databases of one kind."""

    kind: str
    folder: Path
    server: str = ""

    def __post_init__(self) -> None:
        self._numbers = count(1)

    def new(self) -> str:
        if self.kind == "sqlite":
            return f"sqlite:///{self.folder / f'store{next(self._numbers)}' / 'layer2.db'}"
        import psycopg

        name = f"t{os.urandom(6).hex()}"
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.server}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request, tmp_path):
    server = request.getfixturevalue("postgres_server") if request.param == "postgresql" else ""
    return Databases(request.param, tmp_path, server)


@pytest.fixture
def postgres_databases(postgres_server, tmp_path):
    return Databases("postgresql", tmp_path, postgres_server)


@pytest.fixture
def url(databases):
    return databases.new()


@pytest.fixture
def make_deal():
    return _make_deal


@pytest.fixture
def make_swap():
    return _make_swap


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
async def store(url, clock):
    async with await Store.open(url, clock=clock) as opened:
        yield opened
