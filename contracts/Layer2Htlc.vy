#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize gas
"""
@title Layer2Htlc: hash-time-locks for ERC-20 tokens
@license MIT
@notice A lock pays its claimer against the SHA-256 preimage of its hash. From its timelock on anybody can have it paid back to
        its refunder; before that, only the claimer's signature can.
@dev    The id of a lock commits to all of its parameters, and one storage slot per id is kept for ever:
            0       never locked
            1       locked
            2       refunded
            else    claimed; the value is the preimage
        So one call or one storage proof shows both that a lock was claimed and with which preimage, and no id is locked twice.

        The contract has no owner, constructor argument or immutable: its address commits to everything it can do.

        The language has no custom errors; reverts carry the selectors that they would have (`Name()`, four bytes).
"""

from ethereum.ercs import IERC20


event Lockup:
    lockId: indexed(bytes32)
    preimageHash: indexed(bytes32)
    claimer: indexed(address)
    amount: uint256
    token: address
    refunder: address
    timelock: uint256


event Claim:
    lockId: indexed(bytes32)
    preimageHash: indexed(bytes32)
    preimage: bytes32


event Refund:
    lockId: indexed(bytes32)
    preimageHash: indexed(bytes32)


NEVER: constant(uint256) = 0
LOCKED: constant(uint256) = 1
REFUNDED: constant(uint256) = 2

MAX_TIMELOCK_S: constant(uint256) = 60 * 24 * 60 * 60

# EIP-2: of the two s that verify, only the lower is accepted, so that a signature has one form. n is the order of secp256k1.
MAX_S: constant(uint256) = 115792089237316195423570985008687907852837564279074904382605163141518161494337 // 2

DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
NAME_HASH: constant(bytes32) = keccak256("layer2")
VERSION_HASH: constant(bytes32) = keccak256("1")
REFUND_TYPE_HASH: constant(bytes32) = keccak256("Refund(bytes32 lockId)")


# Must stay the first variable: proofs read it at slot 0. The lock of `nonreentrant` lives in transient storage.
_states: HashMap[bytes32, uint256]


@internal
@view
def _lock_id(
    preimage_hash: bytes32, amount: uint256, token: address, claimer: address, refunder: address, timelock: uint256
) -> bytes32:
    return keccak256(abi_encode(chain.id, self, preimage_hash, amount, token, claimer, refunder, timelock))


@internal
@view
def _domain_separator() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE_HASH, NAME_HASH, VERSION_HASH, chain.id, self))


@internal
@view
def _refund_digest(lock_id: bytes32) -> bytes32:
    return keccak256(
        concat(b"\x19\x01", self._domain_separator(), keccak256(abi_encode(REFUND_TYPE_HASH, lock_id)))
    )


@internal
def _pay_back(lock_id: bytes32, preimage_hash: bytes32, amount: uint256, token: address, refunder: address):
    if self._states[lock_id] != LOCKED:
        raw_revert(method_id("NotLocked()"))
    self._states[lock_id] = REFUNDED
    log Refund(lockId=lock_id, preimageHash=preimage_hash)
    if not extcall IERC20(token).transfer(refunder, amount, default_return_value=True):
        raw_revert(method_id("TransferFailed()"))


@external
@nonreentrant
def lock(
    preimageHash: bytes32, amount: uint256, token: address, claimer: address, refunder: address, timelock: uint256
):
    """
    @notice Pull `amount` of `token` from the caller and lock it.
    @param preimageHash SHA-256 of the preimage
    @param claimer Who is paid against the preimage
    @param refunder Who is paid back; need not be the caller
    @param timelock Unix seconds from which the lock can be refunded; at most 60 days ahead
    """
    if amount == 0:
        raw_revert(method_id("ZeroAmount()"))
    if claimer == empty(address) or claimer == self:
        raw_revert(method_id("BadClaimer()"))
    if refunder == empty(address) or refunder == self:
        raw_revert(method_id("BadRefunder()"))
    if timelock <= block.timestamp:
        raw_revert(method_id("TimelockPassed()"))
    if timelock - block.timestamp > MAX_TIMELOCK_S:
        raw_revert(method_id("TimelockTooFar()"))
    if not token.is_contract:
        raw_revert(method_id("TokenWithoutCode()"))

    lock_id: bytes32 = self._lock_id(preimageHash, amount, token, claimer, refunder, timelock)
    if self._states[lock_id] != NEVER:
        raw_revert(method_id("AlreadyUsed()"))
    self._states[lock_id] = LOCKED
    log Lockup(
        lockId=lock_id,
        preimageHash=preimageHash,
        claimer=claimer,
        amount=amount,
        token=token,
        refunder=refunder,
        timelock=timelock,
    )

    before: uint256 = staticcall IERC20(token).balanceOf(self)
    if not extcall IERC20(token).transferFrom(msg.sender, self, amount, default_return_value=True):
        raw_revert(method_id("TransferFailed()"))
    pulled: uint256 = unsafe_sub(staticcall IERC20(token).balanceOf(self), before)
    if pulled != amount:
        raw_revert(method_id("WrongAmountPulled()"))


@external
@nonreentrant
def claim(preimage: bytes32, amount: uint256, token: address, claimer: address, refunder: address, timelock: uint256):
    """
    @notice Pay a lock to its claimer. Anybody may call this; it works until the lock is refunded.
    @param preimage What the lock's hash is the SHA-256 of
    """
    value: uint256 = convert(preimage, uint256)
    if value <= REFUNDED:
        raw_revert(method_id("BadPreimage()"))
    preimage_hash: bytes32 = sha256(preimage)
    lock_id: bytes32 = self._lock_id(preimage_hash, amount, token, claimer, refunder, timelock)
    if self._states[lock_id] != LOCKED:
        raw_revert(method_id("NotLocked()"))
    self._states[lock_id] = value
    log Claim(lockId=lock_id, preimageHash=preimage_hash, preimage=preimage)
    if not extcall IERC20(token).transfer(claimer, amount, default_return_value=True):
        raw_revert(method_id("TransferFailed()"))


@external
@nonreentrant
def refund(
    preimageHash: bytes32, amount: uint256, token: address, claimer: address, refunder: address, timelock: uint256
):
    """
    @notice Pay a lock back to its refunder. Anybody may call this from the first block whose timestamp is not below `timelock`.
    """
    if block.timestamp < timelock:
        raw_revert(method_id("TimelockNotPassed()"))
    lock_id: bytes32 = self._lock_id(preimageHash, amount, token, claimer, refunder, timelock)
    self._pay_back(lock_id, preimageHash, amount, token, refunder)


@external
@nonreentrant
def refundCooperative(
    preimageHash: bytes32,
    amount: uint256,
    token: address,
    claimer: address,
    refunder: address,
    timelock: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice Pay a lock back to its refunder at any time, with the claimer's consent. Anybody may call this.
    @param v 27 or 28; with `r` and `s` the claimer's signature of `refundDigest(lockId)`
    """
    lock_id: bytes32 = self._lock_id(preimageHash, amount, token, claimer, refunder, timelock)
    if (v != 27 and v != 28) or convert(s, uint256) > MAX_S:
        raw_revert(method_id("BadSignature()"))
    signer: address = ecrecover(self._refund_digest(lock_id), v, r, s)
    if signer == empty(address) or signer != claimer:
        raw_revert(method_id("BadSignature()"))
    self._pay_back(lock_id, preimageHash, amount, token, refunder)


@external
@view
def status(lockId: bytes32) -> bytes32:
    """
    @notice 0 never locked, 1 locked, 2 refunded, else the preimage with which the lock was claimed.
    """
    return convert(self._states[lockId], bytes32)


@external
@view
def lockId(
    preimageHash: bytes32, amount: uint256, token: address, claimer: address, refunder: address, timelock: uint256
) -> bytes32:
    """
    @notice keccak256(abi.encode(chainid, this contract, preimageHash, amount, token, claimer, refunder, timelock))
    """
    return self._lock_id(preimageHash, amount, token, claimer, refunder, timelock)


@external
@view
def refundDigest(lockId: bytes32) -> bytes32:
    """
    @notice The EIP-712 digest that the claimer signs to let a lock be paid back early: `Refund(bytes32 lockId)`.
    """
    return self._refund_digest(lockId)


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice EIP-712 domain: name "layer2", version "1", chain id, this contract.
    """
    return self._domain_separator()
