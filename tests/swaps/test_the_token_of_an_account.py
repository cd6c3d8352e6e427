"""What the token's contract says of itself, or that it says nothing: an address that is no token is a mistake of the settings."""

import pytest

from layer2.addresses import EvmAddress
from layer2.errors import AssetError, NodeConnectionError, Reverted
from layer2.evm import encode_decimals
from layer2.swaps import EvmAccount

TOKEN = EvmAddress(raw=b"\x06" * 20)


class Chain:
    """Gives one answer after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def call(self, to, data):
        assert (to, data) == (TOKEN, encode_decimals())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def account_on():
    def make(chain):
        return EvmAccount(
            client=chain, chain_id=60808, fees=None, data_fee=None, address=TOKEN, token=TOKEN, max_gas_cost_wei=1
        )

    return make


@pytest.mark.parametrize("number", [0, 8, 18, 255])
async def test_its_decimals_are_what_it_answers(account_on, number):
    account = account_on(Chain(number.to_bytes(32)))
    with pytest.raises(AssetError, match=f"{TOKEN} has {number} decimals, not {number + 1}"):
        await account.check_decimals(number + 1)
    await account.check_decimals(number)


async def test_it_is_asked_once_that_it_answers(account_on):
    chain = Chain(NodeConnectionError("no connection", request_sent=False), (8).to_bytes(32))
    account = account_on(chain)
    with pytest.raises(NodeConnectionError):
        await account.check_decimals(8)
    for _ in range(3):
        await account.check_decimals(8)
    assert chain.answers == []


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x08", (256).to_bytes(32), b"\xff" * 32, bytes(64), Reverted("no such function")],
    ids=["no-contract", "short", "too-many", "negative", "long", "reverts"],
)
async def test_what_is_no_token_is_named(account_on, answer):
    with pytest.raises(AssetError, match=f"no token at {TOKEN}") as caught:
        await account_on(Chain(answer)).check_decimals(8)
    assert not caught.value.money_may_have_moved
