"""Blocking calls from many threads: one manager, one store, one event loop in a thread of the manager's own.

python examples/sync_in_threads.py [--embedded]

The same calls work in a notebook, whose own event loop is running.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from layer2 import BTC, Layer2Config, Layer2ManagerSync
from layer2 import Layer2ProtocolType as P


def move(manager: Layer2ManagerSync, amount: int) -> str:
    """Move an amount to our own Lightning node, and check the proof. Blocks the calling thread only."""
    transfer = manager.start_cross_layer_transfer_sync(BTC, amount, P.BOB, P.LIGHTNING)
    proof = transfer.result_sync(timeout=3_600)
    assert manager.verify_cross_layer_proof_sync(proof)
    return f"{amount} satoshi moved in transfer {transfer.id}"


def main(arguments: list[str]) -> None:
    """Three at once."""
    config = Layer2Config.embedded() if arguments == ["--embedded"] else None
    with Layer2ManagerSync(config) as manager, ThreadPoolExecutor() as threads:
        manager.initialize_all_sync()
        for line in threads.map(lambda amount: move(manager, amount), (10_000, 20_000, 30_000)):
            print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
