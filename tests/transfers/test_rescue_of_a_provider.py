"""A provider has lost its store: its node has preimages for locks of clients, and holds payments for locks of its own."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rescues import (
    POLICY,
    SAT,
    OnItsLoop,
    claim_as_the_client,
    command,
    make_a_providers_lock,
    make_lock,
    pay_and_hold,
    plan_of,
    rescue_of,
    tokens,
    until,
)
from served_chains import served
from typer.testing import CliRunner

from layer2 import Expired, Layer2Config, NodeError
from layer2._crypto import sha256
from layer2.cli._app import app
from layer2.devnet import EmbeddedNetwork
from layer2.lightning import InvoiceState, PaymentState
from layer2.swaps import LockStatus, RescueAction
from layer2.terms import DepthPolicy
from layer2.transactions import Depth

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def test_a_provider_claims_what_its_node_has_paid_for(network: EmbeddedNetwork) -> None:
    invoice = await network.merchant_node.create_invoice(amount_msat=SAT * 1000)
    async with rescue_of(network, network.client_signer) as (_, chain):
        lock = await make_lock(network, chain, invoice.payment_hash, seconds=60)
    node, provider = network.provider_node, network.provider_signer
    async with rescue_of(network, provider, node) as (work, _):
        assert (await plan_of(work, lock)).action is RescueAction.NO_PREIMAGE, (
            "not paid yet: there is no preimage to be had"
        )
        await node.pay(invoice.text, fee_limit_msat=10_000, cltv_limit=200, time_limit_s=30)
        plan = await plan_of(work, lock)
        assert (plan.action, plan.refunder, plan.not_after) == (RescueAction.CLAIM, False, None)
        assert await work.send(plan)
        assert await work.wait(plan) is LockStatus.CLAIMED


async def test_a_provider_takes_the_payment_that_is_held_for_a_lock_that_was_claimed(network: EmbeddedNetwork) -> None:
    """Not doing so gives the lock away for nothing: the payment goes back by itself."""
    preimage, node = os.urandom(32), network.provider_node
    paying = await pay_and_hold(network, sha256(preimage))
    lock = await make_a_providers_lock(network, sha256(preimage))
    async with rescue_of(network, network.provider_signer, node) as (work, _):
        plan = await plan_of(work, lock)
        assert (plan.action, plan.invoice) == (RescueAction.REFUND_LATER, InvoiceState.ACCEPTED)
    await claim_as_the_client(network, lock, preimage)
    async with rescue_of(network, network.provider_signer) as (work, _):
        plan = await plan_of(work, lock)
        assert (plan.action, plan.invoice) == (RescueAction.NONE, None), "without its node nothing can be known"
    async with rescue_of(network, network.provider_signer, node) as (work, _):
        plan = await plan_of(work, lock)
        assert (plan.action, plan.refunder, plan.invoice) == (RescueAction.SETTLE, True, InvoiceState.ACCEPTED)
        assert preimage.hex() not in repr(plan)
        assert not paying.done(), "looking settles nothing"
        assert await work.send(plan)
        assert (await paying).preimage == preimage
        assert await work.wait(plan) is LockStatus.CLAIMED
        after = await plan_of(work, lock)
        assert (after.action, after.invoice) == (RescueAction.NONE, InvoiceState.SETTLED)
        assert not await work.send(after)
        assert await work.send(plan), "settled once more is settled"


async def test_a_claimed_lock_for_which_nothing_is_held_is_told_from_one_that_is_paid_for(
    network: EmbeddedNetwork,
) -> None:
    preimage, node = os.urandom(32), network.provider_node
    lock = await make_a_providers_lock(network, sha256(preimage))
    await claim_as_the_client(network, lock, preimage)
    async with rescue_of(network, network.provider_signer, node) as (work, _):

        async def seen() -> tuple[RescueAction, InvoiceState | None]:
            plan = await plan_of(work, lock)
            assert not await work.send(plan, late=True)
            return plan.action, plan.invoice

        assert await seen() == (RescueAction.NOTHING_HELD, None)
        await node.create_hold_invoice(
            payment_hash=sha256(preimage), amount_msat=SAT * 1000, memo="", expiry_s=600, cltv_delta=400
        )
        assert await seen() == (RescueAction.NOTHING_HELD, InvoiceState.OPEN)
        await node.cancel_invoice(sha256(preimage))
        assert await seen() == (RescueAction.NOTHING_HELD, InvoiceState.CANCELED)


async def test_a_payment_that_went_back_after_the_look_is_an_error_and_no_success(network: EmbeddedNetwork) -> None:
    preimage, node = os.urandom(32), network.provider_node
    paying = await pay_and_hold(network, sha256(preimage))
    lock = await make_a_providers_lock(network, sha256(preimage))
    await claim_as_the_client(network, lock, preimage)
    async with rescue_of(network, network.provider_signer, node) as (work, _):
        plan = await plan_of(work, lock)
        await node.cancel_invoice(sha256(preimage))
        with pytest.raises(Expired):
            await work.send(plan)
    assert (await paying).state is PaymentState.FAILED


async def test_a_lock_whose_payment_was_taken_is_claimed_for_its_claimer_and_never_refunded(
    network: EmbeddedNetwork,
) -> None:
    """The life that was lost settled, and a reorganisation, or an endpoint, has the lock stand again past its timelock."""
    preimage, node = os.urandom(32), network.provider_node
    paying = await pay_and_hold(network, sha256(preimage))
    lock = await make_a_providers_lock(network, sha256(preimage), seconds=15)
    await node.settle_invoice(preimage)
    assert (await paying).state is PaymentState.SUCCEEDED
    async with rescue_of(network, network.provider_signer) as (work, _):

        async def due() -> bool:
            return (await plan_of(work, lock)).action is RescueAction.REFUND

        await until(due)
    before = await tokens(network)
    async with rescue_of(network, network.provider_signer, node) as (work, _):
        plan = await plan_of(work, lock)
        assert (plan.action, plan.invoice) == (RescueAction.CLAIM_AGAIN, InvoiceState.SETTLED)
        assert await work.send(plan)
        assert await work.wait(plan) is LockStatus.CLAIMED
    assert await tokens(network) == before + SAT


async def test_a_claim_that_a_reorganisation_takes_away_after_the_payment_was_taken_is_sent_again(
    network: EmbeddedNetwork,
) -> None:
    """We have the client's payment: without its claim it would have lost the lock to us."""
    preimage, node, before = os.urandom(32), network.provider_node, await tokens(network)
    deep = DepthPolicy(depth=Depth.INCLUDED, confirmations=6)
    paying = await pay_and_hold(network, sha256(preimage))
    lock = await make_a_providers_lock(network, sha256(preimage))
    await network.evm.mine(6)
    async with rescue_of(network, network.provider_signer, node, deep) as (work, chain):
        await claim_as_the_client(network, lock, preimage)
        plan = await plan_of(work, lock)
        assert await work.send(plan)
        assert (await paying).state is PaymentState.SUCCEEDED
        await network.evm.reorganise(5, transactions="drop")

        async def stands_again() -> bool:
            try:
                return (await chain.view(lock, POLICY, lock_key=None)).latest.status is LockStatus.LOCKED
            except NodeError:
                return False  # the head of just before is in the chain no more

        await until(stands_again)
        assert (await plan_of(work, lock)).action is RescueAction.CLAIM_AGAIN
        assert await work.wait(plan) is LockStatus.CLAIMED
    assert await tokens(network) == before + SAT


async def test_a_lock_that_is_claimed_while_it_is_refunded_has_its_payment_taken(network: EmbeddedNetwork) -> None:
    preimage, node = os.urandom(32), network.provider_node
    paying = await pay_and_hold(network, sha256(preimage))
    lock = await make_a_providers_lock(network, sha256(preimage))
    async with rescue_of(network, network.provider_signer, node) as (work, _):
        refund = replace(await plan_of(work, lock), action=RescueAction.REFUND)
        await claim_as_the_client(network, lock, preimage)
        assert await work.wait(refund) is LockStatus.CLAIMED
        assert (await paying).preimage == preimage


async def test_the_command_of_a_provider(
    network: EmbeddedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preimage, gone = os.urandom(32), os.urandom(32)
    paying = await pay_and_hold(network, sha256(preimage))
    lock = await make_a_providers_lock(network, sha256(preimage))
    lost = await make_a_providers_lock(network, sha256(gone))
    await claim_as_the_client(network, lock, preimage)
    await claim_as_the_client(network, lost, gone)
    ids = ["0x" + each.lock_id.hex() for each in (lock, lost)]

    key, settings = tmp_path / "key", tmp_path / "layer2.toml"
    key.write_text(network.provider_signer.export_private_key().hex())
    key.chmod(0o600)
    async with served(network) as url:
        settings.write_text(
            f'network = "devnet"\n[bob]\nchain = "devnet"\nrpc_url = "{url}"\n'
            f'[signer]\nprivate_key = {{ file = "{key}" }}\n[store]\nurl = "sqlite:///{tmp_path / "new.db"}"\n'
        )
        settings.chmod(0o600)
        arguments = ["rescue", "--config", str(settings), "--from-block", "0"]
        assert "[lightning]" in await command(*arguments, "--provider", "--json", code=3)
        assert "--provider" in await command(*arguments), "without a node it says what there may still be to do"

        async def connect(_config: Layer2Config) -> OnItsLoop:
            return node

        async def run(*more: str) -> str:
            done = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--provider", *more])
            assert done.exit_code == 0, done.output
            return done.stdout

        node = OnItsLoop(network.provider_node)
        monkeypatch.setattr("layer2.cli._rescue.connect_node", connect)
        seen = {each["lock_id"]: (each["action"], each["invoice"]) for each in json.loads(await run("--json"))}
        assert [seen[each] for each in ids] == [("settle", "accepted"), ("nothing_held", None)]
        assert not paying.done()
        listed = await run("--send", "--json")
        assert preimage.hex() not in listed
        done = {each["lock_id"]: each for each in json.loads(listed)}
        settled = done[ids[0]]
        assert (settled["sent"], settled["status"], settled["invoice"]) == (True, "claimed", "settled")
        assert done[ids[1]]["sent"] is False
        assert (await paying).preimage == preimage
