"""Anybody can make locks that name us as claimer. They cost him dust, and must not cost us the time that a rescue has."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rescues import (
    POLICY,
    SAT,
    OnItsLoop,
    claim_as_the_client,
    make_a_providers_lock,
    make_lock,
    pay_and_hold,
    plan_of,
    rescue_of,
    until,
)
from served_chains import served
from typer.testing import CliRunner

from layer2 import Layer2Config, NodeConnectionError
from layer2._crypto import sha256
from layer2.cli._app import app
from layer2.cli._exit import ExitCode
from layer2.devnet import EmbeddedNetwork
from layer2.signers import LocalSigner
from layer2.swaps import Rescue, RescueAction, RescuePlan
from layer2.terms import Lock

LATER = int(ExitCode.CONNECTION)
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What was done for which hash, and for which a preimage was searched. None is found."""
    events: list[tuple[str, bytes]] = []
    send = Rescue.send

    async def noted(work: Rescue, plan: RescuePlan, **options: Any) -> bool:
        done = await send(work, plan, **options)
        if done:
            events.append((plan.action.value, plan.found.lock.preimage_hash))
        return done

    def search(_derive: object, _chain: int, _contract: bytes, preimage_hash: bytes, _times: range) -> None:
        if ("search", preimage_hash) not in events:
            events.append(("search", preimage_hash))

    monkeypatch.setattr(Rescue, "send", noted)
    monkeypatch.setattr("layer2.swaps._rescue.search_preimage", search)
    return events


Run = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="module")
async def run(network: EmbeddedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """The command, with the key of an account, in a thread of this process."""
    node = OnItsLoop(network.provider_node)

    async def connect(_config: Layer2Config) -> OnItsLoop:
        return node

    monkeypatch.setattr("layer2.cli._rescue.connect_node", connect)
    async with served(network) as url:

        async def invoke(signer: LocalSigner, *more: str, exit_code: int = 0) -> list[dict[str, Any]]:
            key, settings = tmp_path / "key", tmp_path / "layer2.toml"
            key.write_text(signer.export_private_key().hex())
            key.chmod(0o600)
            settings.write_text(
                f'network = "devnet"\n[bob]\nchain = "devnet"\nrpc_url = "{url}"\n'
                f'[signer]\nprivate_key = {{ file = "{key}" }}\n[store]\nurl = "sqlite:///{tmp_path / "new.db"}"\n'
            )
            settings.chmod(0o600)
            arguments = ["rescue", "--config", str(settings), "--from-block", "0", "--json", *more]
            done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
            assert done.exit_code == exit_code, done.output
            listed: list[dict[str, Any]] = json.loads(done.stdout)
            return listed

        yield invoke


async def dust(network: EmbeddedNetwork, amounts: list[int], *, by_provider: bool) -> list[Lock]:
    signer = network.provider_signer if by_provider else network.client_signer
    async with rescue_of(network, signer) as (_, chain):
        return [
            await make_lock(network, chain, os.urandom(32), seconds=3_000, by_provider=by_provider, amount=amount)
            for amount in amounts
        ]


async def test_a_provider_searches_only_if_it_is_asked_to_and_takes_its_payments_first(
    network: EmbeddedNetwork, run: Run, told: list[tuple[str, bytes]]
) -> None:
    spam = await dust(network, [1, 1], by_provider=False)
    held, again = os.urandom(32), os.urandom(32)
    first = await pay_and_hold(network, sha256(held))
    await claim_as_the_client(network, await make_a_providers_lock(network, sha256(held)), held)
    listed = {each["lock_id"]: each["action"] for each in await run(network.provider_signer, "--provider")}
    assert [listed["0x" + lock.lock_id.hex()] for lock in spam] == ["not_searched"] * 2
    await run(network.provider_signer, "--provider", "--send")
    assert told == [("settle", sha256(held))]
    assert (await first).preimage == held
    told.clear()

    second = await pay_and_hold(network, sha256(again))
    await claim_as_the_client(network, await make_a_providers_lock(network, sha256(again)), again)
    done = {each["lock_id"]: each for each in await run(network.provider_signer, "--provider", "--send", "--search")}
    assert told[0] == ("settle", sha256(again))
    assert {lock.preimage_hash for lock in spam} <= {of for what, of in told[1:] if what == "search"}
    assert {done["0x" + lock.lock_id.hex()]["action"] for lock in spam} == {"no_preimage"}
    assert (await second).preimage == again


async def test_refunds_are_begun_before_preimages_are_searched_for_and_the_largest_lock_comes_first(
    network: EmbeddedNetwork, run: Run, told: list[tuple[str, bytes]]
) -> None:
    spam = await dust(network, [1, 3, 2], by_provider=True)
    async with rescue_of(network, network.client_signer) as (work, chain):
        mine = await make_lock(network, chain, os.urandom(32), seconds=2, amount=SAT)

        async def due() -> bool:
            return (await plan_of(work, mine)).action is RescueAction.REFUND

        await until(due)
        done = await run(network.client_signer, "--send")
    assert told[0] == ("refund", mine.preimage_hash)
    searched = [of for what, of in told if what == "search"]
    small, large, middle = (lock.preimage_hash for lock in spam)
    assert [of for of in searched if of in (small, large, middle)] == [large, middle, small]
    listed = [each["block"] for each in done]
    assert listed == sorted(listed), "shown as they were made, whatever was done first"


async def test_a_lock_that_is_not_searched_for_is_told_from_one_without_a_preimage(
    network: EmbeddedNetwork, told: list[tuple[str, bytes]]
) -> None:
    (lock,) = await dust(network, [1], by_provider=False)
    async with rescue_of(network, network.provider_signer, network.provider_node, POLICY) as (work, _):
        (found,) = [each for each in await work.find(from_block=0) if each.lock == lock]
        assert (await work.plan(found, search=False)).action is RescueAction.NOT_SEARCHED
        assert not told
        assert not await work.send(await work.plan(found, search=False), late=True, confirmed=True)
        assert (await work.plan(found)).action is RescueAction.NO_PREIMAGE
        assert told == [("search", lock.preimage_hash)]
    assert (await network.provider_node.lookup_payment(lock.preimage_hash)).preimage is None


async def test_a_lock_that_cannot_be_looked_at_does_not_keep_the_others_from_being_rescued(
    network: EmbeddedNetwork, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rescue_of(network, network.client_signer) as (_, chain):
        due = [await make_lock(network, chain, os.urandom(32), seconds=5, by_provider=False) for _ in range(2)]
    plan = Rescue.plan

    async def failing(work: Rescue, found: Any, **options: Any) -> RescuePlan:
        if found.lock == due[0]:
            raise NodeConnectionError("no connection")
        return await plan(work, found, **options)

    monkeypatch.setattr(Rescue, "plan", failing)
    first, second = ("0x" + lock.lock_id.hex() for lock in due)

    async def passed() -> bool:
        listed = {each["lock_id"]: each["action"] for each in await run(network.client_signer, exit_code=LATER)}
        assert listed[first] == "not_looked_at"
        return bool(listed[second] == "refund")

    await until(passed)
    done = {each["lock_id"]: each for each in await run(network.client_signer, "--send", exit_code=LATER)}
    assert (done[first]["sent"], done[first]["error"]) == (False, "no connection")
    assert done[second]["status"] == "refunded"
