"""A transfer proof: what makes it hold, and everything that makes it fail."""

from dataclasses import replace

import pytest

from layer2.errors import ProofError
from layer2.proofs import CheckResult, TransferProof
from layer2.terms import SwapDirection


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
        None: set(), "storage": {"lock_state", "lock_state_block"}, "receipt": {"claim_event", "claim_event_block"},
    }[without]  # fmt: skip
    assert TransferProof.from_json(proof.to_json()) == proof
    assert made.verify(proof.to_json(), trusted_blocks=[made.claimed_chain(proof.terms).header.hash], min_depth=None).ok


def test_a_proof_with_neither_storage_nor_receipt_is_none(made):
    with pytest.raises(ProofError, match="storage proof or a receipt proof"):
        made.make_proof(storage=None, receipt=None)
