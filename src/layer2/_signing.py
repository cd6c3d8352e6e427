"""Every call of a signer goes through here: it is the caller's own, and may fail in any way, give anything, or never answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final

from layer2.addresses import EvmAddress
from layer2.errors import SignerError
from layer2.protocol import Signer

__all__ = ["SIGNER_TIMEOUT_S", "derive_secret", "sign_digest", "signer_address"]

SIGNER_TIMEOUT_S: Final = 120.0
"""How long a signer may take for one call: a person may have to press a button on a device."""


def signer_address(signer: Signer) -> EvmAddress:
    """The account that a signer signs for.

    Raises:
        SignerError: it does not say.
    """
    try:
        address: object = signer.address
    except SignerError:
        raise
    except Exception as error:
        raise _translated("telling its account", error) from error
    if not isinstance(address, EvmAddress):
        raise SignerError(f"the signer's address is an EvmAddress, not {type(address).__name__}")
    return address


async def sign_digest(signer: Signer, digest: bytes) -> bytes:
    """``signer.sign_digest``, as it should be.

    Raises:
        SignerError: it failed, took too long, or gave no signature. Nothing was sent, since there is nothing to send.
    """
    signature = await _answer("signing", lambda: signer.sign_digest(digest))
    if len(signature) != 65:
        raise SignerError(f"the signer gave {len(signature)} bytes instead of a signature of 65")
    return signature


async def derive_secret(signer: Signer, label: bytes) -> bytes:
    """``signer.derive_secret``, as it should be.

    Raises:
        SignerError: it failed, took too long, or gave no secret.
    """
    secret = await _answer("deriving a secret", lambda: signer.derive_secret(label))
    if len(secret) != 32:
        raise SignerError("the signer gave no secret of 32 bytes")
    return secret


async def _answer(what: str, call: Callable[[], Awaitable[bytes]]) -> bytes:
    # A limit needs a task to cancel; what is driven by hand, step by step, has none.
    limit = None if asyncio.current_task() is None else asyncio.timeout(SIGNER_TIMEOUT_S)
    try:
        async with limit or nullcontext():
            answer: object = await call()
    except SignerError:
        raise
    except TimeoutError as error:
        if limit is None or not limit.expired():
            raise _translated(what, error) from error
        raise SignerError(
            f"{what}: the signer did not answer within {SIGNER_TIMEOUT_S:g} s",
            hint="nothing was sent; unlock or confirm on the device, and try again",
        ) from error
    except Exception as error:
        raise _translated(what, error) from error
    if not isinstance(answer, bytes):
        raise SignerError(f"{what}: the signer gave {type(answer).__name__} instead of bytes")
    return answer


def _translated(what: str, error: Exception) -> SignerError:
    """Only the kind of what came out is shown: its text may hold what must stay secret. The cause has it all."""
    return SignerError(f"{what}: the signer failed with {type(error).__name__}", hint="nothing was sent; see the cause")
