"""A reorganisation between the end of a transfer and its proof costs time, and nothing else."""

import asyncio

from layer2 import BTC, Layer2Config, Layer2Manager
from layer2 import Layer2ProtocolType as P
from layer2.storage import SwapJournal


async def test_the_caller_gets_the_proof_when_it_is_settled_again(monkeypatch):
    async with Layer2Manager(Layer2Config.embedded()) as manager:
        await manager.initialize_all_async()
        network, original, undone = manager.embedded_network, SwapJournal.proof, []
        assert network is not None

        async def undo_first(journal, swap_id):
            if not undone:
                undone.append(swap_id)
                await network.evm.reorganise(1, transactions="wait")
                while (await journal.load(swap_id)).state.settled:
                    await asyncio.sleep(0.01)
            return await original(journal, swap_id)

        monkeypatch.setattr(SwapJournal, "proof", undo_first)
        async with asyncio.timeout(60):
            proof = await manager.cross_layer_transfer_async(BTC, 20_000, P.LIGHTNING, P.BOB)
        assert undone
        assert await manager.verify_cross_layer_proof_async(proof)
