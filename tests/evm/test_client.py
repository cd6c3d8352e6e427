import pytest

from layer2.addresses import EvmAddress
from layer2.errors import NodeError, Reverted, StorageError, UnexpectedReply, ValidationError
from layer2.evm import EvmClient, MemoryTxJournal, RpcError, SignedVariant, TxRecord, TxState

HASH = "0x" + "11" * 32
OTHER = "0x" + "22" * 32
ACCOUNT = EvmAddress(raw=b"\x0b" * 20)


class Canned:
    """A transport that answers from a table: values, or functions of the parameters."""

    def __init__(self, **answers):
        self.answers = answers
        self.calls = []

    async def call(self, method, params):
        self.calls.append((method, params))
        answer = self.answers[method]
        answer = answer(params) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self):
        pass


def block(**changes):
    fields = {
        "number": "0x5",
        "hash": HASH,
        "parentHash": OTHER,
        "timestamp": "0x1",
        "gasLimit": "0x1",
        "gasUsed": "0x0",
        "baseFeePerGas": "0x7",
        "stateRoot": OTHER,
        "extraData": "0x",
    }
    return {**fields, **changes}


def log(**changes):
    fields = {
        "address": str(ACCOUNT),
        "topics": [HASH],
        "data": "0x",
        "blockNumber": "0x5",
        "blockHash": HASH,
        "transactionHash": OTHER,
        "logIndex": "0x0",
    }
    return {**fields, **changes}


def receipt(**changes):
    fields = {
        "transactionHash": OTHER,
        "blockNumber": "0x5",
        "blockHash": HASH,
        "transactionIndex": "0x0",
        "status": "0x1",
        "gasUsed": "0x64",
        "effectiveGasPrice": "0x2",
        "contractAddress": None,
        "logs": [log()],
    }
    return {**fields, **changes}


@pytest.mark.parametrize(
    "answer", ["0x", "0x00", "0x01", "1", 1, None, "-0x1", "0xg", "0x" + "f" * 65, "0x1 ", ["0x1"], True], ids=repr
)
async def test_what_is_no_quantity_is_refused(answer):
    with pytest.raises(UnexpectedReply, match="chain id"):
        await EvmClient(Canned(eth_chainId=answer)).chain_id()


@pytest.mark.parametrize(("answer", "value"), [("0x0", 0), ("0xed88", 60808), ("0xED88", 60808)])
async def test_quantities_are_read(answer, value):
    assert await EvmClient(Canned(eth_chainId=answer)).chain_id() == value


@pytest.mark.parametrize("answer", ["0x1", "1234", None, 7, "0xzz", {"0x": 1}], ids=repr)
async def test_what_is_no_data_is_refused(answer):
    with pytest.raises(UnexpectedReply):
        await EvmClient(Canned(eth_getCode=answer)).code(ACCOUNT)


@pytest.mark.parametrize(
    "changes",
    [
        {"number": None},
        {"hash": "0x12"},
        {"number": "0x6"},
        {"timestamp": 1},
        {"extraData": "0x1"},
        {"stateRoot": OTHER[:-2]},
    ],
    ids=str,
)
async def test_a_block_that_is_malformed_or_another_is_refused(changes):
    with pytest.raises(UnexpectedReply):
        await EvmClient(Canned(eth_getBlockByNumber=block(**changes))).header(5)


async def test_a_block_by_hash_must_have_it():
    with pytest.raises(UnexpectedReply):
        await EvmClient(Canned(eth_getBlockByHash=block())).header(bytes.fromhex(OTHER[2:]))
    assert await EvmClient(Canned(eth_getBlockByHash=None)).header(bytes(32)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "0x2"},
        {"status": None},
        {"logs": None},
        {"logs": [7]},
        {"transactionHash": HASH},
        {"blockHash": "0x"},
    ],
    ids=str,
)
async def test_a_receipt_that_is_malformed_or_another_is_refused(changes):
    with pytest.raises(UnexpectedReply):
        await EvmClient(Canned(eth_getTransactionReceipt=receipt(**changes))).receipt(bytes.fromhex(OTHER[2:]))


@pytest.mark.parametrize(
    ("changes", "fee"),
    [
        ({}, 200),
        ({"l1Fee": "0x7"}, 207),
        ({"operatorFeeScalar": "0xf4240", "operatorFeeConstant": "0x3"}, 303),
        (
            {"operatorFeeScalar": "0x2", "operatorFeeConstant": "0x3", "daFootprintGasScalar": "0x1"},
            200 + 100 * 2 * 100 + 3,
        ),
    ],
    ids=["gas only", "l1", "isthmus", "jovian"],
)
async def test_a_receipts_fee_is_all_that_it_cost(changes, fee):
    read = await EvmClient(Canned(eth_getTransactionReceipt=receipt(**changes))).receipt(bytes.fromhex(OTHER[2:]))
    assert read.fee_wei == fee


async def test_a_revert_says_why():
    reason = "08c379a0" + "20".rjust(64, "0") + "05".rjust(64, "0") + b"nope!".hex().ljust(64, "0")
    client = EvmClient(Canned(eth_call=RpcError(3, "execution reverted", "0x" + reason)))
    with pytest.raises(Reverted) as caught:
        await client.call(ACCOUNT, b"")
    assert caught.value.reason == "nope!"
    assert caught.value.data.hex() == reason
    assert isinstance(caught.value.__cause__, RpcError)


async def test_other_errors_keep_their_code():
    with pytest.raises(NodeError) as caught:
        await EvmClient(Canned(eth_call=RpcError(-32601, "no such method"))).call(ACCOUNT, b"")
    assert caught.value.code == -32601


def narrow_endpoint(limit, logs):
    def answer(params):
        start, end = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
        if end - start + 1 > limit:
            return RpcError(-32602, "block range too large")
        return [entry for entry in logs if start <= int(entry["blockNumber"], 16) <= end]

    return answer


async def test_logs_come_in_ranges_that_the_endpoint_takes():
    entries = [log(blockNumber=hex(n)) for n in (0, 3, 64, 99, 100)]
    transport = Canned(eth_getLogs=narrow_endpoint(10, entries))
    found = [entry async for page in EvmClient(transport).logs(from_block=0, to_block=100) for entry in page]
    assert [entry.block_number for entry in found] == [0, 3, 64, 99, 100]
    assert len(transport.calls) < 60


async def test_logs_that_cannot_be_had_are_an_error():
    client = EvmClient(Canned(eth_getLogs=RpcError(-32602, "range too large")))
    with pytest.raises(NodeError):
        [page async for page in client.logs(from_block=0, to_block=5)]
    with pytest.raises(ValidationError):
        [page async for page in client.logs(from_block=-1, to_block=5)]


@pytest.mark.parametrize("entry", [log(removed=True), log(blockNumber="0x63")], ids=["removed", "outside"])
async def test_logs_that_cannot_be_right_are_refused(entry):
    with pytest.raises(UnexpectedReply):
        [page async for page in EvmClient(Canned(eth_getLogs=[entry])).logs(from_block=5, to_block=6)]


@pytest.mark.parametrize("answer", [{}, {"baseFeePerGas": []}, {"baseFeePerGas": ["7"]}, []], ids=str)
async def test_a_fee_history_that_is_malformed_is_refused(answer):
    with pytest.raises(UnexpectedReply):
        await EvmClient(Canned(eth_feeHistory=answer)).fee_history()


def record(key="k", nonce=0, state=TxState.OPEN, number=1):
    variant = SignedVariant(raw=b"raw", hash=bytes([number]) * 32, max_fee_per_gas=1, max_priority_fee_per_gas=1)
    return TxRecord(
        key=key,
        request_digest=b"d",
        chain_id=1,
        sender=ACCOUNT,
        nonce=nonce,
        variants=(variant,),
        state=state,
        created_ms=0,
    )


async def test_the_journal_keeps_keys_nonces_and_versions_apart():
    journal = MemoryTxJournal()
    await journal.put_new(record())
    with pytest.raises(StorageError, match="key"):
        await journal.put_new(record(nonce=1))
    with pytest.raises(StorageError, match="nonce"):
        await journal.put_new(record(key="other", number=2))
    with pytest.raises(StorageError, match="bytes"):
        await journal.put_new(record(key="other", nonce=1))
    with pytest.raises(StorageError, match="changed"):
        await journal.update(record(), expected_version=2)
    abandoned = await journal.update(record(state=TxState.ABANDONED), expected_version=1)
    assert abandoned.version == 2
    assert await journal.last_nonce(1, ACCOUNT) is None
    await journal.put_new(record(key="other", number=2))
    assert await journal.last_nonce(1, ACCOUNT) == 0
    assert [found.key for found in await journal.open_records(1, ACCOUNT)] == ["other"]
    assert (await journal.by_hash(b"\x01" * 32)).key == "k"
    assert await journal.open_records(2, ACCOUNT) == []
