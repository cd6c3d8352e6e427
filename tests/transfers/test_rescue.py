"""Everything is lost but the key: the locks are found on the chain, and the money is got from them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rescues import (
    SAT,
    command,
    make_lock,
    pay_and_lose_the_store,
    plans,
    rescue_of,
    standing,
    tokens,
    until,
    until_the_provider_locked,
)
from served_chains import served

from layer2 import BTC, Layer2Config, Layer2Manager, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.devnet import EmbeddedNetwork
from layer2.signers import LocalSigner
from layer2.swaps import DEVNET_TIMING, LockStatus, RescueAction, search_window_ms

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


class OtherSigner:
    """A signer that is no ``LocalSigner``: it derives one secret at a time."""

    def __init__(self, local: LocalSigner) -> None:
        self._local = local
        self.address = local.address

    async def sign_digest(self, digest: bytes) -> bytes:
        return await self._local.sign_digest(digest)

    async def derive_secret(self, label: bytes) -> bytes:
        return await self._local.derive_secret(label)


async def test_a_lock_of_the_provider_is_claimed_with_the_preimage_that_the_key_gives_again(
    config: Layer2Config, network: EmbeddedNetwork
) -> None:
    before = await tokens(network)
    plan = await pay_and_lose_the_store(config, network)
    assert not plan.refunder
    assert plan.not_after is not None
    assert plan.preimage is not None
    assert plan.preimage.hex() not in repr(plan)
    assert await tokens(network) == before
    async with rescue_of(network, network.client_signer) as (work, _):
        assert not await work.send(plan), "only when a person says that it is what was agreed on"
        assert await work.send(plan, confirmed=True)
        assert await work.wait(plan) is LockStatus.CLAIMED
        assert await tokens(network) == before + SAT
        assert await standing(work) is None
        assert not await work.send((await plans(work))[-1])
    # A stranger has nothing here, and the provider's own view of the same lock is that of its refunder.
    async with rescue_of(network, LocalSigner.generate()) as (work, _):
        assert await work.find(from_block=0) == []
    async with rescue_of(network, network.provider_signer) as (work, _):
        assert all(plan.refunder for plan in await plans(work))


async def test_a_lock_of_ours_is_refunded_once_its_timelock_has_passed(
    network: EmbeddedNetwork,
) -> None:
    before = await tokens(network)
    async with rescue_of(network, network.client_signer) as (work, chain):
        await make_lock(network, chain, os.urandom(32), seconds=20)
        assert await tokens(network) == before - SAT
        plan = await standing(work)
        assert plan is not None
        assert (plan.action, plan.refunder) == (RescueAction.REFUND_LATER, True)
        assert not await work.send(plan, late=True)

        async def due() -> bool:
            seen = await standing(work)
            return seen is not None and seen.action is RescueAction.REFUND

        await until(due)
        plan = await standing(work)
        assert plan is not None
        assert await work.send(plan)
        assert await work.wait(plan) is LockStatus.REFUNDED
        assert await tokens(network) == before


async def test_what_is_too_late_or_not_ours_is_not_claimed(config: Layer2Config, network: EmbeddedNetwork) -> None:
    plan = await pay_and_lose_the_store(config, network)
    lock = plan.found.lock
    async with rescue_of(network, OtherSigner(network.client_signer)) as (work, _):

        async def late() -> bool:
            seen = await standing(work)
            assert seen is not None
            return seen.action is RescueAction.CLAIM_LATE

        await until(late)
        seen = await standing(work)
        assert seen is not None
        assert not await work.send(seen, confirmed=True), "only when told so"
        assert not await work.send(seen, late=True), "and only what was agreed on"
        assert await work.send(seen, late=True, confirmed=True)
        assert await work.wait(seen) is LockStatus.CLAIMED
    assert lock.claimer == network.client_signer.address


async def test_the_search_covers_a_whole_swap_and_stops(network: EmbeddedNetwork) -> None:
    first, last = search_window_ms(DEVNET_TIMING, 1_000_000)
    t = DEVNET_TIMING
    assert first <= (1_000_000 - t.invoice_expiry_s - t.payment_time_limit_s - t.evm_inclusion_s) * 1000
    assert last >= (1_000_000 + t.evm_clock_skew_s) * 1000
    wider = search_window_ms(DEVNET_TIMING, 1_000_000, 60)
    assert wider == (first - 60_000, last + 60_000)


async def test_the_command_needs_the_key_and_an_endpoint_and_nothing_else(
    config: Layer2Config, network: EmbeddedNetwork, tmp_path: Path
) -> None:
    held = await network.merchant_node.create_hold_invoice(
        payment_hash=os.urandom(32), amount_msat=SAT * 1000, memo="", expiry_s=600, cltv_delta=80
    )
    async with Layer2Manager(config) as manager:
        await manager.initialize_all_async()
        out = await manager.start_cross_layer_transfer_async(BTC, SAT, P.BOB, P.LIGHTNING, recipient=held.text)

        async def locked() -> bool:
            return (await manager.get_transfer_async(out.id)).state is TransferState.LOCKED

        await until(locked)
        await manager.start_cross_layer_transfer_async(BTC, SAT, P.LIGHTNING, P.BOB)
        await until_the_provider_locked(network)
    Path(config.store_url.removeprefix("sqlite:///")).unlink()
    before = await tokens(network)

    key, settings, store = tmp_path / "key", tmp_path / "layer2.toml", tmp_path / "new.db"
    key.write_text(network.client_signer.export_private_key().hex())
    key.chmod(0o600)
    async with served(network) as url:
        settings.write_text(
            f'network = "devnet"\n[bob]\nchain = "devnet"\nrpc_url = "{url}"\n'
            f'[signer]\nprivate_key = {{ file = "{key}" }}\n[store]\nurl = "sqlite:///{store}"\n'
        )
        settings.chmod(0o600)
        arguments = ("rescue", "--config", str(settings), "--json", "--from-block", "0")
        actions: dict[str, str] = {}

        async def claimable() -> bool:
            listed = json.loads(await command(*arguments))
            actions.update({plan["lock_id"]: plan["action"] for plan in listed})
            return "confirm" in actions.values()

        await until(claimable)
        assert "refund_later" in actions.values()
        assert not store.exists(), "without --send nothing is written"
        assert await tokens(network) == before, "and nothing is sent"
        assert not any(plan["sent"] for plan in json.loads(await command(*arguments, "--send")))
        await command(*arguments, "--send", "--claim", "0x0123456789abcdef", code=2)
        (lock_id,) = (lock_id for lock_id, action in actions.items() if action == "confirm")
        done = json.loads(await command(*arguments, "--send", "--claim", lock_id))
        assert await tokens(network) == before + SAT
        assert [(plan["action"], plan["status"]) for plan in done if plan["sent"]] == [("confirm", "claimed")]
        people = await command("rescue", "--config", str(settings), "--from-block", "0")
        assert "can be refunded from" in people
