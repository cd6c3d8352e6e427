#pragma version 0.4.3
# A token that can be told to misbehave.

balanceOf: public(HashMap[address, uint256])

# What transfers answer: 1 is true, 0 is false, anything else is no bool.
answer: public(uint256)
# Moved on top of, or short of, what was asked for.
extra: public(uint256)
short: public(uint256)
# Called in the middle of every transfer.
target: public(address)
data: public(Bytes[1024])
attempts: public(uint256)
successes: public(uint256)


@deploy
def __init__():
    self.answer = 1


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def configure(answer: uint256, extra: uint256, short: uint256):
    self.answer = answer
    self.extra = extra
    self.short = short


@external
def arm(target: address, data: Bytes[1024]):
    self.target = target
    self.data = data
    self.attempts = 0
    self.successes = 0


@internal
def _move(sender: address, receiver: address, amount: uint256):
    if self.target != empty(address):
        self.attempts += 1
        done: bool = raw_call(self.target, self.data, revert_on_failure=False)
        if done:
            self.successes += 1
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] = self.balanceOf[receiver] + amount + self.extra - self.short


@external
def transfer(to: address, amount: uint256) -> uint256:
    self._move(msg.sender, to, amount)
    return self.answer


@external
def transferFrom(sender: address, to: address, amount: uint256) -> uint256:
    self._move(sender, to, amount)
    return self.answer
