"""The shipped artifacts are what the sources compile to, and stand where the constants say, on any chain."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from layer2 import _rlp
from layer2._crypto import eth_address, keccak256, recover
from layer2.addresses import EvmAddress
from layer2.devnet import EmbeddedEvm
from layer2.evm import (
    CLAIM_GAS,
    CLAIM_TOPIC,
    CREATE2_PROXY,
    CREATE2_PROXY_DEPLOYER,
    CREATE2_PROXY_DEPLOYMENT,
    CREATE2_PROXY_FUNDING_WEI,
    HTLC_ADDRESS,
    HTLC_CODE_HASH,
    LOCK_GAS,
    LOCKUP_TOPIC,
    REFUND_COOPERATIVE_GAS,
    REFUND_GAS,
    REFUND_TOPIC,
    REVERT_NAMES,
    TEST_TOKEN_ADDRESS,
    cooperative_refund_digest,
    create2_address,
    encode_call,
    encode_claim,
    encode_create2,
    encode_lock,
    encode_refund,
    encode_refund_cooperative,
    event_topic,
    load_artifact,
    selector,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def signature(entry):
    return f"{entry['name']}({','.join(item['type'] for item in entry['inputs'])})"


def test_a_recompile_gives_the_committed_artifacts():
    tool = [sys.executable, str(ROOT / "tools" / "compile_contracts.py"), "--check"]
    result = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_addresses_follow_from_the_code():
    assert create2_address(load_artifact("htlc").bytecode) == HTLC_ADDRESS
    assert create2_address(load_artifact("test_token").bytecode) == TEST_TOKEN_ADDRESS
    assert keccak256(load_artifact("htlc").runtime_bytecode) == HTLC_CODE_HASH


def test_the_proxys_deployment_is_signed_by_nobody_and_makes_the_proxy():
    fields = _rlp.decode(CREATE2_PROXY_DEPLOYMENT)
    public = recover(keccak256(_rlp.encode(fields[:6])), fields[7] + fields[8], fields[6][0] - 27)
    assert eth_address(public) == CREATE2_PROXY_DEPLOYER.raw
    assert keccak256(_rlp.encode([CREATE2_PROXY_DEPLOYER.raw, b""]))[12:] == CREATE2_PROXY.raw
    assert _rlp.decode_int(fields[1]) * _rlp.decode_int(fields[2]) == CREATE2_PROXY_FUNDING_WEI


def test_the_abi_names_every_error_and_event_that_the_binding_reads():
    abi = load_artifact("htlc").abi
    assert {selector(signature(entry)) for entry in abi if entry["type"] == "error"} == set(REVERT_NAMES)
    assert {event_topic(signature(entry)) for entry in abi if entry["type"] == "event"} == {
        LOCKUP_TOPIC,
        CLAIM_TOPIC,
        REFUND_TOPIC,
    }
    source = (ROOT / "contracts" / "Layer2Htlc.vy").read_text()
    assert source.count("raw_revert(") == len(re.findall(r'raw_revert\(method_id\("\w+\(\)"\)\)', source))


def test_no_function_takes_native_coin_and_there_is_no_constructor():
    abi = load_artifact("htlc").abi
    assert {entry["stateMutability"] for entry in abi if entry["type"] == "function"} == {"view", "nonpayable"}
    assert not [entry for entry in abi if entry["type"] in {"constructor", "fallback", "receive"}]


def test_the_proxy_and_then_the_contracts_can_be_put_on_a_bare_chain(bench):
    evm = EmbeddedEvm(
        clock=bench.clock,
        block_time_s=None,
        in_thread=False,
        preinstalled=False,
        balances={bench.stranger.address: 10**20, CREATE2_PROXY_DEPLOYER: CREATE2_PROXY_FUNDING_WEI},
    )
    other = bench.another(evm)
    assert other.rpc("eth_getCode", str(HTLC_ADDRESS), "latest") == "0x"
    tx_hash = other.rpc("eth_sendRawTransaction", "0x" + CREATE2_PROXY_DEPLOYMENT.hex())
    other.mine()
    receipt = other.rpc("eth_getTransactionReceipt", tx_hash)
    assert EvmAddress.parse(receipt["contractAddress"]) == CREATE2_PROXY
    for name, address in (("htlc", HTLC_ADDRESS), ("test_token", TEST_TOKEN_ADDRESS)):
        artifact = load_artifact(name)
        assert other.succeeds(other.stranger, encode_create2(artifact.bytecode), to=CREATE2_PROXY)
        assert other.rpc("eth_getCode", str(address), "latest") == "0x" + artifact.runtime_bytecode.hex()
        assert not other.succeeds(other.stranger, encode_create2(artifact.bytecode), to=CREATE2_PROXY)
    # The preinstalled chain has the very same code.
    for address in (HTLC_ADDRESS, TEST_TOKEN_ADDRESS, CREATE2_PROXY):
        assert bench.rpc("eth_getCode", str(address), "latest") == other.rpc("eth_getCode", str(address), "latest")
    other.close()


def test_ids_and_digests_name_the_chain_that_they_run_on(bench):
    other = bench.another(
        EmbeddedEvm(
            clock=bench.clock, chain_id=7, block_time_s=None, in_thread=False, balances={bench.stranger.address: 10**20}
        )
    )
    lock = other.lock()
    assert lock.chain_id == 7
    fields = (lock.preimage_hash, lock.amount, lock.token, lock.claimer, lock.refunder, lock.timelock)
    data = encode_call("lockId(bytes32,uint256,address,address,address,uint256)", *fields)
    assert other.simulate(other.stranger, data) == lock.lock_id
    data = encode_call("refundDigest(bytes32)", lock.lock_id)
    assert other.simulate(other.stranger, data) == cooperative_refund_digest(lock)
    for each in (bench, other):
        separator = each.simulate(each.stranger, encode_call("DOMAIN_SEPARATOR()"))
        assert separator == each.lock().domain_separator
    other.close()


def test_the_gas_limits_leave_as_much_again(bench):
    preimage = bench.fresh_preimage()
    fresh = EvmAddress(raw=b"\x61" * 20)
    claimed = bench.lock(preimage, claimer=fresh)
    refunded = bench.lock(refunder=EvmAddress(raw=b"\x62" * 20), timelock=bench.next_timestamp + 20)
    given_up = bench.lock(refunder=EvmAddress(raw=b"\x63" * 20))
    consent = bench.claimer.sign(cooperative_refund_digest(given_up))
    used = {}
    for lock in (claimed, refunded, given_up):
        used.setdefault(LOCK_GAS, []).append(bench.send(bench.payer, encode_lock(lock)))
    used[CLAIM_GAS] = [bench.send(bench.stranger, encode_claim(claimed, preimage))]
    used[REFUND_COOPERATIVE_GAS] = [bench.send(bench.stranger, encode_refund_cooperative(given_up, consent))]
    bench.clock.now_s = refunded.timelock
    used.setdefault(REFUND_GAS, []).append(bench.send(bench.stranger, encode_refund(refunded)))
    for limit, receipts in used.items():
        for receipt in receipts:
            assert receipt["status"] == "0x1"
            assert 2 * int(receipt["gasUsed"], 16) <= limit
