#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize gas
"""
@title TestToken: bitcoin with 8 decimals for development networks
@license MIT
@notice Anybody can mint any amount: it is worth nothing and is deployed on development networks only.
"""

from ethereum.ercs import IERC20

implements: IERC20


name: public(constant(String[10])) = "Devnet BTC"
symbol: public(constant(String[4])) = "dBTC"
decimals: public(constant(uint8)) = 8

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])


@external
def mint(to: address, amount: uint256):
    """
    @notice Make `amount` out of nothing.
    """
    self.totalSupply += amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=empty(address), receiver=to, value=amount)


@internal
def _move(sender: address, receiver: address, amount: uint256):
    assert receiver != empty(address), "zero receiver"
    assert self.balanceOf[sender] >= amount, "balance too low"
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount
    log IERC20.Transfer(sender=sender, receiver=receiver, value=amount)


@external
def transfer(_to: address, _value: uint256) -> bool:
    """
    @notice Move `_value` from the caller to `_to`.
    """
    self._move(msg.sender, _to, _value)
    return True


@external
def transferFrom(_from: address, _to: address, _value: uint256) -> bool:
    """
    @notice Move `_value` from `_from` to `_to`, out of the caller's allowance; the highest allowance is never used up.
    """
    allowed: uint256 = self.allowance[_from][msg.sender]
    assert allowed >= _value, "allowance too low"
    if allowed != max_value(uint256):
        self.allowance[_from][msg.sender] = allowed - _value
    self._move(_from, _to, _value)
    return True


@external
def approve(_spender: address, _value: uint256) -> bool:
    """
    @notice Let `_spender` move up to `_value` of the caller's tokens.
    """
    self.allowance[msg.sender][_spender] = _value
    log IERC20.Approval(owner=msg.sender, spender=_spender, value=_value)
    return True
