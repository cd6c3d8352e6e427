"""A provider can pay and never be paid for it. The money is back, and whoever pays again pays the recipient twice."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from swap_worlds import PREIMAGE, make_deal

from layer2 import SwapRefunded
from layer2._transfer_view import failure_of
from layer2.swaps import Closed, Role
from layer2.terms import SwapDirection


@pytest.mark.parametrize("preimage", [None, PREIMAGE], ids=["not paid", "paid"])
def test_a_refund_is_safe_to_try_again_unless_the_recipient_was_paid(preimage: bytes | None) -> None:
    state = Closed(outcome="refunded", reason="why", preimage=preimage)
    error = failure_of(SimpleNamespace(deal=make_deal(Role.CLIENT, SwapDirection.SUBMARINE), state=state))  # type: ignore[arg-type]
    assert isinstance(error, SwapRefunded)
    assert error.retry_safe is (preimage is None)
    assert ("do not pay again" in (error.hint or "")) is (preimage is not None)
