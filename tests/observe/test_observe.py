"""Logs, events, spans, metrics and health as seen from outside."""

import asyncio
import logging

import pytest
from opentelemetry import trace
from prometheus_client import REGISTRY, CollectorRegistry

from layer2 import _observe
from layer2._health import Health, HealthState, ProtocolHealth, worst
from layer2._metrics import Levels, Metrics
from layer2._observe import Event, EventDispatcher, get_logger, log_event, operation_context, span
from layer2.config import Secret
from layer2.errors import ConfigurationError, ValidationError
from layer2.testing._canary import Canaries
from layer2.transactions import TxId

LOGGER = get_logger("test")
INVOICE = "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5k"


def test_the_package_logger_has_a_null_handler_and_stays_quiet():
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("layer2").handlers)
    assert LOGGER.name == "layer2.test"


def test_a_record_carries_code_ids_and_data(caplog):
    tx_id = TxId(layer="bob", hash=bytes(32))
    with caplog.at_level(logging.INFO, "layer2"), operation_context(transfer_id="t1"):
        with operation_context(tx_id=tx_id):
            log_event(LOGGER, logging.INFO, "test.sent", "100 % sent", amount=5, block_hash=b"\x01")
        log_event(LOGGER, logging.INFO, "test.sent", "again", transfer_id="t2")
    log_event(LOGGER, logging.ERROR, "test.sent", "outside")
    first, second, third = caplog.records
    assert (first.event_code, first.transfer_id, first.tx_id) == ("test.sent", "t1", str(tx_id))
    assert first.getMessage() == "100 % sent"
    assert first.event_data == {"amount": 5, "block_hash": "01"}
    assert (second.transfer_id, second.tx_id) == ("t2", None)
    assert third.transfer_id is None
    assert first.funcName == "test_a_record_carries_code_ids_and_data"


async def test_ids_of_concurrent_tasks_do_not_mix(caplog):
    async def one(name):
        with operation_context(transfer_id=name):
            await asyncio.sleep(0)
            log_event(LOGGER, logging.ERROR, "test.one", name)

    await asyncio.gather(*(one(f"t{i}") for i in range(5)))
    assert all(record.transfer_id == record.getMessage() for record in caplog.records)


def test_a_malformed_code_is_refused():
    with pytest.raises(ValidationError):
        log_event(LOGGER, logging.ERROR, "Sent!", "x")


def test_no_secret_and_no_whole_invoice_gets_out_by_any_way():
    with Canaries() as canaries:
        preimage, text = canaries.new_bytes(), canaries.new_text()
        canaries.add(INVOICE.encode())
        log_event(
            LOGGER,
            logging.ERROR,
            "test.everything",
            f"pay {INVOICE} at https://user:{text}@node/",
            preimage=preimage,
            payment_preimage=preimage.hex(),
            data=preimage,
            macaroon=text,
            private_key=preimage,
            password=text,
            pin=text,
            invoice=INVOICE,
            nested={"seed": preimage, "list": [preimage, INVOICE, {"secret": text}]},
            settings=Secret(text),
            url=f"postgresql://u:{text}@h/d",
        )
        assert len(canaries.records) == 1
        assert "lnbc2500u1..." in canaries.records[0]
        events = []
        dispatcher = EventDispatcher()
        dispatcher.subscribe(events.append)
        dispatcher.emit(LOGGER, logging.ERROR, "test.again", INVOICE, preimage=preimage, invoice=INVOICE)
        canaries.check(events[0].to_json(), repr(events))


def test_canaries_do_see_a_leak():
    canaries = Canaries()
    secret = canaries.new_bytes()
    with pytest.raises(AssertionError, match="hold a secret"), canaries:
        LOGGER.error("leak %s", secret.hex().upper())
    with pytest.raises(AssertionError, match="hold a secret"):
        canaries.check(repr(secret))
    clean = Canaries()
    clean.new_bytes()
    with clean:
        LOGGER.error("nothing")


def test_hashes_stay_readable():
    assert _observe.redact("preimage_hash", b"\x05") == "05"
    assert _observe.redact("payment_hash", b"\x05") == "05"
    assert _observe.redact("spins", 3) == 3


def test_a_failing_callback_hurts_nobody_and_is_reported(caplog):
    seen = []
    dispatcher = EventDispatcher()

    def fails(event):
        raise RuntimeError("application bug")

    end = dispatcher.subscribe(fails)
    dispatcher.subscribe(seen.append)
    event = dispatcher.emit(LOGGER, logging.INFO, "test.one", "one", transfer_id="t", amount=5)
    assert seen == [event]
    assert event.transfer_id == "t"
    assert event.data == {"amount": "5"}
    assert Event.from_json(event.to_json()) == event
    assert [record.event_code for record in caplog.records if record.levelno == logging.WARNING] == [
        "events.callback_failed"
    ]
    end()
    end()
    caplog.clear()
    dispatcher.emit(LOGGER, logging.INFO, "test.two", "two")
    assert len(seen) == 2
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_coroutine_functions_are_refused_as_callbacks():
    async def callback(event): ...

    with pytest.raises(ValidationError, match="plain function"):
        EventDispatcher().subscribe(callback)


def test_spans_are_made_where_opentelemetry_is_and_skipped_where_it_is_not(monkeypatch):
    made = []

    class Tracer(trace.NoOpTracer):
        def start_as_current_span(self, name, **options):
            made.append((name, options["attributes"]))
            return super().start_as_current_span(name, **options)

    monkeypatch.setattr(_observe, "_tracer", Tracer)
    with pytest.raises(LookupError), span("pay", amount=5, preimage=b"x", invoice=INVOICE):
        raise LookupError
    name, attributes = made[0]
    assert name == "layer2.pay"
    assert attributes["layer2.amount"] == 5
    assert attributes["layer2.preimage"] == "***"
    assert INVOICE not in str(attributes)
    monkeypatch.setattr(_observe, "_tracer", lambda: None)
    with span("pay"):
        pass
    assert len(made) == 1


def test_metrics_go_to_the_given_registry_only_and_two_managers_may_share_it():
    registry = CollectorRegistry()
    first, second, silent = Metrics(registry), Metrics(registry), Metrics()
    for metrics in (first, second, silent):
        with metrics.operation("pay"):
            pass
        with pytest.raises(LookupError), metrics.operation("pay"):
            raise LookupError
        metrics.transfer("reverse", "locked")
        metrics.transfer("reverse", "settled", decided_after_s=12.5)
        metrics.alarm("swap.lock_lost")
        metrics.watch(lambda: Levels(unfinished_transfers=3, running=2, queued=1))
    value = registry.get_sample_value
    assert value("layer2_operations_total", {"operation": "pay", "outcome": "ok"}) == 2
    assert value("layer2_operations_total", {"operation": "pay", "outcome": "LookupError"}) == 2
    assert value("layer2_operation_seconds_count", {"operation": "pay"}) == 4
    assert value("layer2_transfers_total", {"direction": "reverse", "state": "settled"}) == 2
    assert value("layer2_transfer_seconds_sum", {"direction": "reverse", "state": "settled"}) == 25
    assert value("layer2_transfer_seconds_sum", {"direction": "reverse", "state": "locked"}) is None
    assert value("layer2_alarms_total", {"code": "swap.lock_lost"}) == 2
    assert value("layer2_unfinished_transfers") == 6
    assert value("layer2_operations_now", {"state": "queued"}) == 2
    first.close()
    first.close()
    silent.close()
    assert value("layer2_unfinished_transfers") == 3
    assert not [family for family in REGISTRY.collect() if family.name.startswith("layer2")]


def test_a_registry_without_the_library_is_a_configuration_error(monkeypatch):
    registry = CollectorRegistry()
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match="prometheus_client"):
        Metrics(registry)


def test_health_is_a_value_and_as_bad_as_its_parts():
    ok, failed, degraded = HealthState.OK, HealthState.FAILED, HealthState.DEGRADED
    assert worst([]) is ok
    assert worst([ok, ok]) is ok
    assert worst([ok, HealthState.STARTING]) is HealthState.STARTING
    assert worst([ok, failed]) is degraded
    assert worst([failed, failed]) is failed
    health = Health(state=ok, protocols={"bob": ProtocolHealth(state=failed, since_ms=1, reason="refused")})
    assert Health.from_json(health.to_json()) == health
    assert health.ok
    assert not Health(state=ok, needs_attention=("t",)).ok
