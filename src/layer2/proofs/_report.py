"""What a verifier found: every check by name, what had to be trusted, and what was not shown at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, Self

from layer2._values import Value
from layer2.errors import ProofError

__all__ = ["Check", "CheckResult", "Report"]


class CheckResult(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "unchecked"
    """It is needed, and could not be made with what the caller gave."""
    SKIPPED = "skipped"
    """It is not needed: the caller asked for nothing here, or the proof has no such part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Value):
    """One check."""

    name: str
    result: CheckResult
    reason: str
    """What was found, or why it failed or was not made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Value):
    """All checks of one proof, in the order in which they were made."""

    checks: tuple[Check, ...]
    trusted: tuple[str, ...]
    """What the result rests on, besides the proof itself."""
    notes: tuple[str, ...]
    """What is claimed or could be thought, and is not proved."""

    @property
    def ok(self) -> bool:
        """Every check that is needed was made and passed."""
        return not self.failed and not self.unchecked

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that were made and did not pass."""
        return self._of(CheckResult.FAILED)

    @property
    def unchecked(self) -> tuple[Check, ...]:
        """The checks that are needed and could not be made."""
        return self._of(CheckResult.UNCHECKED)

    def _of(self, result: CheckResult) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.result is result)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def __bool__(self) -> NoReturn:
        raise TypeError("a Report is neither true nor false: ask .ok, .failed or .unchecked")

    def verdict(self) -> bool:
        """True if every check holds, False if one was made and failed.

        Raises:
            ProofError: none failed, but not all could be made; ``check`` is the first of them.
        """
        if self.failed:
            return False
        for check in self.unchecked:
            raise ProofError(f"{check.name} could not be checked: {check.reason}", check=check.name)
        return True

    def raise_if_failed(self) -> Self:
        """Give the report back if every check holds.

        Raises:
            ProofError: one failed or could not be made; ``check`` is the first of them.
        """
        for check in self.failed:
            raise ProofError(f"{check.name} failed: {check.reason}", check=check.name)
        self.verdict()
        return self
