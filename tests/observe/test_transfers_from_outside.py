"""What whole transfers on the embedded network show from outside, both sides in this process: metrics, events, and no secrets."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry import trace
from prometheus_client import REGISTRY, CollectorRegistry

import layer2.signers
from layer2 import BTC, Layer2Config, Layer2Manager, SwapRefunded, _observe, parse_address
from layer2 import Layer2ProtocolType as P
from layer2.testing import Canaries


@pytest.fixture
def canaries(monkeypatch):
    """Knows every private key, every secret that a signer derives and every invoice, as they are made."""
    found = Canaries()
    signer = layer2.signers.LocalSigner
    make, derive = signer.__init__, signer.derive_secret

    def made(self, private_key):
        make(self, found.add(private_key))

    async def derived(self, label):
        return found.add(await derive(self, label))

    monkeypatch.setattr(signer, "__init__", made)
    monkeypatch.setattr(signer, "derive_secret", derived)
    return found


@pytest.fixture
def spans(monkeypatch):
    """Name and attributes of every span."""
    made = []

    class Tracer(trace.NoOpTracer):
        def start_as_current_span(self, name, **options):
            made.append((name, options["attributes"]))
            return super().start_as_current_span(name, **options)

    monkeypatch.setattr(_observe, "_tracer", Tracer)
    return made


async def test_transfers_of_every_kind_show_no_secret_and_are_counted(canaries, spans, caplog):
    """Settled both ways, and refused by the payee and refunded, at once: every record, event, span and value is looked through."""
    registry = CollectorRegistry()
    events = []
    with canaries, caplog.at_level(logging.DEBUG):
        async with Layer2Manager(Layer2Config.embedded(), metrics_registry=registry) as manager:
            await manager.initialize_all_async()
            manager.on_event(events.append)
            merchant = manager.embedded_network.merchant_node
            refused = await merchant.create_invoice(amount_msat=50_000_000, memo="refused")
            await merchant.cancel_invoice(refused.payment_hash)
            canaries.add(refused.text.encode())

            down, up, failure = await asyncio.gather(
                manager.cross_layer_transfer_async(BTC, 100_000, P.BOB, P.LIGHTNING),
                manager.cross_layer_transfer_async(BTC, 100_000, P.LIGHTNING, P.BOB),
                manager.cross_layer_transfer_async(BTC, 50_000, P.BOB, P.LIGHTNING, recipient=refused.text),
                return_exceptions=True,
            )
            assert isinstance(failure, SwapRefunded)
            transfers = await manager.list_transfers_async()
            for proof in (down, up):
                canaries.add(proof.preimage)
            for transfer in transfers:
                canaries.add(transfer.invoice.encode())
            shown = [repr(manager), repr(manager.health()), str(failure), repr(failure), repr(failure.__cause__)]
            shown += [repr(value) for value in (down, up, *transfers, *events)]
            shown += [repr(parse_address(transfer.invoice)) for transfer in transfers]
            unfinished = registry.get_sample_value("layer2_unfinished_transfers")
            assert unfinished == manager.health().unfinished_transfers
        canaries.check(*shown, *(event.to_json() for event in events), repr(spans), caplog.text)

    _check_records(caplog.records, {transfer.id for transfer in transfers})
    _check_counts(registry.get_sample_value)
    assert [name for name, _ in spans].count("layer2.a_transfer") == 3
    assert not [family for family in REGISTRY.collect() if family.name.startswith("layer2")]


def _check_records(records, transfers):
    """The engine's steps have a stable code, and say to which transfer they belong."""
    steps = [record for record in records if getattr(record, "event_code", None) == "swap.transition"]
    assert {record.name for record in steps} == {"layer2.swaps"}
    assert transfers < {record.transfer_id for record in steps}, "the provider's swaps have ids of their own"


def _check_counts(value):
    for direction, state, count in (
        ("submarine", "agreed", 2),
        ("submarine", "settled", 1),
        ("submarine", "refunded", 1),
        ("reverse", "settled", 1),
        ("reverse", "refunded", None),
    ):
        labels = {"direction": direction, "state": state}
        assert value("layer2_transfers_total", labels) == count, labels
        if state != "agreed":
            assert value("layer2_transfer_seconds_count", labels) == count, labels
    for outcome, count in (("ok", 2), ("SwapRefunded", 1)):
        assert value("layer2_operations_total", {"operation": "a_transfer", "outcome": outcome}) == count
    assert value("layer2_unfinished_transfers") == 0, "a closed manager drives nothing"
