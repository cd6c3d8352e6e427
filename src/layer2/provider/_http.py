"""The provider's HTTP interface: ``/v1``, health, metrics, and a page that describes them.

Resources, fields and statuses have the names of Boltz's v2 API where it has one for the same thing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from layer2.errors import Layer2Error, SwapRefused
from layer2.provider._events import EventStreams
from layer2.provider._gate import Gate
from layer2.provider._metrics import ProviderMetrics
from layer2.provider._problems import ProblemResponse, invalid, problem_of
from layer2.provider._rate import origin_of
from layer2.swaps import (
    Info,
    Pair,
    Problem,
    RefundResponse,
    ReverseRequest,
    SubmarineRequest,
    SwapResponse,
    SwapStatus,
)

if TYPE_CHECKING:
    from layer2 import Clock

__all__ = ["SwapService", "create_app"]

_SUMMARY: Final = "Swaps between Lightning and BOB, without trust: one SHA-256 hash locks both legs."
_DESCRIPTION: Final = """
**submarine** (BOB to Lightning): send the invoice that is to be paid, check the signed terms, lock `amount` in the HTLC contract
until `lockBy`. The provider pays the invoice and claims the lock with its preimage.

**reverse** (Lightning to BOB): make a preimage, send its hash, check the signed terms, pay their hold invoice. The provider locks;
claim that lock with the preimage before its timelock.

Amounts are decimal strings in the token's base unit (`...Msat`: millisatoshi), bytes are lower-case hexadecimal, times are Unix
seconds. Everything a client relies on is in the signed terms; statuses are information only. Errors are
`application/problem+json`; `rule` names the check that refused.
"""
METRICS_FOR_S: Final = 1.0
"""For so long their text is kept: writing it takes time that the swaps need."""

_M = TypeVar("_M", bound=BaseModel)
_REQUESTS: Final = (SubmarineRequest, ReverseRequest)


class SwapService(Protocol):
    """What the interface asks of a provider; ``ProviderService`` is one."""

    @property
    def version(self) -> str:
        """Of the software."""
        ...

    async def info(self) -> Info:
        """Who it is and what it offers."""
        ...

    async def create_submarine(self, request: SubmarineRequest, *, origin: str | None = None) -> SwapResponse:
        """Offer to pay an invoice."""
        ...

    async def create_reverse(self, request: ReverseRequest, *, origin: str | None = None) -> SwapResponse:
        """Offer a lock."""
        ...

    async def status(self, swap_id: str) -> SwapStatus:
        """Where a swap stands. Raises ``NotFound``."""
        ...

    def follow(self, swap_id: str) -> AsyncGenerator[SwapStatus, None]:
        """Where it stands, then each change, ending after a final state."""
        ...

    async def sign_refund(self, swap_id: str) -> bytes:
        """Consent to an early refund."""
        ...


async def _always_ready() -> Mapping[str, str]:
    return {}


def create_app(
    service: SwapService,
    *,
    clock: Clock,
    requests_per_minute: int = 60,
    ready: Callable[[], Awaitable[Mapping[str, str]]] = _always_ready,
    metrics: ProviderMetrics | None = None,
    streams: EventStreams | None = None,
) -> FastAPI:
    """An ASGI application over ``service``.

    Args:
        service: makes the offers.
        clock: for rate limits and keep-alive comments.
        requests_per_minute: swaps that one network address may ask for; it may read ten times as often.
        ready: what keeps the provider from working now, by name; empty if nothing does.
        metrics: counts; None: in a registry of its own.
        streams: the event streams, for whoever wants to close them.
    """
    metrics = metrics or ProviderMetrics()
    streams = streams or EventStreams(clock=clock, metrics=metrics)
    app = _App(
        title="layer2 swap provider",
        version=service.version,
        summary=_SUMMARY,
        description=_DESCRIPTION,
        redoc_url=None,
        license_info={"name": "MIT", "identifier": "MIT"},
        responses={code: {"model": Problem, "description": text} for code, text in _COMMON_ERRORS.items()},
    )
    app.add_middleware(Gate, clock=clock, requests_per_minute=requests_per_minute, metrics=metrics)
    app.include_router(_general(service))
    app.include_router(_swaps(service, streams))
    app.include_router(_operation(ready, metrics, clock))
    _handle_errors(app, metrics)
    return app


_COMMON_ERRORS: Final[dict[int | str, str]] = {
    429: "Asked too often; `Retry-After` says when to come back",
    503: "The provider cannot answer now; `Retry-After` says when to come back",
}
_CREATE_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "Malformed; `field` names what is wrong"},
    413: {"model": Problem, "description": "Longer than 64 KiB"},
    422: {"model": Problem, "description": "Refused; `rule` names the check"},
}
_UNKNOWN: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem, "description": "No swap has this id"}}


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"})


async def _body(request: Request, model: type[_M]) -> _M:
    # Read from the text itself: what stands as text in JSON (amounts, bytes) is another thing in Python.
    try:
        return model.model_validate_json(await request.body())
    except PydanticError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_context=False, include_input=False)
        ) from error


def _origin(request: Request) -> str:
    return origin_of(None if request.client is None else request.client.host)


def _takes(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _general(service: SwapService) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["provider"])

    @router.get("/version", summary="Version of the software")
    async def version() -> dict[str, str]:
        """The provider's software."""
        return {"version": service.version}

    @router.get("/info", summary="Who the provider is and what it offers", response_model=Info)
    async def info() -> Response:
        """Chain, contract, tokens, accounts, and both directions' prices, limits and timing."""
        return _json(await service.info())

    @router.get("/swap/submarine", summary="Price and limits: BOB to Lightning", response_model=Pair)
    async def submarine_pair() -> Response:
        """Send `hash` back with a request: if the pair changed in between, the request is refused."""
        return _json((await service.info()).submarine)

    @router.get("/swap/reverse", summary="Price and limits: Lightning to BOB", response_model=Pair)
    async def reverse_pair() -> Response:
        """Send `hash` back with a request: if the pair changed in between, the request is refused."""
        return _json((await service.info()).reverse)

    return router


def _swaps(service: SwapService, streams: EventStreams) -> APIRouter:
    router = APIRouter(prefix="/v1/swap", tags=["swaps"])

    @router.post(
        "/submarine",
        summary="Ask for an invoice to be paid against a lock",
        response_model=SwapResponse,
        responses=_CREATE_ERRORS,
        openapi_extra=_takes(SubmarineRequest),
    )
    async def create_submarine(request: Request) -> Response:
        """Signed terms. Check all of them before you lock; they bind nobody until the lock is seen, and hold until `lockBy`."""
        return _json(await service.create_submarine(await _body(request, SubmarineRequest), origin=_origin(request)))

    @router.post(
        "/reverse",
        summary="Ask for a lock against the payment of a hold invoice",
        response_model=SwapResponse,
        responses=_CREATE_ERRORS,
        openapi_extra=_takes(ReverseRequest),
    )
    async def create_reverse(request: Request) -> Response:
        """Signed terms with a hold invoice. Check all of them before you pay; `onchainAmount` is what is to arrive."""
        return _json(await service.create_reverse(await _body(request, ReverseRequest), origin=_origin(request)))

    @router.get(
        "/submarine/{swap_id}/refund",
        summary="The provider's consent to an early refund",
        response_model=RefundResponse,
        responses={**_UNKNOWN, 422: {"model": Problem, "description": "The payment is not dead for certain"}},
    )
    async def refund(swap_id: str) -> Response:
        """An EIP-712 signature for `refundCooperative`, once the invoice will never be paid by the provider."""
        return _json(RefundResponse(signature=await service.sign_refund(swap_id)))

    @router.get("/{swap_id}", summary="Where a swap stands", response_model=SwapStatus, responses=_UNKNOWN)
    async def status(swap_id: str) -> Response:
        """The status by Boltz's names. Expect unknown ones, and unknown fields: either may be added."""
        return _json(await service.status(swap_id))

    @router.get(
        "/{swap_id}/events",
        summary="Where a swap stands, now and after each change",
        response_class=Response,
        responses={
            **_UNKNOWN,
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "`update` events"},
        },
    )
    async def events(swap_id: str) -> Response:
        """Server-sent events named `update`, each with a status as its data.

        The first is the status now. The stream ends after the last, or when the provider stops: then ask again.
        """
        await service.status(swap_id)
        return streams.respond(service.follow(swap_id))

    return router


def _operation(ready: Callable[[], Awaitable[Mapping[str, str]]], metrics: ProviderMetrics, clock: Clock) -> APIRouter:
    written: tuple[float, bytes] | None = None
    router = APIRouter(tags=["operation"])

    @router.get("/v1/health/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        """Always, while it does."""
        return {"status": "ok"}

    @router.get("/v1/health/ready", summary="Whether new swaps can be made")
    async def health_ready() -> Response:
        """200 if they can; 503 with the parts that prevent it otherwise."""
        problems = await ready()
        body = {"status": "unavailable" if problems else "ok", "problems": dict(problems)}
        return JSONResponse(body, 503 if problems else 200, {"Cache-Control": "no-store"})

    @router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics_text() -> Response:
        """Prometheus' text format, up to a second old. Keep it behind the proxy if the volume of business is nobody's business."""
        nonlocal written
        now_s = clock.monotonic_s()
        if written is None or now_s - written[0] >= METRICS_FOR_S:
            written = now_s, metrics.text()
        return Response(written[1], headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


def _handle_errors(app: FastAPI, metrics: ProviderMetrics) -> None:
    async def ours(_: Request, error: Exception) -> Response:
        if isinstance(error, SwapRefused):
            metrics.refused(error.rule)
        return problem_of(error)

    async def malformed(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return invalid(error.errors())

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return ProblemResponse(error.status_code, error.detail, f"{error.detail}; see /docs", headers=error.headers)

    app.add_exception_handler(Layer2Error, ours)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        schema = self.openapi_schema or _schema(self)
        self.openapi_schema = schema
        return schema


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        license_info=app.license_info,
    )
    _, requests = models_json_schema(
        [(model, "validation") for model in _REQUESTS], ref_template="#/components/schemas/{model}"
    )
    for name, definition in requests["$defs"].items():
        schema["components"]["schemas"].setdefault(name, definition)
    _without_default_errors(schema)
    return schema


def _without_default_errors(schema: dict[str, Any]) -> None:
    """Take out FastAPI's own shape of a malformed request: ours is a problem."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            answer = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
            if str(answer.get("schema", {}).get("$ref", "")).endswith("/HTTPValidationError"):
                del operation["responses"]["422"]
            _name_media_type(operation["responses"])
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _name_media_type(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if status[0] in "45" and "application/json" in response.get("content", {}):
            response["content"] = {ProblemResponse.media_type: response["content"]["application/json"]}
