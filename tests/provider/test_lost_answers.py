"""A request for a swap whose answer was lost is repeated, and gets the swap that was made for it: not a second one, not a refusal."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from refusals import refused

from layer2 import EvmAddress
from layer2.errors import NodeConnectionError, NodeNotReady, SwapRefused, UnexpectedReply
from layer2.lightning import decode_invoice
from layer2.provider import LocalProvider
from layer2.swaps import Failed, HttpProvider, Role
from layer2.terms import SwapDirection
from layer2.testing import VirtualClock

ID = b"\x51" * 16
OTHER = EvmAddress(raw=b"\x34" * 20)
AMOUNT = 100_000
DIRECTIONS = ["submarine", "reverse"]


async def request_for(world, direction, **changes):
    return await getattr(world, f"{direction}_request")(**{"request_id": ID} | changes)


def create(provider, direction, request):
    return getattr(provider, f"create_{direction}")(request)


async def swaps_of(world):
    return await world.journal.page(kinds=None, limit=100, after=None)


@pytest.mark.parametrize("direction", DIRECTIONS)
class TestAtTheProvider:
    async def test_the_same_request_gets_the_same_swap(self, world, direction):
        request = await request_for(world, direction)
        first = await create(world.service, direction, request)
        bound = world.inventory.token_bound(), world.inventory.lightning_bound_msat()
        await world.clock.advance(1)
        assert await create(world.service, direction, request) == first
        assert [swap.id for swap in await swaps_of(world)] == [first.id]
        assert (world.inventory.token_bound(), world.inventory.lightning_bound_msat()) == bound

    async def test_over_http_too(self, world, served, direction):
        client = HttpProvider(served.url)
        request = await request_for(world, direction)
        first = await create(client, direction, request)
        assert await create(client, direction, request) == first
        assert [swap.id for swap in await swaps_of(world)] == [first.id]
        await client.close()

    async def test_while_the_first_is_still_being_answered(self, world, direction):
        request = await request_for(world, direction)
        answers = await asyncio.gather(*(create(world.service, direction, request) for _ in range(5)))
        assert len({answer.id for answer in answers}) == 1
        assert len(await swaps_of(world)) == 1

    async def test_though_nothing_new_is_accepted_any_more(self, make_world, direction):
        world = await make_world(max_held_per_channel=1)
        request = await request_for(world, direction)
        first = await create(world.service, direction, request)
        world.service.accepting = False
        world.account.gas_short = True
        assert await create(world.service, direction, request) == first

    async def test_a_refused_request_is_decided_anew(self, world, direction):
        request = await request_for(world, direction)
        world.service.accepting = False
        await refused(create(world.service, direction, request), "accept_new")
        world.service.accepting = True
        assert (await create(world.service, direction, request)).signed_terms.verify()

    async def test_other_arguments_under_the_same_id_are_refused(self, world, direction):
        request = await request_for(world, direction)
        await create(world.service, direction, request)
        field = "refund_address" if direction == "submarine" else "claim_address"
        await refused(create(world.service, direction, request.model_copy(update={field: OTHER})), "request_id")
        other = DIRECTIONS[1 - DIRECTIONS.index(direction)]
        await refused(create(world.service, other, await request_for(world, other)), "request_id")
        assert len(await swaps_of(world)) == 1

    @pytest.mark.parametrize("request_id", [None, b"\x52" * 16])
    async def test_who_has_not_the_id_does_not_get_the_swap(self, world, direction, request_id):
        """Everything else of a request can be known or guessed by whoever sees the invoice."""
        request = await request_for(world, direction)
        first = await create(world.service, direction, request)
        stranger = request.model_copy(update={"request_id": request_id})
        if direction == "reverse":
            await refused(create(world.service, direction, stranger), "hash")
        else:  # a quote reserves no hash: this is another offer for the same invoice
            second = await create(world.service, direction, stranger)
            assert second.id != first.id
            assert second.signed_terms.terms.lock.lock_id != first.signed_terms.terms.lock.lock_id

    @pytest.mark.parametrize("size", [0, 15, 65])
    async def test_ids_that_are_too_short_to_be_a_secret_or_too_long_are_refused(self, world, direction, size):
        await refused(
            create(world.service, direction, await request_for(world, direction, request_id=b"q" * size)), "request_id"
        )
        assert await swaps_of(world) == []

    async def test_the_id_itself_is_not_kept(self, world, direction):
        response = await create(world.service, direction, await request_for(world, direction))
        assert ID.hex() not in (await world.journal.load(response.id)).idempotency_key


async def test_a_swap_that_has_ended_is_not_offered_again(world):
    """Its terms would have the client lock for nothing."""
    request = await request_for(world, "submarine")
    first = await world.service.create_submarine(request)
    world.chain.head_offset_s = 10_000
    world.engine.wake(first.id)
    await world.reach(first.id, Failed)
    await refused(world.service.create_submarine(request), "ended")


class Losing:
    """Passes every request on and loses the first ``answers`` of them that make swaps, with ``error``."""

    def __init__(self, service, answers, error):
        self._provider = LocalProvider(service)
        self.left = answers
        self.error = error
        self.then = None
        self.requests = []

    def __getattr__(self, name):
        return getattr(self._provider, name)

    async def create_submarine(self, request):
        return await self._answer(request, await self._provider.create_submarine(request))

    async def create_reverse(self, request):
        return await self._answer(request, await self._provider.create_reverse(request))

    async def _answer(self, request, response):
        self.requests.append(request)
        if self.left:
            self.left -= 1
            raise self.error
        if self.then is not None:
            raise self.then
        return response


async def deal(requests, direction, world):
    price = await requests.price(SwapDirection(direction), AMOUNT, max_fee_sat=5_000, pays_itself=True)
    if direction == "reverse":
        return await requests.reverse(requests.account.address, price, max_fee_sat=5_000, pays_itself=True)
    text = await world.invoice(AMOUNT * 1000)
    return await requests.submarine(text, price, max_fee_sat=5_000, own_invoice=False)


LOST = NodeConnectionError("the provider does not answer", endpoint="http://provider")
BAD_GATEWAY = UnexpectedReply("the provider answered HTTP 502", endpoint="http://provider", code=502)
BROKEN = UnexpectedReply("the provider's answer is malformed", endpoint="http://provider")
NOT_NOW = NodeNotReady("the provider cannot answer now", endpoint="http://provider", code=503)


@pytest.fixture
async def own_clock():
    """The client's: it jumps over pauses, while the provider's stands still."""
    clock = VirtualClock()
    async with clock.autojump(idle_s=0.001):
        yield clock


@pytest.mark.parametrize("direction", DIRECTIONS)
class TestOfTheClient:
    @pytest.mark.parametrize("error", [LOST, BAD_GATEWAY], ids=["connection", "proxy"])
    async def test_it_asks_again_and_takes_the_swap_that_was_made(
        self, world, make_requests, own_clock, direction, error
    ):
        provider = Losing(world.service, 2, error)
        made = await deal(make_requests(provider, clock=own_clock), direction, world)
        (swap,) = await swaps_of(world)
        assert (swap.deal.role, swap.deal.signed) == (Role.PROVIDER, made.signed)
        first, *others = provider.requests
        assert others == [first, first]

    async def test_it_gives_up_with_the_error(self, world, make_requests, own_clock, direction):
        provider = Losing(world.service, 100, LOST)
        with pytest.raises(NodeConnectionError) as caught:
            await deal(make_requests(provider, clock=own_clock), direction, world)
        assert caught.value.retry_safe
        assert len(provider.requests) == 3
        assert len(await swaps_of(world)) == 1

    async def test_a_swap_of_which_a_provider_kept_the_hash_alone_is_no_refusal(
        self, world, make_requests, own_clock, direction
    ):
        """It died after it had made its invoice and before it stored the swap: who asks anew, with another hash, gets one."""
        provider = Losing(world.service, 1, LOST)
        refusal = SwapRefused("the payment hash was used before", rule="hash")
        provider.then = refusal
        with pytest.raises(NodeConnectionError) as caught:
            await deal(make_requests(provider, clock=own_clock), direction, world)
        assert caught.value.retry_safe
        assert caught.value.__cause__ is refusal

    @pytest.mark.parametrize("error", [BROKEN, NOT_NOW], ids=["malformed", "not ready"])
    async def test_an_answer_is_not_asked_for_again(self, world, make_requests, own_clock, direction, error):
        provider = Losing(world.service, 1, error)
        with pytest.raises(type(error)):
            await deal(make_requests(provider, clock=own_clock), direction, world)
        assert len(provider.requests) == 1

    async def test_each_swap_has_an_id_of_its_own(self, world, make_requests, own_clock, direction):
        provider = Losing(world.service, 0, None)
        requests = make_requests(provider, clock=own_clock)
        await deal(requests, direction, world)
        await world.clock.advance(1)
        await deal(requests, direction, world)
        ids = {request.request_id for request in provider.requests}
        assert len(ids) == len(await swaps_of(world)) == 2
        assert all(len(request_id) == 32 for request_id in ids)

    async def test_a_connection_that_breaks_after_the_request(
        self, world, served, cutting, make_requests, own_clock, direction
    ):
        relay = await cutting(served.port)
        provider = HttpProvider(f"http://127.0.0.1:{relay.port}")
        made = await deal(make_requests(provider, clock=own_clock), direction, world)
        await provider.close()
        assert relay.cut == 1
        (swap,) = await swaps_of(world)
        assert swap.deal.signed == made.signed
        payment_hash = decode_invoice(made.terms.invoice).payment_hash
        assert swap.deal.terms.lock.preimage_hash == payment_hash


class Relay:
    """Passes bytes on to a server, and cuts the first connection on which an answer to a POST comes, before that is seen."""

    def __init__(self, to_port):
        self._to_port = to_port
        self.cut = 0
        self.port = 0

    async def serve(self, reader, writer):
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to_port)
        posted = asyncio.Event()

        async def upwards():
            while data := await reader.read(65_536):
                if b"POST /v1/swap/" in data:
                    posted.set()
                to_server.write(data)
                await to_server.drain()

        async def downwards():
            while data := await from_server.read(65_536):
                if posted.is_set() and not self.cut:
                    self.cut += 1
                    return
                writer.write(data)
                await writer.drain()

        ways = {asyncio.create_task(upwards()), asyncio.create_task(downwards())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            to_server.close()


@pytest.fixture
async def cutting():
    async with AsyncExitStack() as stack:

        async def start(to_port):
            relay = Relay(to_port)
            server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            relay.port = server.sockets[0].getsockname()[1]
            return relay

        yield start
