"""The sync side: from threads, from a running loop, with cancel, Ctrl-C, iterators and at the interpreter's end."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import layer2
from layer2._health import HealthState
from layer2.assets import BTC
from layer2.config import Layer2Config
from layer2.errors import (
    AsyncRuntimeError,
    AsyncTimeout,
    ConfigurationError,
    NotFound,
    TaskCancelled,
    ValidationError,
)
from layer2.protocol import Layer2ProtocolType as P
from layer2.sync import Layer2ManagerSync, Layer2ProtocolSync, TransferSync
from layer2.testing import ANY, MockLayer2Protocol
from layer2.transactions import TxId

TX = TxId(layer="mock", hash=bytes(32))
CONFIG = Layer2Config(network="embedded")


@pytest.fixture
def manager(fake_manager):
    with Layer2ManagerSync(CONFIG) as made:
        made.initialize_all_sync()
        yield made


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_enter_use_close(fake_manager):
    with Layer2ManagerSync(CONFIG) as manager:
        manager.initialize_all_sync()
        assert manager.verify_cross_layer_proof_sync("proof") is True
        assert manager.health().ok
    assert fake_manager[0].log == ["enter", "initialize", "close"]
    manager.close_sync()
    assert manager.health().state is HealthState.CLOSED
    with pytest.raises(AsyncRuntimeError, match="closed"):
        manager.get_transfer_sync("t1")


def test_errors_come_through_as_they_are(manager):
    with pytest.raises(NotFound, match="no quote"):
        manager.quote_cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING)
    with pytest.raises(AsyncTimeout):
        manager.cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING, timeout=0.01)


def test_many_threads_at_once(manager):
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: manager.get_transfer_sync(f"t{i}").result_sync(), range(200)))
    assert found == [f"proof of t{i}" for i in range(200)]


async def test_from_a_running_loop_as_in_a_notebook(fake_manager, no_blocking_calls):
    no_blocking_calls.deactivate()
    with Layer2ManagerSync(CONFIG) as manager:
        manager.initialize_all_sync()
        assert manager.get_transfer_sync("t").result_sync() == "proof of t"


def test_transfers_and_layers_come_as_their_twins(fake_manager):
    mock = MockLayer2Protocol("mock")
    mock.expect("transfer_asset_async", BTC, 5, ANY).returns(TX)
    with Layer2ManagerSync(CONFIG, protocols={"mock": mock}) as manager:
        manager.initialize_all_sync()
        layer = manager.get_protocol_sync("mock")
        assert type(layer) is Layer2ProtocolSync
        assert layer.protocol_type == "mock"
        assert layer.transfer_asset_sync(BTC, 5, "x") == TX
        transfers = manager.list_transfers_sync()
        assert [type(item) for item in transfers] == [TransferSync, TransferSync]
        assert (transfers[0].id, transfers[0].invoice) == ("t1", "lnbc1")
        assert list(manager.transfers_sync()) == transfers
        assert all(type(item) is TransferSync for item in manager.transfers_sync())
        assert transfers[0] == manager.get_transfer_sync("t1")
        assert transfers[0] != transfers[1]
        assert manager.start_cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING).cancel_sync() is True
    mock.verify()


def test_cancel_is_a_threading_event(manager):
    cancel = threading.Event()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(TaskCancelled):
        manager.cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING, cancel=cancel)
    with pytest.raises(TaskCancelled):
        manager.wait_idle_sync(cancel=cancel)


@pytest.mark.parametrize("cancel", [asyncio.Event(), "now", 1, True])
def test_another_cancel_is_refused(manager, cancel):
    with pytest.raises(ValidationError, match=r"threading\.Event, not") as caught:
        manager.wait_idle_sync(cancel=cancel)
    assert caught.value.field == "cancel"


def test_errors_name_the_calls_that_their_reader_has():
    with (
        Layer2ManagerSync(protocols={"mock": MockLayer2Protocol("mock")}) as manager,
        pytest.raises(ConfigurationError, match="give it settings") as caught,
    ):
        manager.cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING)
    assert caught.value.args == ("cross_layer_transfer_sync: a manager of protocols= alone has no transfers",)


def test_events_are_an_iterator_that_can_be_left(manager, fake_manager):
    log = fake_manager[0].log
    assert [event.version for event in manager.get_transfer_sync("t").events()] == [1, 2]
    events = manager.get_transfer_sync("endless").events()
    assert next(events).version == 1
    events.close()
    events.close()
    with pytest.raises(StopIteration):
        next(events)
    wait_until(lambda: log.count("events ended") == 2)
    with manager.get_transfer_sync("endless").events() as block:
        next(block)
    wait_until(lambda: log.count("events ended") == 3)
    left = manager.get_transfer_sync("endless").events()
    next(left)
    del left
    gc.collect()
    wait_until(lambda: log.count("events ended") == 4)


def test_a_call_on_the_manager_s_own_thread_is_refused_instead_of_hanging(fake_manager):
    mock = MockLayer2Protocol("mock")
    refused = []

    def callback(*args, **kwargs):
        for call in (manager.health, manager.close_sync):
            with pytest.raises(AsyncRuntimeError, match="wait for itself") as caught:
                call()
            refused.append(caught.value)
        return TX

    mock.expect("transfer_asset_async", BTC, 5, ANY).calls(callback)
    with Layer2ManagerSync(CONFIG, protocols={"mock": mock}) as manager:
        manager.initialize_all_sync()
        assert manager.get_protocol_sync("mock").transfer_asset_sync(BTC, 5, "x") == TX
    assert len(refused) == 2


def test_closing_while_calls_wait_ends_them(fake_manager):
    manager = Layer2ManagerSync(CONFIG)
    manager.initialize_all_sync()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(manager.cross_layer_transfer_sync, BTC, 1, P.BOB, P.LIGHTNING)
        wait_until(lambda: fake_manager[0].operations.running == 1)
        manager.close_sync()
        with pytest.raises(AsyncRuntimeError, match="close"):
            waiting.result(timeout=10)


def test_two_threads_may_close(fake_manager):
    manager = Layer2ManagerSync(CONFIG)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: manager.close_sync(), range(8)))
    assert fake_manager[0].log == ["close"]


def test_ctrl_c_ends_the_wait_and_the_manager_stays_usable(manager, fake_manager):
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        manager.cross_layer_transfer_sync(BTC, 1, P.BOB, P.LIGHTNING)
    wait_until(lambda: "wait ended" in fake_manager[0].log)
    assert manager.health().ok


def test_use_after_fork_is_refused(manager, monkeypatch):
    real = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    with pytest.raises(AsyncRuntimeError, match="fork"):
        manager.health()
    manager.close_sync()
    monkeypatch.undo()
    assert manager.health().ok


def test_a_forgotten_manager_warns_and_its_thread_ends(fake_manager):
    before = threading.active_count()
    manager = Layer2ManagerSync(CONFIG)
    with pytest.warns(ResourceWarning, match="unclosed Layer2ManagerSync"):
        del manager
    wait_until(lambda: threading.active_count() <= before)


def test_a_refused_configuration_leaves_no_thread(fake_manager, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    before = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigurationError, match="layer2 init"):
            Layer2ManagerSync()
    assert threading.active_count() == before


WAITING_THREAD = """
def wait():
    try:
        m.wait_idle_sync()
    except AsyncRuntimeError:
        pass
threading.Thread(target=wait, daemon=True).start()
"""


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(0)", WAITING_THREAD])
def test_leaving_the_interpreter_closes_in_order_and_does_not_hang(tmp_path, ending):
    script = f"""
import asyncio, importlib.util, sys, threading, types
spec = importlib.util.spec_from_file_location("fake", {str(Path(__file__).with_name("conftest.py"))!r})
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)

class Manager(fake.Layer2Manager):
    async def close_async(self):
        await asyncio.to_thread(print, "closed in order", flush=True)
        await super().close_async()

module = types.ModuleType("layer2.manager")
module.Layer2Manager = Manager
sys.modules["layer2.manager"] = module
from layer2.config import Layer2Config
from layer2.errors import AsyncRuntimeError
from layer2.sync import Layer2ManagerSync
m = Layer2ManagerSync(Layer2Config(network="embedded"))
m.initialize_all_sync()
{ending}
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(layer2.__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "closed in order", done.stderr
    assert "Traceback" not in done.stderr


async def test_the_calling_thread_s_loop_is_not_used(fake_manager, no_blocking_calls):
    no_blocking_calls.deactivate()
    with Layer2ManagerSync(CONFIG) as manager:
        manager.initialize_all_sync()
        assert fake_manager[0].operations._loop is not asyncio.get_running_loop()
