import random

import pytest
from eth_account import Account

from layer2 import _rlp
from layer2._crypto import CURVE_ORDER
from layer2.addresses import EvmAddress
from layer2.errors import SignerError, ValidationError
from layer2.evm import UnsignedTransaction, decode_transaction, sign_transaction
from layer2.signers import LocalSigner


def random_transaction(rng, *, dynamic):
    price = rng.choice([0, 1, 127, 128, rng.randrange(2**40)])
    return UnsignedTransaction(
        chain_id=rng.choice([1, 60808, 808813, 2**40]),
        nonce=rng.choice([0, 1, 127, 128, 2**32]),
        gas_limit=rng.choice([21_000, 30_000_000]),
        max_fee_per_gas=price,
        max_priority_fee_per_gas=rng.randrange(price + 1) if dynamic else price,
        to=rng.choice([None, EvmAddress(raw=rng.randbytes(20)), EvmAddress(raw=bytes(20))]),
        value=rng.choice([0, 1, 10**18, 2**255]),
        data=rng.randbytes(rng.choice([0, 1, 4, 55, 56, 300])),
        dynamic_fee=dynamic,
    )


def as_eth_account_knows_it(tx):
    fields = {"nonce": tx.nonce, "gas": tx.gas_limit, "value": tx.value, "data": tx.data, "chainId": tx.chain_id}
    fields["to"] = b"" if tx.to is None else str(tx.to)
    if tx.dynamic_fee:
        return fields | {"maxFeePerGas": tx.max_fee_per_gas, "maxPriorityFeePerGas": tx.max_priority_fee_per_gas}
    return fields | {"gasPrice": tx.max_fee_per_gas}


@pytest.mark.parametrize("dynamic", [True, False])
async def test_same_bytes_as_eth_account_both_ways(dynamic):
    rng = random.Random(f"transactions {dynamic}")
    for _ in range(60):
        signer = LocalSigner(rng.randbytes(32))
        tx = random_transaction(rng, dynamic=dynamic)
        signed = await sign_transaction(tx, signer)
        reference = Account.sign_transaction(as_eth_account_knows_it(tx), "0x" + signer.export_private_key().hex())
        assert signed.raw == bytes(reference.raw_transaction)
        assert signed.hash == bytes(reference.hash)
        assert decode_transaction(signed.raw) == signed


async def test_any_changed_bit_is_refused_or_another_transaction():
    rng = random.Random("bits")
    signer = LocalSigner(rng.randbytes(32))
    signed = await sign_transaction(random_transaction(rng, dynamic=True), signer)
    for bit in range(len(signed.raw) * 8):
        changed = bytearray(signed.raw)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            other = decode_transaction(bytes(changed))
        except ValidationError:
            continue
        assert other.sender != signer.address
        assert other.hash != signed.hash


async def make_raw(**changes):
    fields = {"chain_id": 60808, "nonce": 0, "gas_limit": 21_000, "max_fee_per_gas": 2, "max_priority_fee_per_gas": 1}
    tx = UnsignedTransaction(**{**fields, "to": EvmAddress(raw=b"\1" * 20), **changes})
    return (await sign_transaction(tx, LocalSigner(b"\7" * 32))).raw


async def test_a_high_s_is_refused():
    fields = _rlp.decode((await make_raw())[1:])
    fields[9] = _rlp.encode_int(1 - _rlp.decode_int(fields[9]))
    fields[11] = _rlp.encode_int(CURVE_ORDER - _rlp.decode_int(fields[11]))
    with pytest.raises(ValidationError, match="signature"):
        decode_transaction(b"\x02" + _rlp.encode(fields))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02",
        b"\x01\xc0",
        b"\x04\xc0",
        b"\x7e\xc0",
        b"\xc0",
        b"\x02\xc0",
        b"\xc8" + b"\x01" * 8,
        b"\x00" * 40,
        b"\xff" * 200_000,
    ],
    ids=lambda raw: raw[:4].hex() or "empty",
)
def test_what_is_no_transaction_is_refused(raw):
    with pytest.raises(ValidationError):
        decode_transaction(raw)


async def test_a_legacy_transaction_without_chain_id_is_refused():
    raw = await make_raw(dynamic_fee=False, max_fee_per_gas=2, max_priority_fee_per_gas=2)
    fields = _rlp.decode(raw)
    fields[6] = _rlp.encode_int(27)
    with pytest.raises(ValidationError, match="EIP-155"):
        decode_transaction(_rlp.encode(fields))


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": -1},
        {"nonce": 2**64},
        {"value": 2**256},
        {"chain_id": 0},
        {"max_priority_fee_per_gas": 3},
        {"dynamic_fee": False},
        {"data": b"x" * 200_000},
    ],
    ids=str,
)
async def test_fields_out_of_range_are_refused(changes):
    with pytest.raises(ValidationError):
        await make_raw(**changes)


async def test_a_signature_by_another_key_is_noticed():
    class Wrong:
        address = EvmAddress(raw=b"\1" * 20)

        async def sign_digest(self, digest):
            return await LocalSigner(b"\7" * 32).sign_digest(digest)

    tx = decode_transaction(await make_raw()).transaction
    with pytest.raises(SignerError, match="not by"):
        await sign_transaction(tx, Wrong())
