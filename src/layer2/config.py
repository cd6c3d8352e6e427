"""Every setting, its unit, default and meaning.

Settings come from a TOML file, then ``LAYER2_SECTION__KEY`` variables, then arguments; each later source wins. The file is the
explicit path, else the one that ``LAYER2_CONFIG`` names, else ``./layer2.toml``, else ``layer2/layer2.toml`` in the user's config
folder. Sections can also be built directly; the same checks run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from layer2._config_secret import Secret, check_signer
from layer2._config_section import Section as _Section
from layer2.addresses import EvmAddress
from layer2.errors import ConfigurationError

if TYPE_CHECKING:
    from layer2.assets import AssetRegistry
    from layer2.terms import ChainTiming, DepthPolicy

__all__ = [
    "AssetConfig",
    "BobConfig",
    "ConnectionPoolConfig",
    "DepthRule",
    "Layer2Config",
    "LightningConfig",
    "ProviderConfig",
    "Secret",
    "SignerConfig",
    "StoreConfig",
    "SwapConfig",
]

CHAIN_IDS: Mapping[str, int] = {"bob": 60808, "bob-sepolia": 808813, "devnet": 60808, "embedded": 60808}
_SENSITIVE = {"sensitive": True}
"""Metadata of text that may carry credentials, such as an endpoint's URL with an access key in its path."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectionPoolConfig(_Section):
    """HTTP connections, for each protocol. Long-lived streams have connections of their own."""

    max_connections: int = 128
    """In all."""
    max_connections_per_host: int = 32
    """To one host and port."""
    idle_timeout_ms: int = 30_000
    """An unused connection is closed after this time."""
    connect_timeout_ms: int = 5_000
    """For a new connection, TLS included."""

    def __post_init__(self) -> None:
        self._types("connection_pool")
        self._bounds(
            "connection_pool",
            max_connections=(1, 65_535),
            max_connections_per_host=(1, 65_535),
            idle_timeout_ms=(0, 3_600_000),
            connect_timeout_ms=(1, 600_000),
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BobConfig(_Section):
    """The rollup."""

    rpc_url: str | None = field(default=None, metadata=_SENSITIVE)
    """JSON-RPC endpoint; None: the chain's public one."""
    allow_plain_http: bool = False
    """Take a ``rpc_url`` of plain HTTP to another machine: whoever is on the way can say what the chain holds."""
    chain: str | int = "bob"
    """``bob``, ``bob-sepolia``, ``devnet``, or the chain id of any other OP-Stack chain (which needs ``rpc_url``)."""
    htlc_contract: EvmAddress | None = None
    """Address of the HTLC contract; None: where it is deployed on every chain."""
    max_gas_cost_wei: int | None = None
    """Most that one transfer, or one transaction of your own, may spend on gas; None: 0.002 ETH, on development networks 0.1."""
    max_fee_per_gas_wei: int | None = None
    """Most that one unit of gas may cost in your own transactions and locks; None: only ``max_gas_cost_wei`` bounds it. Claims
    and refunds, and whatever stands before them in the order of the account, have a bound of their own: 1000 gwei."""
    max_unconfirmed_per_key: int = 16
    """Transactions that one key sends ahead of its last included one."""
    poll_interval_ms: int = 1_000
    """How often the head is looked at."""

    def __post_init__(self) -> None:
        self._types("bob")
        self._url("bob", "rpc_url", "http", "https")
        self._no_plain_http("bob", "rpc_url", "could say what the chain holds, and have a payment made for nothing")
        if isinstance(self.chain, str) and self.chain not in CHAIN_IDS:
            raise ConfigurationError(
                f"bob.chain is {self.chain!r}, which is none of {', '.join(CHAIN_IDS)}",
                key="bob.chain",
                hint="give the chain id (a number) of another OP-Stack chain",
            )
        if isinstance(self.chain, int):
            self._bounds("bob", chain=(1, 2**53))
            if self.rpc_url is None:
                raise ConfigurationError(f"bob.rpc_url is needed for chain {self.chain}", key="bob.rpc_url")
        self._bounds(
            "bob",
            max_gas_cost_wei=(0, 10**20),
            max_fee_per_gas_wei=(1, 10**20),
            max_unconfirmed_per_key=(1, 100_000),
            poll_interval_ms=(10, 600_000),
        )

    @property
    def chain_id(self) -> int:
        """The EIP-155 chain id."""
        return self.chain if isinstance(self.chain, int) else CHAIN_IDS[self.chain]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LightningConfig(_Section):
    """The Lightning node."""

    rest_url: str = field(metadata=_SENSITIVE)
    """lnd's REST endpoint."""
    macaroon: Secret
    """The file's bytes, or their hexadecimal digits."""
    allow_plain_http: bool = False
    """Take a ``rest_url`` of plain HTTP to another machine: whoever is on the way gets the macaroon, and all that it opens."""
    kind: Literal["lnd"] = "lnd"
    """Which software the node runs."""
    tls_cert: Path | None = None
    """The node's own certificate (PEM); None: the system's authorities, or ``tls_fingerprint``."""
    tls_fingerprint: str | None = None
    """SHA-256 of the node's certificate, 64 hexadecimal digits; colons are ignored."""
    network: Literal["mainnet", "testnet", "signet", "simnet", "regtest"] | None = None
    """None: what belongs to the network preset."""
    fee_limit_basis_points: int = 100
    """Default routing-fee limit of a payment: this part of the amount (1/100 %) ..."""
    fee_limit_base_msat: int = 10_000
    """... and this on top."""
    cltv_limit: int = 1_008
    """Longest total time lock of a route, in blocks."""
    payment_time_limit_s: int = 60
    """For how long new attempts of a payment are started."""

    def __post_init__(self) -> None:
        self._types("lightning")
        self._url("lightning", "rest_url", "https", "http")
        self._no_plain_http("lightning", "rest_url", "could read the macaroon, and spend what it opens")
        if self.tls_fingerprint is not None:
            digits = self.tls_fingerprint.replace(":", "").lower()
            if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
                key = "lightning.tls_fingerprint"
                raise ConfigurationError(f"{key} must be a SHA-256 fingerprint: 64 hexadecimal digits", key=key)
        self._bounds(
            "lightning",
            fee_limit_basis_points=(0, 10_000),
            fee_limit_base_msat=(0, 10**12),
            cltv_limit=(1, 4_032),
            payment_time_limit_s=(1, 86_400),
        )

    @property
    def macaroon_hex(self) -> str:
        """The macaroon as lnd's REST interface takes it. Treat it as the secret that it is."""
        raw = self.macaroon.reveal_bytes()
        if raw.startswith((b"/", b"~", b"./")) or raw.rstrip().endswith(b".macaroon"):
            raise ConfigurationError(
                "lightning.macaroon is a path where the macaroon itself is expected",
                key="lightning.macaroon",
                hint='write { file = "..." }, or set LAYER2_LIGHTNING__MACAROON__FILE',
            )
        digits = raw.strip().lower()
        is_hex = len(digits) % 2 == 0 and set(digits) <= set(b"0123456789abcdef")
        return digits.decode() if is_hex else raw.hex()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AssetConfig(_Section):
    """What an asset is on the configured chain; the section's name is the asset's name."""

    contract: EvmAddress
    """The token's address."""
    decimals: int | None = None
    """Of the asset as amounts are written; None: 8, for ETH 18."""
    contract_decimals: int | None = None
    """Of the contract; None: the same."""

    def __post_init__(self) -> None:
        self._types("assets")
        self._bounds("assets", decimals=(0, 36), contract_decimals=(0, 36))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StoreConfig(_Section):
    """Where the journal is."""

    url: str | None = field(default=None, metadata=_SENSITIVE)
    """``sqlite:////absolute/path`` (four slashes; with three the path is relative to the working folder), ``sqlite://`` (in
    memory) or ``postgresql://...``; None: a file of the network's name in the user's data folder, in memory if embedded."""

    def __post_init__(self) -> None:
        self._types("store")
        self._url("store", "url", "sqlite", "postgresql", "postgresql+psycopg")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DepthRule(_Section):
    """How deep a lock of up to ``up_to`` (in the asset's base unit; None: any amount) must be before anybody acts on it."""

    depth: Literal["included", "safe", "finalized"]
    """The depth."""
    up_to: int | None = None
    """Largest amount for which the rule holds, in the asset's base unit; None: any."""
    confirmations: int = 1
    """Blocks, for ``included``."""

    def __post_init__(self) -> None:
        self._types("swap.depth")
        self._bounds("swap.depth", up_to=(1, 2**64 - 1), confirmations=(1, 10_000))

    def policy(self) -> DepthPolicy:
        """The rule as a value of the terms."""
        from layer2.terms import DepthPolicy
        from layer2.transactions import Depth

        return DepthPolicy(depth=Depth[self.depth.upper()], confirmations=self.confirmations)


DEFAULT_DEPTH = (
    DepthRule(up_to=1_000_000, depth="included", confirmations=3),
    DepthRule(up_to=20_000_000, depth="safe"),
    DepthRule(depth="finalized"),
)
_DEVNET_DEPTH = (DepthRule(depth="included", confirmations=1),)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SwapConfig(_Section):
    """How the client side of transfers behaves. Amounts are in the asset's base unit."""

    provider_url: str | None = field(default=None, metadata=_SENSITIVE)
    """The swap provider; None: no transfers between layers."""
    provider_address: EvmAddress | None = None
    """Its account on the chain: another provider is refused. Needed where ``provider_url`` is plain HTTP to another machine."""
    max_fee_basis_points: int = 100
    """Default bound on provider and routing fees: this part of the amount (1/100 %) ..."""
    max_fee_base: int = 500
    """... and this on top."""
    max_amount: int | None = None
    """Largest transfer; None: no bound of ours."""
    max_unsafe_total: int | None = None
    """Most that may hang, over all transfers, on what the sequencer alone has confirmed; None: 5,000,000, none in development."""
    max_safe_lag_s: int = 7_200
    """If the safe head is older, nothing new is accepted at ``included``."""
    depth: tuple[DepthRule, ...] | None = None
    """By rising ``up_to``; the last rule has none. None: the defaults of the network."""

    def __post_init__(self) -> None:
        self._types("swap")
        self._url("swap", "provider_url", "http", "https")
        if self.provider_address is None:
            self._no_plain_http(
                "swap",
                "provider_url",
                "could stand for the provider",
                "set swap.provider_address to the provider's account, which it tells you by another way",
            )
        self._bounds(
            "swap",
            max_fee_basis_points=(0, 10_000),
            max_fee_base=(0, 2**63),
            max_amount=(1, 2**64 - 1),
            max_unsafe_total=(0, 2**64 - 1),
            max_safe_lag_s=(1, 86_400),
        )
        if self.depth is not None:
            limits = [rule.up_to for rule in self.depth]
            known = [limit for limit in limits[:-1] if limit is not None]
            if not limits or limits[-1] is not None or len(known) < len(limits) - 1 or sorted(set(known)) != known:
                raise ConfigurationError(
                    "swap.depth must rise by up_to, and only its last rule must have none", key="swap.depth"
                )

    def max_fee(self, amount: int) -> int:
        """The configured bound for a transfer of ``amount``, rounded down."""
        return amount * self.max_fee_basis_points // 10_000 + self.max_fee_base


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SignerConfig(_Section):
    """The EVM key: an encrypted keystore file with its password, or the key itself."""

    keystore: Path | None = None
    """Web3 Secret Storage, version 3; as every path, from the settings file's folder on if it is relative."""
    password: Secret | None = None
    """Of the keystore."""
    private_key: Secret | None = None
    """64 hexadecimal digits."""

    def __post_init__(self) -> None:
        self._types("signer")
        check_signer(self.keystore, self.password, self.private_key)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ProviderConfig(_Section):
    """The daemon that offers swaps. Amounts are in the asset's base unit."""

    listen_host: str = "127.0.0.1"
    """Address on which it listens."""
    listen_port: int = 8_787
    """0: any free port."""
    accept_new: bool = True
    """False: finishes what is open and begins nothing."""
    fee_basis_points: int = 50
    """Fee: this part of the amount (1/100 %), rounded up ..."""
    fee_base: int = 200
    """... and this on top."""
    routing_fee_limit_percent: int = 80
    """Most of its own fee that a payment may spend on routing."""
    min_amount: int = 10_000
    """Smallest amount that arrives. Below 1,000 sat a held payment is dust on chain, and lost if a channel is closed."""
    max_amount: int = 10_000_000
    """Largest amount that arrives."""
    max_locked_total: int = 50_000_000
    """Cap on the sum of its unclaimed locks."""
    max_unsafe_total: int = 20_000_000
    """Most that may hang on events that the sequencer alone has confirmed."""
    max_held_per_channel: int = 50
    """Parts of payments (HTLCs) held for reverse swaps at a time: all may come over one channel, which carries at most 483."""
    max_soft_hold_percent: int = 50
    """Share of the inventory that unpaid reverse invoices may keep."""
    max_gas_per_hour_wei: int = 20_000_000_000_000_000
    """Most that its own exits may cost in any hour, at today's price of gas."""
    requests_per_minute: int = 60
    """Swaps asked for by one network address; how they stand may be asked ten times as often."""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses or networks of proxies in front: their ``X-Forwarded-For`` is believed, and they connect as often as they need."""
    shutdown_grace_s: int = 10
    """For how long requests under way may go on when it stops."""
    timing: Mapping[str, int] = field(default_factory=dict)
    """Constants of ``layer2.terms.ChainTiming`` that differ from the network's preset; what would be unsafe is refused."""

    def __post_init__(self) -> None:
        self._types("provider")
        if self.timing:
            from layer2._config_load import check_timing_names

            check_timing_names(self.timing)
        amount = (1, 2**64 - 1)
        self._bounds(
            "provider",
            listen_port=(0, 65_535),
            fee_basis_points=(0, 5_000),
            fee_base=(0, 2**63),
            routing_fee_limit_percent=(1, 99),
            min_amount=(1_000, 2**64 - 1),
            max_amount=amount,
            max_locked_total=amount,
            max_unsafe_total=(0, 2**64 - 1),
            max_held_per_channel=(1, 483),
            max_soft_hold_percent=(1, 100),
            max_gas_per_hour_wei=(1, 10**22),
            requests_per_minute=(1, 1_000_000),
            shutdown_grace_s=(0, 3_600),
        )
        self._networks("provider", "trusted_proxies")
        if self.min_amount > self.max_amount:
            raise ConfigurationError("provider.min_amount is above provider.max_amount", key="provider.min_amount")

    def fee(self, amount: int) -> int:
        """The fee on ``amount``, rounded up."""
        return -(-amount * self.fee_basis_points // 10_000) + self.fee_base


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Layer2Config(_Section):
    """All settings. A layer without a section is not used."""

    network: Literal["bob", "bob-sepolia", "devnet", "embedded"] = "bob"
    """Preset of timing, depths and defaults: ``bob`` is the real thing."""
    max_concurrency: int = 64
    """Network operations at once, for each manager."""
    default_timeout_ms: int = 30_000
    """Limit of one network operation from the moment it has its slot."""
    allow_readable_secrets: bool = False
    """Take secrets from files that every user of the machine may read."""
    allow_foreign_files: bool = False
    """Read files that every user of the machine may write, and a settings file of another user: that counts as a variable only."""
    connection_pool: ConnectionPoolConfig = field(default_factory=ConnectionPoolConfig)
    bob: BobConfig | None = None
    lightning: LightningConfig | None = None
    assets: Mapping[str, AssetConfig] = field(default_factory=dict)
    store: StoreConfig = field(default_factory=StoreConfig)
    swap: SwapConfig = field(default_factory=SwapConfig)
    signer: SignerConfig | None = None
    provider: ProviderConfig | None = None

    def __post_init__(self) -> None:
        self._types("")
        self._bounds("", max_concurrency=(1, 100_000), default_timeout_ms=(1, 86_400_000))

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, environ: Mapping[str, str] | None = None, **overrides: Any
    ) -> Self:
        """Read the settings from their sources.

        Args:
            path: the file; None: the first that exists of the usual places.
            environ: the variables; None: those of the process.
            overrides: settings that win over file and variables; sections as mappings (``bob={"rpc_url": ...}``) or values.

        Raises:
            ConfigurationError: nothing is configured, a file is missing or malformed, a key is unknown, a value is of the wrong
                type or out of range, the file is another user's or others may write it, a secret is readable by everybody.
                ``key`` and ``path`` say where.
        """
        from layer2._config_load import load

        return load(cls, path, environ, overrides)

    @classmethod
    def embedded(cls, **overrides: Any) -> Self:
        """Everything in this process: a simulated Lightning network and a real EVM. Needs the ``devnet`` extra."""
        from layer2._config_load import build

        settings = {"network": "embedded", "store": {"url": "sqlite://"}, **overrides}
        return build(cls, settings, base=Path.cwd(), path=None)

    @property
    def is_embedded(self) -> bool:
        """Whether the network lives in this process."""
        return self.network == "embedded"

    @property
    def chain_id(self) -> int:
        """The EVM chain's id."""
        return self.bob.chain_id if self.bob is not None else CHAIN_IDS[self.network]

    @property
    def lightning_network(self) -> str:
        """The Bitcoin network under the Lightning node."""
        if self.lightning is not None and self.lightning.network is not None:
            return self.lightning.network
        return {"bob": "mainnet", "bob-sepolia": "signet"}.get(self.network, "regtest")

    @property
    def store_url(self) -> str:
        """The store's URL; by default a file in the user's data folder, for the embedded network in memory."""
        from layer2._config_load import data_folder

        # The embedded network ends with its process: transfers kept from it would wait for a chain that is gone.
        default = "sqlite://" if self.is_embedded else f"sqlite:///{data_folder() / f'{self.network}.sqlite3'}"
        return default if self.store.url is None else self.store.url

    def depth_policy(self, amount: int) -> DepthPolicy:
        """How deep the deciding event of a transfer of ``amount`` must be."""
        return next(rule for rule in self.depth_rules if rule.up_to is None or amount <= rule.up_to).policy()

    @property
    def depth_rules(self) -> tuple[DepthRule, ...]:
        """The rules of ``swap.depth``, or those that the network has by default."""
        return self.swap.depth or (DEFAULT_DEPTH if self.network in ("bob", "bob-sepolia") else _DEVNET_DEPTH)

    def chain_timing(self) -> ChainTiming:
        """The network's timing, with the provider's changes.

        Raises:
            ConfigurationError: constants with which somebody could lose money.
        """
        from layer2._config_load import chain_timing

        return chain_timing(self)

    def asset_registry(self) -> AssetRegistry:
        """The assets of the chain: BTC and ETH as preset, and the ``[assets]`` of the file."""
        from layer2._config_load import asset_registry

        return asset_registry(self)

    def with_changes(self, **changes: Any) -> Self:
        """A copy in which whole sections or top-level settings are replaced."""
        return replace(self, **changes)

    @staticmethod
    def template(**options: Any) -> str:
        """A commented settings file to start from, as ``layer2 init`` writes it.

        Options are ``network``, ``rpc_url``, ``rest_url`` (of lnd), ``macaroon_file``, ``tls_cert``, ``provider_url``, ``keystore``
        and ``provider`` (whether to offer swaps); what is None stands in the file as a comment.
        """
        from layer2._config_template import template

        return template(**options)

    def to_toml(self) -> str:
        """The settings as a file. Secrets stand as references to where they came from; those without one are left out."""
        from layer2._config_template import to_toml

        return to_toml(self)
