"""Offers that take long to make: a busy provider's terms must still be such that a careful client takes them."""

from layer2.lightning import decode_invoice
from layer2.swaps import reverse_lock_by


async def test_the_terms_of_a_reverse_offer_begin_with_its_invoice_and_not_in_the_queue(world):
    balance = world.account.token_balance

    async def slow():
        await world.clock.advance(20)
        return await balance()

    world.account.token_balance = slow
    terms = (await world.reverse()).signed_terms.terms
    invoice = decode_invoice(terms.invoice)
    assert invoice.expires_at <= terms.created_at + terms.timing.invoice_expiry_s
    assert terms.lock_by == reverse_lock_by(terms.timing, terms.created_at)
    assert terms.lock_by >= invoice.expires_at + terms.timing.payment_time_limit_s
