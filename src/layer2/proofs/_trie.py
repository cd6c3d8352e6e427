"""Merkle-Patricia tries, both ways: check a proof strictly, or build a whole trie and cut proofs out of it.

A proof is the list of hashed nodes on the path of one key, root first. What is accepted is exactly that list: every
node canonical RLP, bound to its parent by its hash, none missing, none left over, none out of order. Nodes whose RLP is
shorter than 32 bytes are embedded in their parent and never listed (Yellow Paper, appendix D; EIP-1186).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from layer2._crypto import keccak256
from layer2._rlp import Item, RlpError, decode, encode
from layer2.errors import ProofError

__all__ = ["EMPTY_ROOT", "MAX_NODES", "MAX_PROOF_BYTES", "Trie", "verify_trie_proof"]

EMPTY_ROOT: Final = keccak256(b"\x80")
"""Root of a trie without entries."""
MAX_NODES: Final = 65
"""Longest proof looked at: a path of 64 nibbles and the node that ends it."""
MAX_PROOF_BYTES: Final = 1 << 20
"""Most bytes of nodes looked at in one proof."""


def verify_trie_proof(root: bytes, key: bytes, nodes: Sequence[bytes], *, check: str = "trie") -> bytes | None:
    """What the trie with ``root`` holds under ``key``: its value, or None where the nodes prove that there is none.

    ``key`` is the key as it stands in the trie (already hashed for account and storage tries). An empty list proves an
    absence under ``EMPTY_ROOT`` alone.

    Raises:
        ProofError: the nodes are not exactly the path of the key under that root; ``check`` is its name.
    """
    if len(root) != 32:
        raise ProofError(f"a trie root has 32 bytes, not {len(root)}", check=check)
    if len(nodes) > MAX_NODES or sum(map(len, nodes)) > MAX_PROOF_BYTES:
        raise ProofError(f"a trie proof has at most {MAX_NODES} nodes and {MAX_PROOF_BYTES} bytes", check=check)
    if not nodes and root == EMPTY_ROOT:
        return None
    path = key.hex()
    used = 0
    reference: Item | None = root
    value: bytes | None = None
    after_extension = False
    while reference is not None:
        if isinstance(reference, bytes):
            if used == len(nodes):
                raise ProofError(f"the proof ends after {used} nodes, before the path of the key does", check=check)
            node = _open(nodes[used], reference, is_root=used == 0, check=check, index=used)
            used += 1
        else:
            node = reference
        if after_extension and len(node) != 17:
            raise ProofError(f"node {used - 1}: an extension leads to something other than a branch", check=check)
        after_extension = len(node) == 2
        try:
            reference, path, value = _descend(node, path)
        except RlpError as error:
            raise ProofError(f"node {used - 1}: {error}", check=check) from error
    if used != len(nodes):
        raise ProofError(f"{len(nodes) - used} nodes after the end of the path", check=check)
    return value


def _open(raw: bytes, expected: bytes, *, is_root: bool, check: str, index: int) -> Item:
    if keccak256(raw) != expected:
        what = "the root" if is_root else "the hash in its parent"
        raise ProofError(f"node {index} does not hash to {what}", check=check)
    if len(raw) < 32 and not is_root:
        raise ProofError(f"node {index} is shorter than 32 bytes and would be embedded in its parent", check=check)
    try:
        return decode(raw)
    except RlpError as error:
        raise ProofError(f"node {index} is not canonical RLP: {error}", check=check) from error


def _descend(node: Item, path: str) -> tuple[Item | None, str, bytes | None]:
    """One node down: what it refers to and the rest of the path, or None and the value (None: absent) where it ends."""
    if node == b"":
        return None, "", None
    if isinstance(node, bytes) or len(node) not in (2, 17):
        raise RlpError("a trie node is a list of 2 or 17 items")
    if len(node) == 2:
        return _descend_short(node, path)
    *children, value = node
    for child in children:
        _check_reference(child)
    if isinstance(value, list):
        raise RlpError("the value of a branch is a list")
    if sum(map(bool, node)) < 2:
        raise RlpError("a branch with fewer than two entries")
    if not path:
        return None, "", value or None
    child = children[int(path[0], 16)]
    return (child, path[1:], None) if child else (None, "", None)


def _descend_short(node: list[Item], path: str) -> tuple[Item | None, str, bytes | None]:
    partial, target = node
    if isinstance(partial, list) or not partial:
        raise RlpError("the path of a node is a list or empty")
    digits = partial.hex()
    flag = int(digits[0], 16)
    if flag > 3 or (flag % 2 == 0 and digits[1] != "0"):
        raise RlpError("the path of a node has an unknown prefix")
    segment = digits[1:] if flag % 2 else digits[2:]
    if flag >= 2:
        if isinstance(target, list) or not target:
            raise RlpError("the value of a leaf is a list or empty")
        return None, "", target if segment == path else None
    if not segment or not target:
        raise RlpError("an extension without path or target")
    _check_reference(target)
    return (target, path[len(segment) :], None) if path.startswith(segment) else (None, "", None)


def _check_reference(item: Item) -> None:
    if isinstance(item, bytes):
        if len(item) not in (0, 32):
            raise RlpError(f"a reference of {len(item)} bytes")
    elif len(encode(item)) >= 32:
        raise RlpError("an embedded node of 32 bytes or more")


class Trie:
    """A whole trie, built at once from its entries. Values are never empty: in a trie that would mean absence.

    Raises:
        ProofError: an empty value.
    """

    def __init__(self, entries: Mapping[bytes, bytes]) -> None:
        self._nodes: dict[bytes, bytes] = {}
        pairs = sorted((key.hex(), value) for key, value in entries.items())
        if not all(value for _, value in pairs):
            raise ProofError("an entry of a trie is never empty", check="trie")
        self.root: bytes = self._store(encode(self._build(pairs, 0))) if pairs else EMPTY_ROOT

    def prove(self, key: bytes) -> tuple[bytes, ...]:
        """The nodes on the path of ``key``, which need not be there: the proof then shows its absence."""
        nodes: list[bytes] = []
        path = key.hex()
        reference: Item | None = self.root if self._nodes else None
        while reference is not None:
            if isinstance(reference, bytes):
                nodes.append(self._nodes[reference])
                reference = decode(nodes[-1])
            reference, path, _ = _descend(reference, path)
        return tuple(nodes)

    def _store(self, raw: bytes) -> bytes:
        digest = keccak256(raw)
        self._nodes[digest] = raw
        return digest

    def _refer(self, node: Item) -> Item:
        raw = encode(node)
        return node if len(raw) < 32 else self._store(raw)

    def _build(self, pairs: Sequence[tuple[str, bytes]], depth: int) -> Item:
        first, last = pairs[0][0], pairs[-1][0]
        if len(pairs) == 1:
            return [_partial(first[depth:], leaf=True), pairs[0][1]]
        shared = depth
        while shared < len(first) and first[shared] == last[shared]:
            shared += 1
        if shared > depth:
            return [_partial(first[depth:shared], leaf=False), self._refer(self._build(pairs, shared))]
        branch: list[Item] = [b""] * 17
        if len(first) == depth:
            branch[16] = pairs[0][1]
            pairs = pairs[1:]
        for digit in {key[depth] for key, _ in pairs}:
            below = [pair for pair in pairs if pair[0][depth] == digit]
            branch[int(digit, 16)] = self._refer(self._build(below, depth + 1))
        return branch


def _partial(digits: str, *, leaf: bool) -> bytes:
    flag = 2 if leaf else 0
    return bytes.fromhex(f"{flag + 1:x}{digits}" if len(digits) % 2 else f"{flag:x}0{digits}")
