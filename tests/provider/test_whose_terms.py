"""Whose terms a client takes: those of the provider that gave the price, and that the settings name if they name one."""

from dataclasses import replace

import pytest

from layer2.errors import SwapRefused
from layer2.provider import LocalProvider
from layer2.signers import LocalSigner
from layer2.terms import SignedTerms, SwapDirection

AMOUNT = 100_000
OTHER = LocalSigner(b"\x09" * 32)


class Between:
    """Somebody between client and provider, who would be the provider where it pays."""

    def __init__(self, provider, *, in_the_price=False, in_the_terms=False):
        self._provider = provider
        self._in_the_price = in_the_price
        self._in_the_terms = in_the_terms

    async def info(self):
        info = await self._provider.info()
        return info.model_copy(update={"provider_address": OTHER.address}) if self._in_the_price else info

    async def _signed(self, answer, party):
        if not self._in_the_terms:
            return answer
        terms = answer.signed_terms.terms
        terms = replace(terms, lock=replace(terms.lock, **{party: OTHER.address}))
        signed = SignedTerms(terms=terms, signature=await OTHER.sign_digest(terms.digest))
        return answer.model_copy(update={"signed_terms": signed})

    async def create_submarine(self, request):
        return await self._signed(await self._provider.create_submarine(request), "claimer")

    async def create_reverse(self, request):
        return await self._signed(await self._provider.create_reverse(request), "refunder")


@pytest.fixture
def agree(world, make_requests):
    """Asks for a price and for terms, as the application does."""

    async def ask(direction, *, address=None, **lies):
        client = make_requests(Between(LocalProvider(world.service), **lies))
        if address is not None:
            place = replace(client.place, provider=address)
            client = make_requests(Between(LocalProvider(world.service), **lies), place=place)
        price = await client.price(direction, AMOUNT, max_fee_sat=5_000, pays_itself=True)
        if direction is SwapDirection.REVERSE:
            return await client.reverse(client.account.address, price, max_fee_sat=5_000, pays_itself=True)
        invoice = await client.own_invoice(AMOUNT, price.policy)
        return await client.submarine(invoice, price, max_fee_sat=5_000, own_invoice=True)

    return ask


@pytest.mark.parametrize("direction", list(SwapDirection))
class TestWhoSigns:
    async def test_is_who_gave_the_price(self, world, agree, direction):
        ours = world.signer.address
        assert (await agree(direction)).terms.provider == ours
        await world.clock.advance(1)  # else the next one would have the same preimage
        assert (await agree(direction, address=ours)).terms.provider == ours

    @pytest.mark.parametrize("lies", [{"in_the_price": True}, {"in_the_terms": True}], ids=str)
    async def test_is_nobody_else(self, agree, direction, lies):
        with pytest.raises(SwapRefused) as caught:
            await agree(direction, **lies)
        assert caught.value.rule == "provider"

    async def test_is_the_provider_of_the_settings(self, world, agree, direction):
        for address, lies in (
            (OTHER.address, {}),
            (world.signer.address, {"in_the_price": True, "in_the_terms": True}),
        ):
            with pytest.raises(SwapRefused) as caught:
                await agree(direction, address=address, **lies)
            assert caught.value.rule == "provider"


async def test_a_node_does_not_pay_itself(world, make_requests):
    """The provider's node is the client's too: its payment would be held and taken by one and the same."""
    client = make_requests(LocalProvider(world.service), node=world.node)
    price = await client.price(SwapDirection.REVERSE, AMOUNT, max_fee_sat=5_000, pays_itself=True)
    with pytest.raises(SwapRefused) as caught:
        await client.reverse(client.account.address, price, max_fee_sat=5_000, pays_itself=True)
    assert caught.value.rule == "payee"
