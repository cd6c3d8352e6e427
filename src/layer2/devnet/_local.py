"""Everything a transfer needs, on real nodes: the devnet, the contracts on it, accounts with coins, and a running provider."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from layer2._clock import Clock, SystemClock
from layer2.addresses import EvmAddress
from layer2.assets import BTC, AssetForm
from layer2.bob import DEVNET
from layer2.config import (
    BobConfig,
    DepthRule,
    Layer2Config,
    LightningConfig,
    ProviderConfig,
    Secret,
    SignerConfig,
    StoreConfig,
    SwapConfig,
)
from layer2.devnet._embedded import DEVNET_OFFER
from layer2.devnet._processes import LOOPBACK
from layer2.devnet._provider_host import ProviderHost
from layer2.errors import ConfigurationError, NodeNotReady
from layer2.evm import (
    HTLC_ADDRESS,
    TEST_TOKEN_ADDRESS,
    EvmClient,
    HttpTransport,
    MemoryTxJournal,
    SenderSettings,
    TxSender,
    deploy_htlc,
    deploy_test_token,
    encode_mint,
)
from layer2.lightning import LndNode
from layer2.signers import LocalSigner
from layer2.transactions import Depth, EvmCall

if TYPE_CHECKING:
    from layer2.devnet._binaries import NodeBinaries
    from layer2.devnet._lnd_process import LndEndpoint
    from layer2.devnet._regtest import LndName

__all__ = ["DevnetAccount", "RealNetwork"]

ETHER: Final = 10**18
TOKENS: Final = 100_000_000_000
"""What an account is given at first, in the token's base unit."""
MINT_GAS: Final = 150_000
POLL_MS: Final = 250
_TRIES: Final = 60
_RETRY_S: Final = 0.5
REQUESTS_PER_MINUTE: Final = 1_000_000
"""All clients of a devnet come from one address."""


class _Nodes(Protocol):
    """What of a ``RegtestNetwork`` is used; one that runs on another event loop can be wrapped to look like this."""

    @property
    def evm_url(self) -> str: ...
    @property
    def evm_chain_id(self) -> int: ...
    def lnd(self, name: LndName) -> LndEndpoint: ...
    async def evm_rpc(self, method: str, *params: Any) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetAccount:
    """An account on BOB with ETH and tokens."""

    signer: LocalSigner
    key_file: Path
    """Its private key, readable by its owner only."""

    @property
    def address(self) -> EvmAddress:
        """On BOB."""
        return self.signer.address


class RealNetwork:
    """Real btcd, three lnd and anvil, with the HTLC contract and a token deployed, and a provider over HTTP.

    An async context manager. ``client`` is an account with 100 ETH and 1,000 BTC whose Lightning node is the lnd of that name; the
    provider has as much, and the lnd ``provider``. The third lnd, the router, is the merchant: somebody else, with whom both trade.

    Args:
        nodes: a ``RegtestNetwork`` that runs already, and goes on when this ends; None: one of its own.
        directory: where stores and keys lie, new or empty; None: a temporary folder.
        timing: constants of ``layer2.terms.ChainTiming`` in which everybody differs from the devnet's, as in ``provider.timing``.
        depth: how deep the parties' locks must be; None: as on any devnet.
        binaries: for nodes of its own; found or built if not given.
        clock: where the time comes from.
        progress: called with one line about each step.
    """

    def __init__(
        self,
        nodes: _Nodes | None = None,
        *,
        directory: Path | None = None,
        timing: Mapping[str, int] | None = None,
        depth: tuple[DepthRule, ...] | None = None,
        binaries: NodeBinaries | None = None,
        clock: Clock | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._given = nodes
        self._timing = dict(timing or {})
        self._depth = depth
        self._nodes: _Nodes | None = nodes
        self._given_directory = directory
        self._directory: Path | None = None
        self._binaries = binaries
        self._clock: Clock = clock or SystemClock()
        self._progress = progress or (lambda _line: None)
        self._stack = AsyncExitStack()
        self._accounts = 0
        self._minter: tuple[EvmClient, TxSender] | None = None
        self._client: DevnetAccount | None = None
        self._provider: ProviderHost | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @property
    def nodes(self) -> _Nodes:
        """The nodes under it: where they are reached."""
        assert self._nodes is not None, "use it inside 'async with RealNetwork() as network:'"
        return self._nodes

    @property
    def directory(self) -> Path:
        """Where stores and keys lie."""
        assert self._directory is not None
        return self._directory

    @property
    def client(self) -> DevnetAccount:
        """The user's account."""
        assert self._client is not None
        return self._client

    @property
    def provider(self) -> ProviderHost:
        """The provider: its URL, its engine, and how to stop and start it."""
        assert self._provider is not None
        return self._provider

    @property
    def merchant(self) -> LndEndpoint:
        """A third party's lnd."""
        return self.nodes.lnd("router")

    @property
    def token(self) -> AssetForm:
        """What BTC is on this chain."""
        return AssetForm(asset=BTC, chain_id=self.nodes.evm_chain_id, contract=TEST_TOKEN_ADDRESS, decimals=8)

    @property
    def contract(self) -> EvmAddress:
        """The HTLC contract."""
        return HTLC_ADDRESS

    async def connect(self, name: LndName) -> LndNode:
        """A connection to one of the lnds, closed with the network."""
        lnd = self.nodes.lnd(name)
        node = await asyncio.to_thread(
            LndNode.from_files, lnd.rest_url, macaroon_path=lnd.macaroon_path, tls_cert_path=lnd.tls_cert_path
        )
        self._stack.push_async_callback(node.close)
        return node

    async def new_account(self, *, wei: int = 100 * ETHER, tokens: int = TOKENS) -> DevnetAccount:
        """A fresh account with so much ETH and so many tokens."""
        self._accounts += 1
        key = os.urandom(32)
        path = self.directory / f"account-{self._accounts}.key"
        await asyncio.to_thread(_write_private, path, key.hex())
        account = DevnetAccount(signer=LocalSigner(key), key_file=path)
        await self.nodes.evm_rpc("anvil_setBalance", str(account.address), hex(wei))
        if tokens:
            await self._mint(account.address, tokens)
        return account

    async def client_config(
        self, *, account: DevnetAccount | None = None, lightning: LndName | None = "client", store: str | None = None
    ) -> Layer2Config:
        """Settings with which a manager, or the command line, works on this network.

        Args:
            account: whose; None: the client's.
            lightning: its lnd; None: an account without a Lightning node.
            store: URL of its store; None: a file of the account's.
        """
        account = account or self.client
        section = None
        if lightning is not None:
            lnd = self.nodes.lnd(lightning)
            macaroon = await asyncio.to_thread(lnd.macaroon_path.read_bytes)
            section = LightningConfig(
                rest_url=lnd.rest_url,
                macaroon=Secret(macaroon, origin=("file", str(lnd.macaroon_path))),
                tls_cert=lnd.tls_cert_path,
                network="regtest",
            )
        key = await asyncio.to_thread(account.key_file.read_bytes)
        return Layer2Config(
            network="devnet",
            bob=BobConfig(
                rpc_url=self.nodes.evm_url,
                chain="devnet",
                poll_interval_ms=POLL_MS,
                max_unconfirmed_per_key=DEVNET.max_unconfirmed_per_key,
            ),
            lightning=section,
            swap=SwapConfig(provider_url=None if self._provider is None else self._provider.url, depth=self._depth),
            provider=ProviderConfig(timing=self._timing) if self._timing else None,
            signer=SignerConfig(private_key=Secret(key, origin=("file", str(account.key_file)))),
            store=StoreConfig(url=store or f"sqlite:///{account.key_file.with_suffix('.sqlite3')}"),
        )

    async def _start(self) -> None:
        self._directory = await asyncio.to_thread(_folder, self._given_directory)
        if self._given_directory is None:
            self._stack.push_async_callback(_remove, self._directory)
        if self._nodes is None:
            from layer2.devnet._regtest import RegtestNetwork

            regtest = RegtestNetwork(binaries=self._binaries, clock=self._clock, progress=self._progress)
            self._nodes = await self._stack.enter_async_context(regtest)
        self._progress("deploying the contracts")
        await self._start_minter()
        self._client = await self.new_account()
        lender = await self.new_account()
        self._progress("starting the provider")
        settings = await self.client_config(account=lender, lightning="provider")
        offer = replace(
            DEVNET_OFFER,
            listen_host=LOOPBACK,
            listen_port=0,
            requests_per_minute=REQUESTS_PER_MINUTE,
            timing=self._timing,
        )
        self._provider = ProviderHost(settings.with_changes(provider=offer), clock=self._clock)
        self._stack.push_async_callback(self._provider.stop)
        await self._start_provider(self._provider)

    async def _start_provider(self, provider: ProviderHost) -> None:
        """On a busy machine lnd falls behind a chain with a block a second for a moment, and then no provider starts."""
        for _ in range(_TRIES):
            try:
                await provider.start()
                return
            except NodeNotReady:
                await self._clock.sleep(_RETRY_S)
        await provider.start()

    async def _start_minter(self) -> None:
        """An account that deploys and mints, so that the others' nonces are their owners' alone."""
        signer = LocalSigner.generate()
        await self.nodes.evm_rpc("anvil_setBalance", str(signer.address), hex(1_000 * ETHER))
        client = EvmClient(HttpTransport(self.nodes.evm_url, clock=self._clock))
        self._stack.push_async_callback(client.close)
        sender = TxSender(
            client,
            signer,
            MemoryTxJournal(),
            chain_id=self.nodes.evm_chain_id,
            clock=self._clock,
            settings=SenderSettings(poll_interval_s=0.1),
        )
        await sender.start()
        self._stack.push_async_callback(sender.close)
        await deploy_htlc(client, sender)
        await deploy_test_token(client, sender)
        self._minter = (client, sender)

    async def _mint(self, owner: EvmAddress, amount: int) -> None:
        assert self._minter is not None
        _, sender = self._minter
        call = EvmCall(to=TEST_TOKEN_ADDRESS, data=encode_mint(owner, amount), gas_limit=MINT_GAS)
        record = await sender.submit(call, exit=True)
        await sender.wait(record.hash, Depth.INCLUDED)


def _folder(given: Path | None) -> Path:
    if given is None:
        return Path(tempfile.mkdtemp(prefix="layer2-real-"))
    given.mkdir(parents=True, exist_ok=True)
    if any(given.iterdir()):
        # Keys and stores of an earlier network would be taken for this one's, whose chain is another.
        raise ConfigurationError(
            f"{given} is not empty", path=str(given), hint="name a new folder: a devnet's coins end with it"
        )
    return given.resolve()


async def _remove(directory: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
