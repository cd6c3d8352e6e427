"""A payment service that owns the store: other processes pay and get paid through it over HTTP.

python examples/payment_service.py [--embedded]

It listens on loopback and asks for no credentials: reach it from your own application only. Run one process of it.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from layer2 import BTC, Layer2Config, Layer2Error, Layer2Manager, NotFound, Transfer
from layer2 import Layer2ProtocolType as P


class Payment(BaseModel):
    """An invoice to be paid from BOB."""

    invoice: str
    amount: int = Field(gt=0, description="satoshi; the invoice's amount, rounded up")


class Receipt(BaseModel):
    """An amount to be received onto BOB."""

    amount: int = Field(gt=0, description="satoshi that arrive")


def shown(transfer: Transfer) -> dict[str, Any]:
    """A transfer as the service tells it."""
    return {
        "id": transfer.id,
        "state": transfer.state,
        "done": transfer.state.is_final,
        "reason": transfer.reason,
        "invoice": transfer.invoice,
    }


def create_app(config: Layer2Config | None = None) -> FastAPI:
    """The service; ``config`` None: from the usual places."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Layer2Manager(config) as manager:
            await manager.initialize_all_async()
            app.state.layer2 = manager
            yield

    app = FastAPI(title="payments", lifespan=lifespan)

    @app.exception_handler(Layer2Error)
    async def refused(_: Request, error: Layer2Error) -> JSONResponse:
        body = {
            "error": type(error).__name__,
            "detail": str(error),
            "money_may_have_moved": error.money_may_have_moved,
            "retry_safe": error.retry_safe,
        }
        return JSONResponse(body, 404 if isinstance(error, NotFound) else 422)

    @app.put("/payments/{order}")
    async def pay(order: str, payment: Payment) -> dict[str, Any]:
        """Begin to pay. The same order again gives the same transfer."""
        return shown(
            await app.state.layer2.start_cross_layer_transfer_async(
                BTC, payment.amount, P.BOB, P.LIGHTNING, recipient=payment.invoice, idempotency_key=f"pay {order}"
            )
        )

    @app.put("/receipts/{order}")
    async def receive(order: str, receipt: Receipt) -> dict[str, Any]:
        """An invoice to show to whoever pays. The same order again gives the same invoice."""
        return shown(
            await app.state.layer2.start_cross_layer_transfer_async(
                BTC, receipt.amount, P.LIGHTNING, P.BOB, payer="anyone", idempotency_key=f"receive {order}"
            )
        )

    @app.get("/transfers/{transfer_id}")
    async def state(transfer_id: str) -> dict[str, Any]:
        """How a transfer stands."""
        return shown(await app.state.layer2.get_transfer_async(transfer_id))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """503 unless everything works and nothing needs attention."""
        report = app.state.layer2.health()
        if not report.ok:
            raise HTTPException(503, report.to_json())
        return {"state": report.state, "unfinished_transfers": report.unfinished_transfers}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Layer2Config.embedded() if sys.argv[1:] == ["--embedded"] else None), port=8000, workers=1)
