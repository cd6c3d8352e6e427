"""All public values are of one make: frozen, slotted, keyword-only, and what leaves the process has a lossless JSON form."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from pathlib import Path

import pytest

import layer2
from layer2 import BTC, Depth, EvmAddress, Transfer, TransferQuote, TransferState
from layer2._values import Value
from layer2.evm import Log, Receipt
from layer2.lightning import HeldHtlc, InvoiceRecord, InvoiceState, NodeInfo, PaymentRecord, PaymentState
from layer2.proofs import BlockHeader
from layer2.proofs import Log as ProvenLog
from layer2.proofs import Receipt as ProvenReceipt
from layer2.terms import DepthPolicy, SwapDirection
from layer2.transfers import QuotedFee

PACKAGES = ["layer2", *(f"layer2.{p.parent.name}" for p in Path(layer2.__file__).parent.glob("*/__init__.py"))]
OF_USERS = {"layer2", "layer2.bob", "layer2.evm", "layer2.lightning", "layer2.proofs"}
"""The packages whose values calls give to users. Those of the others stay inside: states of a swap, rows of a store, tests."""

NO_JSON = {
    **dict.fromkeys(
        [
            "AssetConfig",
            "BobConfig",
            "ConnectionPoolConfig",
            "DepthRule",
            "Layer2Config",
            "LightningConfig",
            "ProviderConfig",
            "SignerConfig",
            "StoreConfig",
            "SwapConfig",
        ],
        "a setting: its text form is TOML, and it holds secrets",
    ),
    **dict.fromkeys(
        ["ChainPreset", "FeeLimits", "HttpLimits", "PaymentLimits", "SenderSettings"], "a setting in Python"
    ),
    "Transfer": "a handle: made by its manager only; to_json gives what it shows",
    "BlockHeader": "its form is its RLP, which its hash is of",
    **dict.fromkeys(
        [
            "Artifact",
            "Deployment",
            "FeeHistory",
            "GasPrice",
            "Header",
            "L1FeeParameters",
            "SignedTransaction",
            "SignedVariant",
            "SubmitProgress",
            "TxRecord",
            "UnsignedTransaction",
        ],
        "a part of the sender; transactions have a wire form",
    ),
    **dict.fromkeys(
        ["ChannelPolicy", "Decision", "HtlcResolution", "UnsignedInvoice"], "a part of the network in memory or a draft"
    ),
}
CHANGES = {"SubmitProgress": "tells a caller how far it came", "SimulationTally": "adds up"}
PLACES = {"SubmitProgress": "begins empty", "Decision": "one of lightning: a pair", "Violation": "a pair of texts"}


def public_dataclasses() -> list[tuple[str, type]]:
    found: dict[type, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) and dataclasses.is_dataclass(value):
                found.setdefault(value, package)
    return sorted(((package, kind) for kind, package in found.items()), key=lambda pair: (pair[0], pair[1].__name__))


@pytest.mark.parametrize(("package", "kind"), public_dataclasses(), ids=lambda part: getattr(part, "__name__", part))
def test_every_public_dataclass_is_of_one_make(package: str, kind: type) -> None:
    name = kind.__name__
    assert kind.__dataclass_params__.frozen or name in CHANGES  # type: ignore[attr-defined]
    assert all(field.kw_only for field in dataclasses.fields(kind)) or name in PLACES
    if package in OF_USERS:
        assert "__slots__" in vars(kind)
        assert issubclass(kind, Value) or name in NO_JSON, "a value that leaves the process has to_json and from_json"


RECORDS = [
    NodeInfo(
        node_id=b"\x02" * 33,
        alias="é",
        network="regtest",
        block_height=1,
        synced_to_chain=True,
        version="1",
        spendable_msat=2**60 + 1,
        receivable_msat=0,
    ),
    InvoiceRecord(
        payment_hash=bytes(32),
        text="lnbc1",
        state=InvoiceState.ACCEPTED,
        amount_msat=2**60 + 1,
        received_msat=1,
        created_at=1,
        expires_at=2,
        is_hold=True,
        htlcs=(HeldHtlc(amount_msat=2**60 + 1, expiry_height=5, accept_height=4),),
        preimage=b"\x01" * 32,
    ),
    PaymentRecord(payment_hash=bytes(32), state=PaymentState.FAILED, amount_msat=2**60 + 1, failure_reason="no_route"),
    Receipt(
        tx_hash=bytes(32),
        block_number=1,
        block_hash=bytes(32),
        index=0,
        succeeded=True,
        gas_used=21_000,
        fee_wei=2**70,
        contract=None,
        logs=(
            Log(
                address=EvmAddress(raw=bytes(20)),
                topics=(bytes(32),),
                data=b"\xff",
                block_number=1,
                block_hash=bytes(32),
                tx_hash=bytes(32),
                log_index=0,
            ),
        ),
        fields={"l1Fee": "0x1", "logs": []},
    ),
    ProvenReceipt(
        type=2,
        status=1,
        cumulative_gas_used=1,
        bloom=bytes(256),
        logs=(ProvenLog(address=bytes(20), topics=(bytes(32),), data=b""),),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_goes_through_json_without_loss(record: Value) -> None:
    text = record.to_json()
    assert type(record).from_json(text) == record
    assert str(2**60 + 1) not in text or f'"{2**60 + 1}"' in text
    assert type(record).json_schema()["type"] == "object"
    assert json.loads(text)


def test_the_fields_of_a_block_header_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        BlockHeader(b"", {})  # type: ignore[misc]


def test_a_handle_shows_as_json_what_it_shows() -> None:
    account = EvmAddress(raw=b"\x0b" * 20)
    quote = TransferQuote(
        asset=BTC,
        amount=2**60 + 1,
        source="bob",
        destination="lightning",
        direction=SwapDirection.SUBMARINE,
        fees=(QuotedFee(name="provider", coin="BTC", amount=5),),
        requires=(),
        token=account,
        htlc_contract=account,
        provider=account,
        depth_policy=DepthPolicy(depth=Depth.SAFE),
        seconds_expected=1,
        seconds_worst=2,
        expires_at=3,
    )
    transfer = Transfer(
        id="7",
        state=TransferState.LOCKED,
        reason=None,
        quote=quote,
        invoice="lnbc1",
        created_at_ms=1,
        updated_at_ms=2,
        act_by=None,
        _host=None,  # type: ignore[arg-type]
    )
    shown = json.loads(transfer.to_json())
    assert TransferQuote.from_json(json.dumps(shown.pop("quote"))) == quote
    assert shown == {
        "id": "7",
        "state": "locked",
        "reason": None,
        "invoice": "lnbc1",
        "created_at_ms": 1,
        "updated_at_ms": 2,
        "act_by": None,
    }
