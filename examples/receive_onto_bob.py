"""Be paid over Lightning onto BOB: show an invoice that anyone can pay.

python examples/receive_onto_bob.py AMOUNT_IN_SATOSHI [EVM_ADDRESS]
python examples/receive_onto_bob.py --embedded
"""

import asyncio
import sys

from layer2 import BTC, Layer2Config, Layer2Manager, SwapExpired, Transfer, TransferState
from layer2 import Layer2ProtocolType as P


async def request(manager: Layer2Manager, amount: int, recipient: str | None = None) -> Transfer:
    """A transfer whose ``invoice`` anyone can pay. The payer bears the fees: the invoice is above ``amount``."""
    return await manager.start_cross_layer_transfer_async(
        BTC, amount, P.LIGHTNING, P.BOB, recipient=recipient, payer="anyone"
    )


async def wait_until_paid(transfer: Transfer) -> bool:
    """Whether the amount has arrived; False if nobody paid in time."""
    async for event in transfer.events():
        if event.state is TransferState.CLAIMING:
            print("paid; claiming on BOB. Do not stop this program now.")
    try:
        await transfer.result_async()
    except SwapExpired:
        return False
    return True


async def main(arguments: list[str]) -> None:
    """Show an invoice and wait."""
    embedded = arguments == ["--embedded"]
    if not embedded and len(arguments) not in (1, 2):
        raise SystemExit(__doc__)
    async with Layer2Manager(Layer2Config.embedded() if embedded else None) as manager:
        await manager.initialize_all_async()
        amount = 30_000 if embedded else int(arguments[0])
        transfer = await request(manager, amount, arguments[1] if len(arguments) == 2 else None)
        print(f"please pay:\n{transfer.invoice}")
        payer = None
        if (network := manager.embedded_network) is not None and transfer.invoice is not None:
            payer = asyncio.create_task(
                network.merchant_node.pay(transfer.invoice, fee_limit_msat=10_000, cltv_limit=1_000, time_limit_s=20)
            )
        arrived = await wait_until_paid(transfer)
        print(f"{amount} satoshi are on BOB" if arrived else "nobody paid in time")
        if payer is not None:
            await payer


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
