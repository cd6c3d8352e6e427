"""A manager without a network, to see what the sync side makes of it."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace

import pytest

from layer2._health import Health, HealthState
from layer2._operations import Operations
from layer2.errors import NotFound
from layer2.transfers import Transfer, TransferState


class Layer2Manager:
    """Answers as the real one would, from memory."""

    def __init__(self, config=None, *, signer=None, protocols=None, clock=None):
        self.log = []
        self.protocols = dict(protocols or {})
        self.operations = Operations()
        self.paid = asyncio.Event()

    async def __aenter__(self):
        self.log.append("enter")
        return self

    async def initialize_all_async(self, **options):
        self.operations.open()
        self.log.append("initialize")

    async def get_protocol_async(self, protocol_type, **options):
        return self.protocols[protocol_type]

    async def cross_layer_transfer_async(self, *arguments, timeout, cancel, **options):
        async def pay():
            await self.paid.wait()
            return "proof"

        try:
            return await self.operations.run(pay, what="transfer", timeout=timeout, cancel=cancel, slot=False)
        except asyncio.CancelledError:
            self.log.append("wait ended")
            raise

    async def verify_cross_layer_proof_async(self, proof, **options):
        return proof == "proof"

    async def quote_cross_layer_transfer_async(self, *arguments, **options):
        raise NotFound("no quote")

    async def start_cross_layer_transfer_async(self, *arguments, **options):
        return self._handle("t1")

    async def get_transfer_async(self, transfer_id, **options):
        return self._handle(transfer_id)

    async def list_transfers_async(self, **options):
        return [self._handle("t1"), self._handle("t2")]

    async def transfers_async(self):
        for name in ("t1", "t2"):
            yield self._handle(name)

    async def wait_idle_async(self, *, timeout, cancel):
        await self.operations.run(asyncio.Event().wait, what="idle", timeout=timeout, cancel=cancel)

    def health(self):
        if "close" in self.log:
            return Health(state=HealthState.CLOSED)
        asyncio.get_running_loop()
        return Health(state=HealthState.OK)

    async def close_async(self, **options):
        self.log.append("close")
        await self.operations.close_async(grace_s=0)

    def _handle(self, transfer_id):
        return Transfer(
            id=transfer_id,
            state=TransferState.AGREED,
            reason=None,
            quote=None,
            invoice="lnbc1",
            created_at_ms=1,
            updated_at_ms=1,
            act_by=None,
            _host=self,
        )

    async def transfer_result(self, transfer_id, timeout, cancel):
        return f"proof of {transfer_id}"

    async def transfer_cancel(self, transfer_id, timeout):
        return True

    async def transfer_events(self, transfer_id):
        self.log.append("events")
        try:
            for version in (1, 2):
                await asyncio.sleep(0)
                yield SimpleNamespace(transfer_id=transfer_id, version=version)
            if transfer_id == "endless":
                await asyncio.Event().wait()
        finally:
            self.log.append("events ended")


@pytest.fixture
def fake_manager(monkeypatch):
    """Puts it in the place of the real manager; gives the list of those that were made."""
    made = []

    class Made(Layer2Manager):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    module = ModuleType("layer2.manager")
    module.Layer2Manager = Made
    monkeypatch.setitem(sys.modules, "layer2.manager", module)
    return made
