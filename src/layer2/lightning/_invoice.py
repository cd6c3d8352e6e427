"""What a BOLT11 invoice says, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from layer2._values import Bytes, Uint, Value
from layer2.errors import InvoiceError

__all__ = [
    "DEFAULT_EXPIRY_S",
    "DEFAULT_MIN_FINAL_CLTV_DELTA",
    "FallbackAddress",
    "Feature",
    "Invoice",
    "RouteHop",
]

DEFAULT_EXPIRY_S: Final = 3600
"""What an invoice without an ``x`` field means (BOLT11)."""
DEFAULT_MIN_FINAL_CLTV_DELTA: Final = 18
"""What an invoice without a ``c`` field means (BOLT11)."""

MAX_UINT64 = 2**64 - 1
MAX_AMOUNT_MSAT = 21_000_000 * 10**11
"""No more bitcoin than this can ever exist."""

PREFIXES = MappingProxyType(
    {"mainnet": "bc", "testnet": "tb", "testnet4": "tb", "signet": "tbs", "regtest": "bcrt", "simnet": "sb"}
)
"""Network name -> what follows ``ln`` in its invoices. Both test networks share one."""
NETWORKS = MappingProxyType({prefix: name for name, prefix in PREFIXES.items() if name != "testnet4"})


class Feature:
    """Numbers of the even (required) feature bits that mean something in an invoice (BOLT9; AMP is LND's)."""

    VAR_ONION = 8
    PAYMENT_SECRET = 14
    BASIC_MPP = 16
    ROUTE_BLINDING = 24
    AMP = 30
    ATTRIBUTION_DATA = 36
    PAYMENT_METADATA = 48


_KNOWN = frozenset(number for name, number in vars(Feature).items() if name.isupper())
_NEEDS = (
    (Feature.PAYMENT_SECRET, Feature.VAR_ONION),
    (Feature.BASIC_MPP, Feature.PAYMENT_SECRET),
    (Feature.AMP, Feature.PAYMENT_SECRET),
    (Feature.ROUTE_BLINDING, Feature.VAR_ONION),
)


@lru_cache(maxsize=256)
def read_features(value: int) -> tuple[tuple[int, ...], str | None]:
    """The bits set in ``value`` in rising order, and what is wrong with them, if anything."""
    bits = tuple(bit for bit in range(value.bit_length()) if value >> bit & 1)
    for bit in bits:
        if not bit & 1 and bit not in _KNOWN:
            return bits, f"the payee requires feature {bit}, which is not known here"
    have = {bit & ~1 for bit in bits}
    for feature, needed in _NEEDS:
        if feature in have and needed not in have:
            return bits, f"feature {feature} is set without feature {needed}, on which it depends"
    return bits, None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteHop(Value):
    """One channel of a route hint, on the way from a public node to the payee."""

    node_id: Bytes
    """Public key (33 bytes) of the node at the start of the channel."""
    short_channel_id: Uint
    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: int
    """In blocks."""

    @property
    def channel(self) -> str:
        """The channel as people write it: block x transaction x output."""
        scid = self.short_channel_id
        return f"{scid >> 40}x{scid >> 16 & 0xFFFFFF}x{scid & 0xFFFF}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackAddress(Value):
    """An on-chain address to pay if Lightning does not work."""

    version: int
    """0 to 16: witness version; 17: pay to public key hash; 18: pay to script hash."""
    program: Bytes
    """The witness program or the hash."""

    @property
    def is_valid(self) -> bool:
        """Whether the length of the program fits the version (BIP-141)."""
        size = len(self.program)
        match self.version:
            case 0:
                return size in (20, 32)
            case 17 | 18:
                return size == 20
            case version:
                return 1 <= version <= 16 and 2 <= size <= 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice(Value):
    """A BOLT11 invoice whose checksum and signature hold, as ``decode_invoice`` returns it.

    Without an ``n`` field a tampered invoice is still valid, with another payee: who expects a certain payee must
    compare ``payee``. ``description`` is the payee's text, to be escaped wherever it is shown.
    """

    network: str
    """``mainnet``, ``testnet`` (3 and 4 alike), ``signet``, ``regtest`` or ``simnet``."""
    amount_msat: Uint | None
    """None: the payer chooses."""
    timestamp: Uint
    """Unix seconds at which it was made."""
    payment_hash: Bytes
    payment_secret: Bytes = field(repr=False)
    description: str | None = field(repr=False)
    """Exactly one of this and ``description_hash`` is set."""
    description_hash: Bytes | None
    payee: Bytes
    """Public key (33 bytes) of the node that signed."""
    payee_given: bool
    """Whether the invoice names its payee (``n``), rather than leaving it to be recovered from the signature."""
    expiry_s: Uint
    """Seconds from ``timestamp``, below 2**64."""
    min_final_cltv_delta: Uint
    """Blocks that the last HTLC must leave the payee, below 2**64."""
    fallback_addresses: tuple[FallbackAddress, ...] = field(repr=False)
    route_hints: tuple[tuple[RouteHop, ...], ...] = field(repr=False)
    features: tuple[int, ...]
    """Numbers of the feature bits that are set, in rising order."""
    metadata: Bytes | None = field(repr=False)
    """To be sent along with the payment."""
    signature: Bytes = field(repr=False)
    """64 bytes, r and s."""
    recovery_id: int = field(repr=False)
    text: str = field(repr=False)
    """The invoice itself, in lower case."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(_as_signed, handler(source))

    @property
    def expires_at(self) -> int:
        """Unix seconds after which no payment may be tried."""
        return self.timestamp + self.expiry_s

    @property
    def amount_sat(self) -> int | None:
        """The amount in satoshi, rounded up."""
        return None if self.amount_msat is None else -(-self.amount_msat // 1000)

    @property
    def prefix(self) -> str:
        """What stands before amount: ``lnbc``, ``lntb``, ``lntbs``, ``lnbcrt`` or ``lnsb``."""
        return "ln" + PREFIXES[self.network]

    def is_expired(self, now_s: int) -> bool:
        """Whether its time has passed at ``now_s`` (Unix seconds)."""
        return now_s > self.expires_at

    def has_feature(self, feature: int) -> bool:
        """Whether the payee offers (odd bit) or requires (even bit) ``feature``, given as its even number."""
        return feature in self.features or feature + 1 in self.features


def _as_signed(invoice: Invoice) -> Invoice:
    """Values from outside are believed only as far as the signed text says the same."""
    from layer2.lightning._bolt11 import decode_invoice

    if decode_invoice(invoice.text) != invoice:
        raise InvoiceError("the values beside the invoice are not those that it was signed with", field="text")
    return invoice
