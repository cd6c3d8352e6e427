"""A whole transfer from code that is not async, on the embedded network."""

from layer2 import BTC, HealthState, Layer2Config, Layer2ManagerSync, TransferState
from layer2 import Layer2ProtocolType as P
from layer2.sync import BobClientSync, LightningNetworkSync


def test_both_directions_and_the_layers_from_a_plain_function():
    with Layer2ManagerSync(Layer2Config.embedded()) as manager:
        manager.initialize_all_sync()
        bob, lightning = manager.get_protocol_sync("bob"), manager.get_protocol_sync("lightning")
        assert isinstance(bob, BobClientSync)
        assert isinstance(lightning, LightningNetworkSync)
        before = bob.balance_sync(BTC)
        proof = manager.cross_layer_transfer_sync(BTC, 100_000, P.BOB, P.LIGHTNING)
        assert manager.verify_cross_layer_proof_sync(proof)
        assert bob.balance_sync(BTC) <= before - 100_000
        transfer = manager.start_cross_layer_transfer_sync(BTC, 50_000, P.LIGHTNING, P.BOB)
        states = [event.state for event in transfer.events()]
        assert states[-1] is TransferState.SETTLED
        assert manager.verify_cross_layer_proof_sync(transfer.result_sync())
        assert {item.id for item in manager.transfers_sync()} >= {transfer.id}
        assert manager.health().ok


def test_managers_come_and_go_in_one_process():
    for _ in range(2):
        manager = Layer2ManagerSync(Layer2Config.embedded())
        manager.initialize_all_sync()
        manager.close_sync()
        assert manager.health().state is HealthState.CLOSED
