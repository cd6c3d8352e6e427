"""What the exit codes mean, and which error has which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from layer2 import errors

__all__ = ["ExitCode", "code_for", "table_of_codes"]


class ExitCode(IntEnum):
    """Exit codes of every command. They are part of the published interface."""

    OK = 0
    UNEXPECTED = 1
    """An error that nobody foresaw; ``--debug`` shows where."""
    USAGE = 2
    """An argument cannot be right. Nothing was sent."""
    CONFIGURATION = 3
    """A setting, the signer or an installed package is missing or wrong."""
    CONNECTION = 4
    """A node, an endpoint or the provider does not answer, or is not ready."""
    REFUSED = 5
    """Refused, too expensive, expired, or not enough funds: nothing was bound, or it failed for certain."""
    REFUNDED = 6
    """The transfer failed and the money is back."""
    UNFINISHED = 7
    """The outcome is not known yet: it goes on. What was printed says by when layer2 must run again."""
    NOT_VERIFIED = 8
    """The proof does not verify, or not every check could be made."""
    STORE_IN_USE = 9
    """Another process has the store open for writing."""
    NOT_FOUND = 10
    """No such transfer, invoice, transaction or contract."""
    STORAGE = 11
    """The store could not be read or written."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


_CODES: Final[tuple[tuple[type[errors.Layer2Error], ExitCode], ...]] = (
    (errors.ProofError, ExitCode.NOT_VERIFIED),
    (errors.ValidationError, ExitCode.USAGE),
    (errors.ConfigurationError, ExitCode.CONFIGURATION),
    (errors.SignerError, ExitCode.CONFIGURATION),
    (errors.NodeError, ExitCode.CONNECTION),
    (errors.SwapRefunded, ExitCode.REFUNDED),
    (errors.SwapError, ExitCode.REFUSED),
    (errors.InsufficientFunds, ExitCode.REFUSED),
    (errors.NoRoute, ExitCode.REFUSED),
    (errors.FeeLimitExceeded, ExitCode.REFUSED),
    (errors.Expired, ExitCode.REFUSED),
    (errors.Reverted, ExitCode.REFUSED),
    (errors.PaymentFailed, ExitCode.REFUSED),
    (errors.IdempotencyConflict, ExitCode.REFUSED),
    (errors.AsyncTimeout, ExitCode.UNFINISHED),
    (errors.TaskCancelled, ExitCode.UNFINISHED),
    (errors.UnknownOutcome, ExitCode.UNFINISHED),
    (errors.StoreInUse, ExitCode.STORE_IN_USE),
    (errors.StorageError, ExitCode.STORAGE),
    (errors.NotFound, ExitCode.NOT_FOUND),
)


def code_for(error: BaseException) -> ExitCode:
    """The exit code of an error."""
    if isinstance(error, errors.InitializationError):
        codes = [code_for(failure) for failure in error.failures.values()]
        return min(codes, default=ExitCode.CONNECTION)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.UNEXPECTED


def table_of_codes() -> str:
    """The codes as text for the help page."""
    return "  ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
