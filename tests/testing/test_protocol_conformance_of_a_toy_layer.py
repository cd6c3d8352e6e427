"""The conformance suite passes a layer that keeps the rules, and catches one that breaks each of them."""

import asyncio
import hashlib
import pickle
from contextlib import asynccontextmanager

import pytest

from layer2._operations import Operations
from layer2.addresses import parse_address
from layer2.assets import BTC, check_amount
from layer2.errors import AssetError, IdempotencyConflict, NotFound
from layer2.protocol import DEFAULT, Capabilities, Layer2ProtocolAsync
from layer2.testing import ConformanceSubject, Layer2ProtocolConformance
from layer2.transactions import Depth, EvmCall, Outcome, TxId, TxStatus

PAYEE = parse_address("0x" + "11" * 20)


class ToyLayer(Layer2ProtocolAsync):
    """A bank in a dictionary."""

    protocol_type = "toy"
    capabilities = Capabilities(hold_invoices=False, proofs=(), depths=(Depth.FINALIZED,), smart_contracts=False)

    def __init__(self):
        self.operations = Operations()
        self.balance = 1_000
        self.done = {}
        self.keys = {}

    async def initialize_async(self, *, timeout=DEFAULT, cancel=None):
        self.operations.open()

    async def close_async(self, *, timeout=DEFAULT, cancel=None):
        await self.operations.close_async()

    async def submit_transaction_async(self, transaction, *, timeout=DEFAULT, cancel=None):
        tx_id = await self._run(lambda: self._send(1), timeout, cancel)
        return self.done[tx_id]

    async def get_transaction_status_async(self, tx_id, *, timeout=DEFAULT, cancel=None):
        return await self._run(lambda: self._status(self._id(tx_id)), timeout, cancel)

    async def transfer_asset_async(
        self, asset_id, amount, recipient, *, idempotency_key=None, timeout=DEFAULT, cancel=None
    ):
        check_amount(amount)
        to = parse_address(recipient) if not hasattr(recipient, "raw") else recipient
        if asset_id != BTC:
            raise AssetError("unknown")
        arguments = (amount, to)

        async def send():
            known = self.keys.get(idempotency_key)
            if known is not None:
                if known[0] != arguments:
                    raise IdempotencyConflict("other arguments")
                return known[1]
            tx_id = await self._send(amount)
            if idempotency_key is not None:
                self.keys[idempotency_key] = (arguments, tx_id)
            return tx_id

        return await self._run(send, timeout, cancel)

    async def verify_proof_async(self, proof, *, timeout=DEFAULT, cancel=None):
        return proof == "good"

    async def wait_for_transaction_async(self, tx_id, depth=None, *, timeout=None, cancel=None):
        async def wait():
            while (known := self._id(tx_id)) not in self.done:
                await asyncio.sleep(0.001)
            return self.done[known]

        return await self._run(wait, timeout, cancel)

    async def _run(self, factory, timeout, cancel):
        return await self.operations.run(factory, timeout=timeout, cancel=cancel, what="toy")

    def _id(self, tx_id):
        return tx_id if isinstance(tx_id, TxId) else TxId.parse(tx_id, layer="toy")

    async def _send(self, amount):
        self.balance -= amount
        tx_id = TxId(layer="toy", hash=hashlib.sha256(pickle.dumps(len(self.done))).digest())
        self.done[tx_id] = TxStatus(tx_id=tx_id, outcome=Outcome.SUCCEEDED, depth=Depth.FINALIZED)
        return tx_id

    async def _status(self, tx_id):
        if tx_id not in self.done:
            raise NotFound("no such transaction")
        return self.done[tx_id]


def subject_of(layer):
    async def recipient():
        return PAYEE

    async def transaction():
        return EvmCall(to=PAYEE)

    async def balance():
        return layer.balance

    return ConformanceSubject(
        protocol=layer,
        asset=BTC,
        amount=5,
        new_recipient=recipient,
        new_transaction=transaction,
        balance=balance,
        good_proof="good",
        bad_proof="bad",
    )


class TestToyLayer(Layer2ProtocolConformance):
    """The rules, on a layer that keeps them."""

    @asynccontextmanager
    async def subject(self):
        yield subject_of(ToyLayer())


class NoChecks(ToyLayer):
    async def transfer_asset_async(self, asset_id, amount, recipient, **options):
        return await self._send(5)


class NoKeys(ToyLayer):
    async def transfer_asset_async(self, *args, idempotency_key=None, **options):
        return await super().transfer_asset_async(*args, **options)


class UnknownIsFailed(ToyLayer):
    async def _status(self, tx_id):
        return TxStatus(tx_id=tx_id, outcome=Outcome.FAILED, depth=Depth.FINALIZED)


class MixesAnswers(ToyLayer):
    async def _status(self, tx_id):
        return TxStatus(tx_id=TxId(layer="toy", hash=bytes(32)), outcome=Outcome.UNKNOWN, depth=Depth.NONE)


class NoLife(ToyLayer):
    async def _run(self, factory, timeout, cancel):
        return await factory()

    async def _send(self, amount):
        self.balance -= amount
        tx_id = TxId(layer="toy", hash=bytes(32))
        self.done[tx_id] = TxStatus(tx_id=tx_id, outcome=Outcome.SUCCEEDED, depth=Depth.FINALIZED)
        return tx_id


@pytest.mark.parametrize(
    ("layer", "test", "arguments"),
    [
        (NoChecks, "test_wrong_amounts_are_refused", (0,)),
        (NoChecks, "test_unknown_assets_are_refused", ()),
        (NoChecks, "test_wrong_recipients_are_refused", ("nobody",)),
        (NoKeys, "test_the_same_key_attaches_and_another_use_of_it_conflicts", ()),
        (NoKeys, "test_the_same_key_at_the_same_time_sends_once", ()),
        (UnknownIsFailed, "test_wrong_ids_are_refused_and_unknown_ones_are_no_failures", ()),
        (MixesAnswers, "test_many_reads_at_once_each_get_their_own_answer", ()),
        (NoLife, "test_use_before_initialise_is_refused", ()),
        (NoLife, "test_a_cancel_event_that_is_set_prevents_the_transfer", ()),
        (NoLife, "test_wrong_time_limits_are_refused", (-1,)),
        (NoLife, "test_another_event_loop_is_refused", ()),
    ],
)
async def test_a_broken_layer_is_caught(layer, test, arguments):
    class Suite(Layer2ProtocolConformance):
        limit_s = 5

        @asynccontextmanager
        async def subject(self):
            yield subject_of(layer())

    failed = False
    try:
        await getattr(Suite(), test)(*arguments)
    except (AssertionError, NotFound):
        failed = True
    except pytest.fail.Exception:
        failed = True
    assert failed
