"""A transfer proof: what makes it hold, and everything that makes it fail."""

import re
from dataclasses import fields, replace

import pytest

from layer2._crypto import CURVE_ORDER, public_key
from layer2.addresses import EvmAddress
from layer2.assets import BTC, ETH, AssetForm, AssetRegistry
from layer2.errors import AddressError, ProofError, ValidationError
from layer2.evm._htlc import storage_slot
from layer2.evm._htlc_events import LOCKUP_TOPIC, REFUND_TOPIC
from layer2.proofs import (
    CheckResult,
    Fee,
    Report,
    TransferExpectations,
    TransferProof,
    verify_transfer_proof,
)
from layer2.terms import DepthPolicy, SwapDirection
from layer2.transactions import Depth


@pytest.mark.parametrize("direction", list(SwapDirection))
@pytest.mark.parametrize("without", [None, "storage", "receipt"])
def test_a_true_proof_passes_every_check(made, direction, without):
    proof = made.make_proof(made.make_terms(direction))
    if without:
        proof = replace(proof, checksum=b"", **{without: None})
    report = made.verify(proof)
    assert report.ok
    assert report.verdict() is True
    assert report.raise_if_failed() is report
    skipped = {check.name for check in report.checks if check.result is CheckResult.SKIPPED}
    assert skipped == {"expected"} | {
        None: set(), "storage": {"contract_code", "lock_state", "lock_state_block"}, "receipt": {"claim_event", "claim_event_block"},
    }[without]  # fmt: skip
    assert TransferProof.from_json(proof.to_json()) == proof
    assert made.verify(proof.to_json(), trusted_blocks=[made.claimed_chain(proof.terms).header.hash], min_depth=None).ok


def test_a_proof_with_neither_storage_nor_receipt_is_none(made):
    with pytest.raises(ProofError, match="storage proof or a receipt proof"):
        made.make_proof(storage=None, receipt=None)


def only_failure(report, name, match):
    """The check that failed, alone: no other may be what noticed."""
    assert report.verdict() is False
    assert not report.ok
    assert [check.name for check in report.failed] == [name], report.failed
    assert re.search(match, report[name].reason), report[name].reason
    with pytest.raises(ProofError) as refused:
        report.raise_if_failed()
    assert refused.value.check == name


def test_terms_signed_by_another_than_the_provider_fail(made):
    terms = made.make_terms()
    only_failure(
        made.verify(made.make_proof(signed_terms=made.sign(terms, b"\x08" * 32))), "terms_signature", "provider"
    )
    signed = made.sign(terms)
    broken = replace(signed, signature=signed.signature[:-1] + b"\x00")
    only_failure(made.verify(made.make_proof(signed_terms=broken)), "terms_signature", "65 bytes")


def test_the_second_signature_that_belongs_to_every_one_is_refused(made):
    signed = made.sign(made.make_terms())
    high = (CURVE_ORDER - int.from_bytes(signed.signature[32:64])).to_bytes(32)
    twin = replace(signed, signature=signed.signature[:32] + high + bytes([55 - signed.signature[64]]))
    only_failure(made.verify(made.make_proof(signed_terms=twin)), "terms_signature", "high s")


@pytest.mark.parametrize(
    "change",
    [
        {"swap_id": "cd" * 16},
        {"direction": SwapDirection.REVERSE},
        {"lock_amount": 100_601},
        {"lock_timelock": 1_800_100_001},
        {"provider_fee": 599},
        {"routing_fee_limit_msat": 1},
        {"lock_by": 0},
        {"created_at": 0},
        {"invoice_amount_msat": 99_999_999},
        {"depth_policy": DepthPolicy(depth=Depth.SAFE)},
    ],
)
def test_terms_changed_after_they_were_signed_fail(made, change):
    signed = made.sign(made.make_terms())
    changed = made.make_terms(**change)
    report = made.verify(made.make_proof(changed, signed_terms=replace(signed, terms=changed)))
    assert "terms_signature" in {check.name for check in report.failed}


def test_the_contract_must_be_in_the_callers_table(made):
    proof = made.make_proof()
    table = {made.CHAIN_ID: [made.USER]}
    only_failure(made.verify(proof, contracts=table), "contract", "is no HTLC contract of chain 60808")
    only_failure(made.verify(proof, contracts={made.CHAIN_ID: []}), "contract", "is no HTLC contract")
    assert made.verify(proof, contracts={made.CHAIN_ID: [str(made.CONTRACT)]}).ok
    with pytest.raises(AddressError):
        made.verify(proof, contracts={made.CHAIN_ID: ["0x1"]})
    for unknown in ({}, {1: [made.CONTRACT]}):
        report = made.verify(proof, contracts=unknown)
        assert [check.name for check in report.unchecked] == ["contract"]
        assert not report.ok
        for ask in (report.verdict, report.raise_if_failed):
            with pytest.raises(ProofError, match="contract could not be checked") as refused:
                ask()
            assert refused.value.check == "contract"


def test_without_a_table_the_contract_must_be_at_the_address_that_follows_from_its_code(made):
    assert made.verify(made.make_proof(), contracts=None).ok
    elsewhere = made.make_proof(made.make_terms(lock_contract=made.USER), storage=None)
    only_failure(made.verify(elsewhere, contracts=None), "contract", "is no HTLC contract")
    assert made.verify(elsewhere, contracts={made.CHAIN_ID: [made.USER]}).ok


def test_the_contract_must_have_the_code_of_the_htlc(made):
    terms = made.make_terms()
    slot, value = storage_slot(terms.lock.lock_id), int.from_bytes(made.PREIMAGE)
    chain = made.Chain({slot: value}, (made.claim_log(terms),), code_hash=b"\x11" * 32)
    only_failure(made.verify(made.make_proof(terms, chain)), "contract_code", "other code")
    assert made.verify(made.make_proof(terms, chain, storage=None)).ok


def test_the_token_must_be_in_the_callers_registry(made):
    proof = made.make_proof()
    other = AssetRegistry(
        [
            AssetForm(asset=BTC, chain_id=made.CHAIN_ID, contract=made.USER, decimals=8),
            AssetForm(asset=ETH, chain_id=1, contract=made.TOKEN, decimals=8),
        ]
    )
    report = made.verify(proof, assets=other)
    assert {check.name for check in report.failed} == {"token", "amounts"}
    assert not any("the registry calls it" in line for line in report.trusted)
    report = made.verify(proof, assets=None)
    assert [check.name for check in report.unchecked] == ["token", "amounts"]


def test_an_invoice_that_is_not_valid_fails(made):
    text = made.make_invoice(100_000_000)
    terms = made.make_terms(invoice=text[:-1] + ("q" if text[-1] != "q" else "p"))
    report = made.verify(made.make_proof(terms))
    assert {check.name for check in report.failed} == {"invoice", "payment_hash", "invoice_amount"}


def test_an_invoice_on_another_hash_fails(made):
    terms = made.make_terms(invoice=made.make_invoice(100_000_000, b"\x55" * 32))
    only_failure(made.verify(made.make_proof(terms)), "payment_hash", "different hashes")


@pytest.mark.parametrize("amount", [None, 99_999_000, 100_000_001])
def test_an_invoice_with_another_amount_than_the_terms_fails(made, amount):
    terms = made.make_terms(invoice=made.make_invoice(amount))
    only_failure(made.verify(made.make_proof(terms)), "invoice_amount", "another amount")


@pytest.mark.parametrize(
    ("direction", "decimals", "lock_amount", "fee", "msat", "adds_up"),
    [
        ("submarine", 8, 100_600, 600, 100_000_000, True),
        ("submarine", 8, 100_600, 600, 99_999_001, True),  # paid with 100,000: the rest is below a satoshi
        ("submarine", 8, 100_600, 600, 99_999_000, False),
        ("submarine", 8, 100_600, 600, 100_000_001, False),
        ("submarine", 8, 100_600, 601, 100_000_000, False),
        ("reverse", 8, 99_400, 600, 100_000_000, True),
        ("reverse", 8, 99_400, 600, 100_000_999, True),
        ("reverse", 8, 99_400, 600, 100_001_000, False),
        ("reverse", 8, 99_400, 600, 99_999_999, False),
        ("submarine", 18, 100_600 * 10**10, 600 * 10**10, 100_000_000, True),
        ("submarine", 18, 100_600 * 10**10 - 1, 600 * 10**10, 100_000_000, False),
        ("reverse", 18, 99_400 * 10**10 - 1, 600 * 10**10, 100_000_000, True),
        ("submarine", 8, 600, 100_600, 100_000_000, False),
    ],
)
def test_lock_fee_and_invoice_must_add_up(made, direction, decimals, lock_amount, fee, msat, adds_up):
    terms = made.make_terms(
        SwapDirection(direction),
        lock_amount=lock_amount,
        provider_fee=fee,
        invoice=made.make_invoice(msat),
        invoice_amount_msat=msat,
    )
    form = AssetForm(asset=BTC, chain_id=made.CHAIN_ID, contract=made.TOKEN, decimals=decimals)
    fees = (Fee(name="provider", coin="BTC", amount=fee // 10 ** (decimals - 8)),)
    report = made.verify(made.make_proof(terms, fees=fees), assets=AssetRegistry([form]))
    if adds_up:
        assert report.ok, report.failed
    else:
        only_failure(report, "amounts", "do not add up")


def test_fees_must_not_contradict_the_terms(made):
    wrong = (Fee(name="gas", coin="ETH", amount=1), Fee(name="provider", coin="BTC", amount=601))
    only_failure(made.verify(made.make_proof(fees=wrong)), "fees", "not the one in the terms")
    twice = (Fee(name="gas", coin="ETH", amount=1),) * 2
    only_failure(made.verify(made.make_proof(fees=twice)), "fees", "listed twice")
    assert made.verify(made.make_proof(fees=()))["fees"].result is CheckResult.SKIPPED


def test_the_provider_fee_is_in_the_unit_of_its_coin(made):
    terms = made.make_terms(lock_amount=100_600 * 10**10, provider_fee=600 * 10**10)
    form = AssetForm(asset=BTC, chain_id=made.CHAIN_ID, contract=made.TOKEN, decimals=18)
    in_units = (Fee(name="provider", coin="BTC", amount=600 * 10**10),)
    in_satoshi = (Fee(name="provider", coin="BTC", amount=600),)
    report = made.verify(made.make_proof(terms, fees=in_units), assets=AssetRegistry([form]))
    only_failure(report, "fees", "not the one in the terms")
    proof = made.make_proof(terms, fees=in_satoshi)
    assert made.verify(proof, assets=AssetRegistry([form])).ok
    assert made.verify(proof, assets=None)["fees"].result is CheckResult.UNCHECKED


def test_without_a_registry_the_token_is_said_to_be_unchecked(made):
    proof = made.make_proof()
    report = verify_transfer_proof(
        proof, trusted_blocks=[block.hash for block in proof.blocks], contracts={made.CHAIN_ID: [made.CONTRACT]}
    )
    assert {check.name for check in report.checks if check.result is CheckResult.UNCHECKED} == {"token", "amounts"}
    assert report.failed == ()
    assert not report.ok
    assert "no asset registry was given" in report["token"].reason


def test_another_preimage_fails(made):
    report = made.verify(made.make_proof(preimage=b"\x55" * 32))
    assert {check.name for check in report.failed} == {"preimage", "lock_state", "claim_event"}


def test_a_lock_claimed_with_a_preimage_of_another_hash_fails(made):
    terms = made.make_terms()
    other = b"\x55" * 32
    chain = made.claimed_chain(terms, other)
    storage = chain.storage_proof(storage_slot(terms.lock.lock_id), int.from_bytes(other))
    proof = made.make_proof(terms, chain, storage=storage, preimage=other)
    assert {check.name for check in made.verify(proof).failed} == {"preimage"}


@pytest.mark.parametrize(("value", "phase"), [(0, "never"), (1, "locked"), (2, "refunded")])
def test_a_lock_that_was_not_claimed_fails(made, value, phase):
    terms = made.make_terms()
    slot = storage_slot(terms.lock.lock_id)
    chain = made.Chain({slot: value} if value else {}, ())
    proof = made.make_proof(terms, chain, storage=chain.storage_proof(slot, value), receipt=None)
    only_failure(made.verify(proof), "lock_state", f"not claimed: it is {phase}")


def test_a_storage_proof_of_something_else_fails(made):
    terms = made.make_terms()
    slot, chain = storage_slot(terms.lock.lock_id), made.claimed_chain(terms)
    true = made.make_proof(terms, chain)
    value = true.storage.value
    for storage, match in (
        (replace(true.storage, chain_id=1), "another chain"),
        (chain.storage_proof(bytes(32), 0), "another slot"),
        (replace(true.storage, value=value + 1), "another value"),
        (replace(true.storage, storage_proof=true.storage.storage_proof[:-1]), "proof ends after"),
    ):
        only_failure(made.verify(made.make_proof(terms, chain, storage=storage)), "lock_state", match)
    for storage, match in (
        (replace(true.storage, address=made.TOKEN), "another contract"),
        (replace(true.storage, account_proof=()), "proof ends after"),
    ):
        report = made.verify(made.make_proof(terms, chain, storage=storage))
        assert [check.name for check in report.failed] == ["contract_code", "lock_state"]
        assert match in report["lock_state"].reason
    other = made.make_terms(swap_id="cd" * 16, lock_timelock=1_800_100_001)
    elsewhere = made.claimed_chain(other).storage_proof(slot, 0)
    only_failure(made.verify(made.make_proof(terms, chain, storage=elsewhere)), "lock_state", "never")


def test_a_receipt_proof_of_something_else_fails(made):
    terms = made.make_terms()
    log = made.claim_log(terms)
    lockup = replace(log, topics=(LOCKUP_TOPIC, *log.topics[1:], bytes(32)), data=bytes(128))
    for logs, status, match in (
        ((log,), 0, "the transaction failed"),
        ((), 1, "no Claim event"),
        ((replace(log, address=made.TOKEN.raw),), 1, "no Claim event"),
        ((replace(log, topics=(REFUND_TOPIC, *log.topics[1:]), data=b""),), 1, "no Claim event"),
        ((made.claim_log(made.make_terms(lock_timelock=1_800_100_001)),), 1, "no Claim event"),
        ((made.claim_log(terms, b"\x55" * 32),), 1, "no Claim event"),
        ((replace(log, data=b"\x55" * 32),), 1, "does not belong to its hash"),
        ((replace(log, data=log.data * 2),), 1, "."),
        ((replace(log, topics=log.topics[:2]),), 1, "none of the HTLC contract's events"),
        ((lockup,), 1, "Lockup event"),
    ):
        chain = made.Chain({}, logs, status=status)
        proof = made.make_proof(terms, receipt=chain.receipt_proof())
        only_failure(made.verify(proof), "claim_event", match)
    true = made.make_proof(terms).receipt
    for receipt, match in (
        (replace(true, chain_id=1), "another chain"),
        (replace(true, index=127), "hash|path"),
        (replace(true, proof=(*true.proof, b"\x80")), "after the end"),
    ):
        only_failure(made.verify(made.make_proof(terms, receipt=receipt)), "claim_event", match)


def test_the_event_may_stand_among_others(made):
    terms = made.make_terms()
    other = made.claim_log(made.make_terms(lock_timelock=1_800_100_001))
    chain = made.Chain({}, (other, made.claim_log(terms), other))
    assert made.verify(made.make_proof(terms, storage=None, receipt=chain.receipt_proof())).ok


def test_blocks_must_be_trusted(made):
    proof = made.make_proof()
    for trusted in ([], (), {}, set()):
        report = made.verify(proof, trusted_blocks=trusted, min_depth=None)
        assert [check.name for check in report.unchecked] == ["lock_state_block", "claim_event_block"]
    report = made.verify(proof, trusted_blocks=[b"\x11" * 32], min_depth=None)
    assert [check.name for check in report.failed] == ["lock_state_block", "claim_event_block"]
    assert "block 77" in report["lock_state_block"].reason
    terms = proof.terms
    elsewhere = made.Chain({bytes(32): 7}, (made.claim_log(terms),))
    two = made.make_proof(terms, receipt=elsewhere.receipt_proof())
    assert made.verify(two).ok
    one_trusted = {two.storage.block_hash: Depth.SAFE}
    only_failure(made.verify(two, trusted_blocks=one_trusted, min_depth=None), "claim_event_block", "not among the 1")


@pytest.mark.parametrize("blocks", [b"\x11" * 32, [b"\x11" * 31], ["11" * 32], [None]])
def test_trusted_blocks_that_are_no_hashes_are_the_callers_mistake(made, blocks):
    with pytest.raises(ValidationError) as refused:
        made.verify(made.make_proof(), trusted_blocks=blocks)
    assert refused.value.field == "trusted_blocks"
    assert (refused.value.hint is not None) == (blocks == ["11" * 32])


def test_the_depth_is_the_one_at_which_the_caller_knows_the_block(made):
    proof = made.make_proof(depth=Depth.FINALIZED)
    block = proof.storage.block_hash
    only_failure(
        made.verify(proof, trusted_blocks={block: Depth.INCLUDED}, min_depth=Depth.SAFE),
        "depth",
        "only INCLUDED, not SAFE",
    )
    assert made.verify(proof, trusted_blocks={block: Depth.SAFE}, min_depth=Depth.SAFE).ok
    report = made.verify(proof, trusted_blocks=[block], min_depth=Depth.SAFE)
    assert [check.name for check in report.unchecked] == ["depth"]
    assert made.verify(proof, trusted_blocks=[block], min_depth=None)["depth"].result is CheckResult.SKIPPED


def test_expected_terms_must_be_the_terms(made):
    proof = made.make_proof()
    assert made.verify(proof, expected=made.make_terms()).ok
    other = made.make_terms(lock_by=1, swap_id="cd" * 16)
    only_failure(made.verify(proof, expected=other), "expected", "than expected: swap_id, lock_by")


@pytest.mark.parametrize("expected", [{}, "terms", 7])
def test_expectations_of_another_type_are_the_callers_mistake(made, expected):
    with pytest.raises(ValidationError) as refused:
        made.verify(made.make_proof(), expected=expected)
    assert refused.value.field == "expected"


def test_the_blocks_to_be_trusted_are_named(made):
    proof = made.make_proof()
    (block,) = proof.blocks
    assert (block.number, block.hash, block.timestamp) == (77, proof.storage.block_hash, 1_800_000_000)
    elsewhere = made.Chain({bytes(32): 7}, ())
    two = made.make_proof(receipt=elsewhere.receipt_proof()).blocks
    assert [block.hash for block in two] == [proof.storage.block_hash, elsewhere.header.hash]
    with pytest.raises(ProofError):
        _ = made.make_proof(receipt=replace(proof.receipt, header=b"\xc0")).blocks


def test_expectations_are_compared_one_by_one(made):
    proof = made.make_proof()
    lock = proof.terms.lock
    true = {
        "swap_id": "ab" * 16,
        "direction": SwapDirection.SUBMARINE,
        "chain_id": made.CHAIN_ID,
        "token": made.TOKEN,
        "lock_amount": 100_600,
        "invoice_amount_msat": 100_000_000,
        "invoice": proof.terms.invoice,
        "payment_hash": lock.preimage_hash,
        "payee": public_key(made.PAYEE_KEY),
        "network": "regtest",
        "provider": lock.claimer,
        "claimer": lock.claimer,
        "refunder": made.USER,
    }
    assert set(true) == {item.name for item in fields(TransferExpectations)}
    assert made.verify(proof, expected=TransferExpectations(**true)).ok
    wrong = {
        name: SwapDirection.REVERSE if name == "direction" else value + 1 if isinstance(value, int)
        else made.TOKEN if name == "refunder" else made.USER if isinstance(value, EvmAddress) else value[:-1]
        for name, value in true.items()
    }  # fmt: skip
    for name, value in wrong.items():
        report = made.verify(proof, expected=TransferExpectations(**{name: value}))
        only_failure(report, "expected", f"than expected: {name}$")
    nothing = made.verify(proof, expected=TransferExpectations())
    assert nothing["expected"].result is CheckResult.SKIPPED


def test_a_report_says_what_it_rests_on_and_what_is_not_proved(made):
    report = made.verify(made.make_proof())
    text = " ".join(report.trusted)
    assert "is a block of chain 60808" in text
    assert "code of layer2" not in text
    assert "code of layer2" in " ".join(made.verify(made.make_proof(storage=None)).trusted)
    assert str(made.TOKEN) in text
    assert "collusion" in " ".join(report.notes)
    assert "who paid" in " ".join(report.notes)
    assert "depth INCLUDED" in report.notes[-1]
    assert Report.from_json(report.to_json()) == report
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(report)
    with pytest.raises(KeyError):
        report["no such check"]
    bare = made.verify(made.make_proof(), assets=None, trusted_blocks=[])
    assert bare.trusted == ("secp256k1, SHA-256 and Keccak-256",)


def test_no_secret_shows_in_a_repr(made):
    proof = made.make_proof()
    for value in (proof, proof.lightning, proof.storage, proof.receipt, made.verify(proof)):
        for secret in (
            made.PREIMAGE.hex(),
            repr(made.PREIMAGE)[2:-1],
            str(int.from_bytes(made.PREIMAGE)),
            proof.terms.invoice,
        ):
            assert secret not in repr(value)


def test_the_lightning_leg_is_a_proof_of_its_own(made):
    leg = made.make_proof().lightning
    invoice = leg.verify()
    assert invoice.payee == public_key(made.PAYEE_KEY)
    assert invoice.payment_hash == leg.payment_hash
    assert type(leg).from_json(leg.to_json()) == leg
    with pytest.raises(ProofError, match="not that of the invoice") as refused:
        replace(leg, preimage=b"\x55" * 32).verify()
    assert refused.value.check == "preimage"
    with pytest.raises(ProofError, match="the invoice is not valid") as refused:
        replace(leg, invoice="lnbc1").verify()
    assert refused.value.check == "invoice"
    for change in ({"invoice": b"lnbc"}, {"preimage": b""}, {"preimage": "00" * 32}):
        with pytest.raises(ProofError):
            replace(leg, **change)
