"""Errors as strangers see them: RFC 9457, with nothing in it about our balances, nodes or insides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from layer2.errors import (
    AsyncTimeout,
    FeeLimitExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    NodeError,
    NotFound,
    SwapRefused,
)
from layer2.provider._turns import Busy
from layer2.swaps import Problem

__all__ = ["ProblemResponse", "invalid", "problem_of", "too_often"]

RETRY_AFTER_S: Final = 10
"""After which time to come back when it is our node, chain or account that fails."""

logger: Final = logging.getLogger("layer2.provider")


class ProblemResponse(Response):
    """``application/problem+json``."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        rule: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.problem = Problem(title=title, status=status, detail=detail, rule=rule, field=field)
        super().__init__(self.problem.model_dump_json(exclude_none=True), status, headers)


def too_often(wait_s: int) -> ProblemResponse:
    """A stranger has used up its share."""
    return ProblemResponse(
        429,
        "Too many requests",
        f"this address has asked too often; ask again in {wait_s} s",
        headers={"Retry-After": str(wait_s)},
    )


def invalid(errors: Sequence[Any]) -> ProblemResponse:
    """A body or parameter that is not what the interface says. Names the first field that is wrong, never its value."""
    first = errors[0] if errors else {"loc": (), "msg": "it is malformed"}
    path = [str(part) for part in first["loc"] if part != "body"]
    field = ".".join(path) or None
    return ProblemResponse(
        400, "Malformed request", f"{field or 'the body'}: {first['msg']}", rule="validation", field=field
    )


def problem_of(error: Exception) -> ProblemResponse:
    """What is told of an error that came up while a request was answered. What is ours is logged."""
    match error:
        case SwapRefused():
            return ProblemResponse(422, "Swap refused", error.message, rule=error.rule)
        case NotFound():
            return ProblemResponse(404, "Not found", "no swap has this id")
        case IdempotencyConflict():
            return ProblemResponse(422, "Swap refused", "the payment hash was used before", rule="hash")
        case InsufficientFunds() | FeeLimitExceeded():
            logger.error("provider: cannot pay for gas: %s", error, extra={"event_code": "provider.gas_short"})
            return _unavailable("the provider cannot take this swap now", rule="gas")
        case Busy():
            return _unavailable(f"{error.message}; ask again", rule="busy")
        case NodeError() | AsyncTimeout():
            name = type(error).__name__
            logger.warning("provider: a node failed: %s", error, extra={"event_code": "provider.node_failed"})
            return _unavailable(f"the provider's node does not answer now ({name})", rule=None)
        case _:
            logger.error(
                "provider: a request failed: %s",
                type(error).__name__,
                exc_info=error,
                extra={"event_code": "provider.request_failed"},
            )
            return ProblemResponse(500, "Internal error", "the provider failed; what happened is in its log")


def _unavailable(detail: str, *, rule: str | None) -> ProblemResponse:
    return ProblemResponse(503, "Not available now", detail, rule=rule, headers={"Retry-After": str(RETRY_AFTER_S)})
