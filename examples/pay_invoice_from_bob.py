"""Pay a Lightning invoice with BTC on BOB. No Lightning node is needed.

python examples/pay_invoice_from_bob.py INVOICE PROOF_FILE
python examples/pay_invoice_from_bob.py --embedded
"""

import asyncio
import sys
from pathlib import Path

from layer2 import BTC, Layer2Config, Layer2Error, Layer2Manager, SwapRefunded, TransferProof
from layer2 import Layer2ProtocolType as P
from layer2.lightning import decode_invoice


async def pay(manager: Layer2Manager, text: str) -> TransferProof:
    """Pay the invoice once, however often this is called with it."""
    invoice = decode_invoice(text)
    if invoice.amount_msat is None:
        raise SystemExit("the invoice has no amount: ask the payee for one that has")
    amount = -(-invoice.amount_msat // 1000)

    quote = await manager.quote_cross_layer_transfer_async(BTC, amount, P.BOB, P.LIGHTNING, recipient=text)
    print(f"{amount} satoshi, at most {quote.fee} in fees, about {quote.seconds_expected} s")
    print(f"token {quote.token}, contract {quote.htlc_contract}")

    transfer = await manager.start_cross_layer_transfer_async(
        BTC, amount, P.BOB, P.LIGHTNING, recipient=text, idempotency_key=f"invoice {invoice.payment_hash.hex()}"
    )
    async for event in transfer.events():
        print(event.state, event.reason or "")
    return await transfer.result_async()


async def main(arguments: list[str]) -> None:
    """Pay, and keep the proof."""
    embedded = arguments == ["--embedded"]
    if not embedded and len(arguments) != 2:
        raise SystemExit(__doc__)
    async with Layer2Manager(Layer2Config.embedded() if embedded else None) as manager:
        await manager.initialize_all_async()
        if (network := manager.embedded_network) is not None:
            text = (await network.merchant_node.create_invoice(amount_msat=42_000_000, expiry_s=120)).text
            file = Path("proof.json")
        else:
            text, file = arguments[0], Path(arguments[1])
        try:
            proof = await pay(manager, text)
        except SwapRefunded as error:
            raise SystemExit(f"not paid, and the money is back: {error}") from error
        except Layer2Error as error:
            moved = "money may be moving; run this again" if error.money_may_have_moved else "nothing was sent"
            raise SystemExit(f"{error} ({moved})") from error
        await asyncio.to_thread(file.write_text, proof.to_json())
        print(f"paid; the proof is in {file}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
