"""Puts the parts of transfers together: engine, prover, service."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from layer2._proving import Prover
from layer2._stored_transfers import UndrivenTransfers
from layer2._transfers import TransferService
from layer2.connect import bound_of_unsafe
from layer2.errors import ConfigurationError, Layer2Error, NotFound
from layer2.evm import FeeLimits, FeeOracle, verify_cooperative_refund
from layer2.lightning import LnurlClient
from layer2.protocol import Layer2ProtocolAsync, Layer2ProtocolType
from layer2.storage import SwapJournal
from layer2.swaps import (
    ClaimSearch,
    EvmAccount,
    EvmSwapChain,
    NoCounterparty,
    PreimageSource,
    ProviderApi,
    Role,
    SwapEngine,
    SwapRequests,
)

if TYPE_CHECKING:
    from layer2._layers import LayerFactory
    from layer2._operations import Operations
    from layer2.bob import BobClient
    from layer2.lightning import LightningNetwork, LightningNode
    from layer2.swaps import Deal, StoredSwap

__all__ = ["assemble_transfers", "assemble_undriven", "layers_that_are_up", "why_no_transfers"]


_CLAIM_REQUESTS = 64
"""Ranges of blocks that may be asked for, to see that a hash was not claimed before."""


class _RefundConsent:
    """Asks the provider for its consent to an early refund, and checks the signature before it goes further."""

    def __init__(self, provider: ProviderApi) -> None:
        self._provider = provider

    async def refund_signature(self, deal: Deal) -> bytes | None:
        try:
            signature = await self._provider.refund_signature(deal.terms.swap_id)
        except NotFound:
            return None
        if signature is None or not verify_cooperative_refund(deal.terms.lock, signature):
            return None
        return signature


def _requests(
    factory: LayerFactory,
    bob: BobClient,
    node: LightningNode | None,
    provider: ProviderApi,
    journal: SwapJournal,
    chain: EvmSwapChain,
    open_swaps: Callable[[], Sequence[StoredSwap]],
    operations: Operations,
) -> SwapRequests:
    signer, place = factory.signer, factory.place()
    assert signer is not None
    assert place.token.contract is not None
    account = EvmAccount(
        client=bob.rpc,
        chain_id=place.chain_id,
        fees=FeeOracle(bob.rpc, FeeLimits(), factory.clock),
        data_fee=bob.sender.data_fee,
        address=signer.address,
        token=place.token.contract,
        max_gas_cost_wei=factory.max_gas_cost_wei,
    )
    claims = ClaimSearch(
        client=bob.rpc,
        chain_id=place.chain_id,
        contract=place.contract,
        block_time_s=place.timing.evm_block_s,
        max_requests=_CLAIM_REQUESTS,
        ask=operations.ask,
    )
    return SwapRequests(
        provider=provider,
        account=account,
        node=node,
        place=place,
        preimages=PreimageSource(signer),
        next_preimage_time=journal.next_preimage_time,
        hash_known=journal.hash_known,
        hash_claimed=claims.claimed,
        depth_policy=factory.config.depth_policy,
        open_swaps=open_swaps,
        max_unsafe=bound_of_unsafe(factory.config),
        safe_lag_s=chain.offers.safe_lag_s,
        max_safe_lag_s=factory.config.swap.max_safe_lag_s,
        clock=factory.clock,
        ask=operations.ask,
    )


def _prover(factory: LayerFactory, bob: BobClient, node: LightningNode | None) -> Prover:
    return Prover(
        bob=bob,
        journal=SwapJournal(factory.store, Role.CLIENT),
        registry=factory.registry,
        contract=factory.contract,
        transactions=factory.journal(),
        node=node,
    )


def layers_that_are_up(
    protocols: Mapping[str, Layer2ProtocolAsync],
) -> tuple[BobClient | None, LightningNetwork | None]:
    """The layers that transfers work on, as far as they are among those that are up."""
    from layer2.bob import BobClient
    from layer2.lightning import LightningNetwork

    bob, lightning = protocols.get(Layer2ProtocolType.BOB), protocols.get(Layer2ProtocolType.LIGHTNING)
    return (
        bob if isinstance(bob, BobClient) else None,
        lightning if isinstance(lightning, LightningNetwork) else None,
    )


def why_no_transfers(what: str, given: Collection[str]) -> ConfigurationError:
    """The error for a call that needs transfers, in a manager whose layers cannot make any; ``given``: those of ``protocols=``."""
    replaced = sorted(name for name in given if name in set(Layer2ProtocolType))
    if replaced:
        names = " and ".join(replaced)
        return ConfigurationError(
            f"{what} needs the manager's own layers, and protocols= replaces {names}",
            key=replaced[0],
            hint=f"leave {names} out of protocols=; to test code that moves value, make a mock of the manager",
        )
    return ConfigurationError(
        f"{what} needs BOB with a signer", key="bob", hint="add [bob] and [signer], or use Layer2Config.embedded()"
    )


async def assemble_undriven(
    factory: LayerFactory,
    bob: BobClient | None,
    lightning: LightningNetwork | None,
    failures: Mapping[str, Layer2Error],
) -> UndrivenTransfers:
    """What can be known of transfers over the layers that are up, where that is too little to drive them."""
    node = None if lightning is None else lightning.node
    prover = None if bob is None else _prover(factory, bob, node)
    undriven = UndrivenTransfers(factory.registry, factory.store, prover, failures.get(Layer2ProtocolType.BOB))
    await undriven.load()
    return undriven


def assemble_transfers(
    *,
    factory: LayerFactory,
    bob: BobClient,
    lightning: LightningNetwork | None,
    operations: Operations,
    on_change: Callable[[StoredSwap], None],
    on_alarm: Callable[[Deal, str, str], None],
) -> tuple[SwapEngine, Prover, TransferService, ProviderApi | None]:
    """Everything that transfers need, over layers that are up. Nothing is started."""
    signer = factory.signer
    assert signer is not None
    node = None if lightning is None else lightning.node
    place = factory.place()
    assert place.token.contract is not None
    journal = SwapJournal(factory.store, Role.CLIENT)
    provider = factory.provider()
    block_time_s = float(place.timing.evm_block_s)
    bob_section = factory.config.bob
    poll_s = block_time_s if bob_section is None else bob_section.poll_interval_ms / 1000
    chain = EvmSwapChain(
        client=bob.rpc,
        sender=bob.sender,
        journal=factory.journal(),
        clock=factory.clock,
        block_time_s=block_time_s,
    )
    engine = SwapEngine(
        store=journal,
        chain=chain,
        node=node,
        counterparty=NoCounterparty() if provider is None else _RefundConsent(provider),
        preimages=PreimageSource(signer),
        clock=factory.clock,
        poll_s=min(block_time_s / 2, poll_s),
        on_change=on_change,
        on_alarm=on_alarm,
        still_ours=factory.store.still_ours,
    )
    # What the user's own traffic must leave in the account, so that what is under way can end.
    bob.sender.reserved_wei = lambda: sum(swap.deal.max_gas_wei for swap in engine.open_swaps)
    prover = _prover(factory, bob, node)
    requests = (
        None
        if provider is None
        else _requests(factory, bob, node, provider, journal, chain, lambda: engine.open_swaps, operations)
    )
    service = TransferService(
        config=factory.config,
        engine=engine,
        journal=journal,
        requests=requests,
        prover=prover,
        node=node,
        lnurl=LnurlClient(allow_local=factory.config.network in ("devnet", "embedded")),
        operations=operations,
        registry=factory.registry,
    )
    return engine, prover, service, provider
