"""Proofs as files, and beside each the blocks that whoever made it knew to be of the chain."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from layer2 import BTC, AssetForm, ConfigurationError, Depth, EvmAddress, Layer2Error, ProofError, ValidationError
from layer2.proofs import TransferProof

if TYPE_CHECKING:
    from layer2 import Layer2Manager

__all__ = [
    "Anchors",
    "ProofFiles",
    "block_hash",
    "check_place",
    "read_anchors",
    "read_proof",
    "sidecar_of",
    "write_proof",
]

KIND: Final = "layer2.trusted_blocks"
MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFiles:
    """What was written."""

    proof: Path
    trusted: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """What a verifier is to believe: blocks with the depth at which they are known, and which token is BTC."""

    blocks: dict[bytes, Depth]
    tokens: tuple[AssetForm, ...] = ()
    origin: Path | None = None


def sidecar_of(path: Path) -> Path:
    """Where the anchors of a proof lie by default."""
    return path.with_name(path.name.removesuffix(".json") + ".trusted.json")


async def check_place(path: Path) -> None:
    """Whether a proof can be written there, as far as that can be known before there is one.

    Raises:
        ValidationError: it cannot.
    """
    try:
        await asyncio.to_thread(_check_place, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValidationError(
            f"no proof can be written to {str(path)!r:.200}: {reason}", field="--proof", hint="give the name of a file"
        ) from error


def _check_place(path: Path) -> None:
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    for file in (path, sidecar_of(path)):
        _check_free(file)
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} is not yours to write to")


async def write_proof(manager: Layer2Manager, proof: TransferProof, path: Path, *, decimals: int) -> ProofFiles:
    """Check a proof against our own node, then write it, and its blocks beside it. ``decimals`` are those of its token.

    Raises:
        ProofError: it does not verify. ConfigurationError: a file cannot be written, or a link lies at its place.
    """
    report = await manager.check_cross_layer_proof_async(proof)
    report.raise_if_failed()
    lock = proof.terms.lock
    trusted = {
        "kind": KIND,
        "version": 1,
        "chain_id": lock.chain_id,
        "blocks": [
            {"hash": f"0x{block.hash.hex()}", "number": block.number, "depth": proof.depth.name.lower()}
            for block in proof.blocks
        ],
        "tokens": [{"asset": BTC.name, "contract": str(lock.token), "decimals": decimals}],
    }
    files = ProofFiles(proof=path, trusted=sidecar_of(path))
    await asyncio.to_thread(_write, files, proof.to_json(), json.dumps(trusted, indent=2) + "\n")
    return files


def _write(files: ProofFiles, proof: str, trusted: str) -> None:
    try:
        files.proof.parent.mkdir(parents=True, exist_ok=True)
        _put(files.proof, proof + "\n")
        _put(files.trusted, trusted)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {files.proof} and {files.trusted.name}: {error.strerror}", path=str(files.proof)
        ) from error


def _put(path: Path, text: str) -> None:
    """Write a file whole or not at all, for nobody but its owner to read, and over nothing but a file."""
    _check_free(path)
    fresh = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _check_free(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "what is there is a link, or no file")


def read_proof(path: Path) -> TransferProof:
    """A proof from its file.

    Raises:
        ValidationError: it cannot be read. ProofError: it is no transfer proof.
    """
    return TransferProof.from_json(_read(path))


def read_anchors(path: Path) -> Anchors:
    """Anchors from a file that ``write_proof`` wrote, or one of the same form.

    Raises:
        ValidationError: it cannot be read, or is of another form.
    """
    from pydantic_core import from_json

    text = _read(path)
    try:
        # The standard library's parser has no limit on nesting but the interpreter's, which py-evm raises beyond the C stack.
        content: Any = _of_our_kind(from_json(text))
        blocks = {
            block_hash(entry["hash"]): Depth[entry.get("depth", "included").upper()] for entry in content["blocks"]
        }
        tokens = tuple(_token(int(content["chain_id"]), entry) for entry in content.get("tokens", ()))
    except (KeyError, TypeError, ValueError, AttributeError, Layer2Error) as error:
        raise ValidationError(
            f"{path} is no file of trusted blocks",
            field="--trusted-blocks",
            hint="name the blocks yourself with --trust-block HASH",
        ) from error
    return Anchors(blocks=blocks, tokens=tokens, origin=path)


def _of_our_kind(content: Any) -> Any:
    if content["kind"] != KIND or content["version"] != 1:
        raise ValueError("another kind or version")
    return content


def _token(chain_id: int, entry: dict[str, Any]) -> AssetForm:
    if entry["asset"] != BTC.name:
        raise ValueError("only BTC is known")
    contract = EvmAddress.parse(entry["contract"])
    return AssetForm(asset=BTC, chain_id=chain_id, contract=contract, decimals=int(entry["decimals"]))


def block_hash(text: str) -> bytes:
    """32 bytes from hexadecimal digits, with or without ``0x``."""
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 32:
        raise ValueError("a block hash has 32 bytes")
    return raw


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValidationError(f"cannot read {path}: {error.strerror}", field="FILE") from error
    if len(content) > MAX_BYTES:
        raise ProofError(f"{path} is longer than {MAX_BYTES} bytes", check="format")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProofError(f"{path} is not text", check="format") from error
