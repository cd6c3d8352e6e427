"""A hash whose preimage the chain shows is found, as far back as it matters and at a bounded cost."""

import pytest

from layer2._crypto import sha256
from layer2.addresses import EvmAddress
from layer2.errors import NodeConnectionError, NodeError
from layer2.evm import CLAIM_TOPIC, EvmClient, RpcError
from layer2.swaps import ClaimSearch

HEAD = 3_000_000
HEAD_S = 1_800_000_000
BLOCK_S = 2
CONTRACT = EvmAddress(raw=b"\x22" * 20)
PREIMAGE = bytes(range(32))
DAY_BLOCKS = 86_400 // BLOCK_S


def time_of(number):
    return HEAD_S - (HEAD - number) * BLOCK_S


class Chain:
    """An endpoint of a chain with one claim in it, that takes ``widest`` blocks at a time."""

    def __init__(self, claimed_at, widest=10**9):
        self.claimed_at = claimed_at
        self.widest = widest
        self.asked = []
        self.error = None

    async def call(self, method, params):
        if method == "eth_getBlockByNumber":
            number = HEAD if params[0] == "latest" else int(params[0], 16)
            zero = "0x" + "00" * 32
            return {
                "number": hex(number),
                "hash": "0x" + number.to_bytes(32).hex(),
                "parentHash": zero,
                "timestamp": hex(time_of(number)),
                "gasLimit": "0x1",
                "gasUsed": "0x0",
                "stateRoot": zero,
                "extraData": "0x",
            }
        assert method == "eth_getLogs"
        if self.error is not None:
            raise self.error
        (criteria,) = params
        first, last = int(criteria["fromBlock"], 16), int(criteria["toBlock"], 16)
        self.asked.append((first, last))
        if last - first + 1 > self.widest:
            raise RpcError(-32005, f"query exceeds max block range {self.widest}")
        topics = ["0x" + CLAIM_TOPIC.hex(), None, "0x" + sha256(PREIMAGE).hex()]
        assert criteria["address"] == str(CONTRACT)
        if criteria["topics"] != topics or not first <= self.claimed_at <= last:
            return []
        return [
            {
                "address": str(CONTRACT),
                "topics": [topics[0], "0x" + "01" * 32, topics[2]],
                "data": "0x" + PREIMAGE.hex(),
                "blockNumber": hex(self.claimed_at),
                "blockHash": "0x" + "02" * 32,
                "transactionHash": "0x" + "03" * 32,
                "logIndex": "0x0",
            }
        ]

    async def close(self):
        pass


def search_of(chain, max_requests=16, block_time_s=BLOCK_S):
    return ClaimSearch(
        client=EvmClient(chain),
        chain_id=60808,
        contract=CONTRACT,
        block_time_s=block_time_s,
        max_requests=max_requests,
    )


@pytest.mark.parametrize("age_blocks", [0, 1, 1_000, 59 * DAY_BLOCKS])
@pytest.mark.parametrize("widest", [10**9, 400_000])
async def test_a_claim_is_found(age_blocks, widest):
    search = search_of(Chain(HEAD - age_blocks, widest))
    assert await search.claimed(sha256(PREIMAGE), 0)
    assert not await search.claimed(sha256(b"another"), 0)


async def test_one_question_is_enough_where_the_endpoint_takes_it():
    chain = Chain(HEAD - 59 * DAY_BLOCKS)
    assert await search_of(chain).claimed(sha256(PREIMAGE), 0)
    assert len(chain.asked) == 1


async def test_only_what_the_time_allows_is_asked_for():
    chain = Chain(HEAD - 500)
    assert not await search_of(chain).claimed(sha256(PREIMAGE), time_of(HEAD - 400))
    assert await search_of(chain).claimed(sha256(PREIMAGE), time_of(HEAD - 500))
    assert all(first >= HEAD - 502 for first, _ in chain.asked)


@pytest.mark.parametrize("block_time_s", [1, 10])
async def test_another_block_time_than_expected_hides_nothing(block_time_s):
    """A chain may change its pace; the blocks' own times count."""
    search = search_of(Chain(HEAD - 5_000), block_time_s=block_time_s)
    assert await search.claimed(sha256(PREIMAGE), time_of(HEAD - 5_000))


async def test_the_endpoints_width_is_learnt_once():
    chain = Chain(0, widest=300_000)
    search = search_of(chain)
    await search.claimed(sha256(PREIMAGE), time_of(HEAD - 500_000))
    chain.asked.clear()
    await search.claimed(sha256(PREIMAGE), time_of(HEAD - 500_000))
    assert all(last - first < 300_000 for first, last in chain.asked)


async def test_a_search_has_a_bound_and_says_so():
    chain = Chain(0, widest=2_000)
    with pytest.raises(NodeError) as caught:
        await search_of(chain, max_requests=4).claimed(sha256(PREIMAGE), 0)
    assert sum(last - first < 2_000 for first, last in chain.asked) == 4
    assert "eth_getLogs" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RpcError(-32601, "the method eth_getLogs does not exist"), NodeError),
        (RpcError(-32000, "block range too large, limit 0"), NodeError),
        (NodeConnectionError("gone"), NodeConnectionError),
    ],
)
async def test_an_endpoint_that_does_not_tell_is_never_taken_for_a_no(error, kind):
    chain = Chain(HEAD)
    chain.error = error
    with pytest.raises(kind):
        await search_of(chain).claimed(sha256(PREIMAGE), 0)
