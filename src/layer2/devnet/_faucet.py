"""The miner's coins of a regtest network: one key whose block rewards pay for everything.

Bitcoin Core's wallet is not there (btcd has none), and a reward paid to an lnd would change that node's balance with every block.
"""

from __future__ import annotations

from dataclasses import dataclass

from layer2._crypto import public_key, sha256, sign_recoverable
from layer2.errors import AddressError, AmountError

__all__ = ["Coin", "Faucet", "script_for_address"]

_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_FEE_SAT = 20_000
_SIGHASH_ALL = 1
_SEQUENCE_FINAL = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output that pays to the faucet."""

    txid: str
    index: int
    amount_sat: int


class Faucet:
    """Signs payments from coins locked to ``<public key> OP_CHECKSIG``, as a version 0 witness script (BIP 141)."""

    # The key of every devnet's miner: its coins exist on throw-away chains only.
    _private_key = sha256(b"layer2 devnet miner")

    def __init__(self) -> None:
        self._witness_script = b"\x21" + public_key(self._private_key) + b"\xac"
        self.script = b"\x00\x20" + sha256(self._witness_script)

    @property
    def address(self) -> str:
        """Where the block rewards go: a regtest P2WSH address (BIP 173)."""
        return _encode_address("bcrt", self.script[2:])

    def spend(self, coin: Coin, outputs: dict[str, int]) -> tuple[bytes, Coin]:
        """A signed transaction that pays ``outputs`` (address -> satoshi) from one coin, and the change.

        Raises:
            AmountError: the coin is too small.
            AddressError: an address is not a version 0 or 1 witness address.
        """
        change_sat = coin.amount_sat - sum(outputs.values()) - _FEE_SAT
        if change_sat < 1_000 or any(amount < 1_000 for amount in outputs.values()):
            raise AmountError(f"a coin of {coin.amount_sat} satoshi cannot pay {sum(outputs.values())} and the fee")
        payments = [(amount, script_for_address(address)) for address, amount in outputs.items()]
        payments.append((change_sat, self.script))
        outpoint = bytes.fromhex(coin.txid)[::-1] + coin.index.to_bytes(4, "little")
        body = b"".join(amount.to_bytes(8, "little") + _prefixed(script) for amount, script in payments)
        version, locktime = (2).to_bytes(4, "little"), bytes(4)
        sighash = _double_sha256(  # BIP 143
            version
            + _double_sha256(outpoint)
            + _double_sha256(_SEQUENCE_FINAL)
            + outpoint
            + _prefixed(self._witness_script)
            + coin.amount_sat.to_bytes(8, "little")
            + _SEQUENCE_FINAL
            + _double_sha256(body)
            + locktime
            + _SIGHASH_ALL.to_bytes(4, "little")
        )
        signature = _der(sign_recoverable(sighash, self._private_key)[0]) + bytes([_SIGHASH_ALL])
        inputs = b"\x01" + outpoint + b"\x00" + _SEQUENCE_FINAL
        outs = bytes([len(payments)]) + body
        witness = b"\x02" + _prefixed(signature) + _prefixed(self._witness_script)
        txid = _double_sha256(version + inputs + outs + locktime)[::-1].hex()
        transaction = version + b"\x00\x01" + inputs + outs + witness + locktime
        return transaction, Coin(txid, len(payments) - 1, change_sat)


def script_for_address(address: str) -> bytes:
    """The output script of a regtest witness address that a node of ours gave; its checksum is not looked at.

    Raises:
        AddressError: it has another form.
    """
    data = address[5:-6].lower()
    if not address.lower().startswith("bcrt1") or not data or set(data) - set(_CHARSET) or data[0] not in "qp":
        raise AddressError("not a regtest witness address", field="address")
    number = 0
    for char in data[1:]:
        number = number << 5 | _CHARSET.index(char)
    spare_bits = (len(data) - 1) * 5 % 8
    program = (number >> spare_bits).to_bytes((len(data) - 1) * 5 // 8)
    return bytes([0x00 if data[0] == "q" else 0x51, len(program)]) + program


def _encode_address(prefix: str, program: bytes) -> str:
    padded = int.from_bytes(program) << (-len(program) * 8) % 5
    count = (len(program) * 8 + 4) // 5
    values = [0, *((padded >> 5 * (count - 1 - i)) & 31 for i in range(count))]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = _polymod([*expanded, *values, 0, 0, 0, 0, 0, 0]) ^ 1
    values += [(check >> 5 * (5 - i)) & 31 for i in range(6)]
    return prefix + "1" + "".join(_CHARSET[value] for value in values)


def _polymod(values: list[int]) -> int:
    generator = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit in range(5):
            check ^= generator[bit] if top >> bit & 1 else 0
    return check


def _double_sha256(data: bytes) -> bytes:
    return sha256(sha256(data))


def _prefixed(data: bytes) -> bytes:
    return bytes([len(data)]) + data  # everything here is shorter than 253 bytes


def _der(signature: bytes) -> bytes:
    parts = b""
    for number in (signature[:32], signature[32:]):
        value = number.lstrip(b"\x00") or b"\x00"
        value = b"\x00" + value if value[0] & 0x80 else value
        parts += b"\x02" + _prefixed(value)
    return b"\x30" + _prefixed(parts)
