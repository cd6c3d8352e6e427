"""One asyncio API for Bitcoin's layers."""
