"""A Lightning network in memory: channels, HTLCs, block heights and the rules by which payments move over them.

Everything between two awaits of a caller happens at once, in an order that depends on nothing but the calls: the same calls, clock
and random bytes give the same network. It keeps lnd's rules where they decide about money: a held payment is given back
``HOLD_EXPIRY_DELTA`` blocks before its first HTLC expires, parts of an incomplete set after ``MPP_TIMEOUT_S``, and an open invoice
that expires is cancelled.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from layer2._clock import Clock, SystemClock
from layer2._crypto import public_key, sha256, valid_private_key
from layer2.errors import AmountError, ConfigurationError, NotFound
from layer2.lightning._memory_route import Channel, ChannelPolicy, Hop, Ledger, Route, plan_routes
from layer2.lightning._memory_state import Invoice, NodeState, Part, Payment
from layer2.lightning._node import InvoiceState, PaymentState

if TYPE_CHECKING:
    from layer2.lightning._memory import MemoryNode

__all__ = ["BLOCK_PADDING", "HOLD_EXPIRY_DELTA", "MPP_TIMEOUT_S", "MemoryLightning"]

HOLD_EXPIRY_DELTA = 18
"""Blocks before the expiry of a held HTLC at which it is given back (lnd 0.21)."""
BLOCK_PADDING = 3
"""Blocks that a payer adds to the final CLTV, so that new blocks on the way do no harm (lnd)."""
MPP_TIMEOUT_S = 120
"""How long the parts of an incomplete payment are kept (BOLT 4: at least 60)."""
FORWARD_MARGIN = 3
"""A node forwards only what expires at least so many blocks from now."""


class MemoryLightning:
    """The network. Make nodes with ``add_node``, join them with ``open_channel``, and let blocks pass with ``mine``.

    ``clock`` tells the time of invoices; ``random_bytes`` makes node keys, preimages and payment secrets. ``network`` is
    the name of the Bitcoin network that invoices are for (``regtest``: they start with ``lnbcrt``).
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        network: str = "regtest",
        height: int = 500,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.random_bytes = random_bytes
        self.network = network
        self._height = height
        self._nodes: dict[bytes, NodeState] = {}
        self._channels: list[Channel] = []
        self._parts: dict[Part, None] = {}
        self._counter = itertools.count()
        self._expiries: list[tuple[int, int, NodeState, Invoice]] = []
        self._incomplete: dict[Invoice, NodeState] = {}
        self._accepted: dict[Invoice, NodeState] = {}

    @property
    def height(self) -> int:
        """The height of the last block."""
        return self._height

    def now_s(self) -> int:
        """Unix seconds."""
        return self.clock.now_ms() // 1000

    def add_node(self, alias: str, *, private_key: bytes | None = None, accept_keysend: bool = True) -> MemoryNode:
        """Add a node and connect to it.

        Raises:
            ConfigurationError: the key is none, or another node has it.
        """
        key = self.random_bytes(32) if private_key is None else private_key
        if not valid_private_key(key):
            raise ConfigurationError(f"the private key of node {alias} is not one of secp256k1")
        node_id = public_key(key)
        if node_id in self._nodes:
            raise ConfigurationError(f"the network already has a node with the key of {alias}")
        self._nodes[node_id] = NodeState(private_key=key, node_id=node_id, alias=alias, accept_keysend=accept_keysend)
        return self.connect(node_id)

    def connect(self, node_id: bytes) -> MemoryNode:
        """A connection to a node. Closing it does nothing to the node, as with a real one.

        Raises:
            NotFound: no such node.
        """
        from layer2.lightning._memory import MemoryNode

        return MemoryNode(self, self.state_of(node_id))

    def state_of(self, node_id: bytes) -> NodeState:
        """What a node knows.

        Raises:
            NotFound: no such node.
        """
        try:
            return self._nodes[node_id]
        except KeyError:
            raise NotFound(f"no node {node_id.hex()} in this network") from None

    def open_channel(
        self,
        opener: bytes,
        peer: bytes,
        *,
        local_msat: int,
        remote_msat: int = 0,
        policy: ChannelPolicy | None = None,
        peer_policy: ChannelPolicy | None = None,
    ) -> Channel:
        """Open a channel: ``local_msat`` on the opener's side, ``remote_msat`` on the peer's.

        The policies say what each of them asks for forwarding.

        Raises:
            AmountError: a negative or no amount; NotFound: no such node.
        """
        self.state_of(opener)
        self.state_of(peer)
        if local_msat < 0 or remote_msat < 0 or not local_msat + remote_msat or opener == peer:
            raise AmountError("a channel joins two nodes and has something in it")
        channel = Channel(
            channel_id=len(self._channels) + 1,
            nodes=(opener, peer),
            balance_msat={opener: local_msat, peer: remote_msat},
            policies={opener: policy or ChannelPolicy(), peer: peer_policy or policy or ChannelPolicy()},
        )
        self._channels.append(channel)
        return channel

    def total_msat(self) -> int:
        """Everything in all channels, held HTLCs included: no payment changes it."""
        return sum(channel.total_msat() for channel in self._channels)

    def spendable_msat(self, node_id: bytes) -> int:
        """What a node has in its channels and has not offered in HTLCs."""
        return sum(channel.balance_msat.get(node_id, 0) for channel in self._channels)

    def receivable_msat(self, node_id: bytes) -> int:
        """What a node's peers have on their sides."""
        return sum(c.balance_msat[c.other(node_id)] for c in self._channels if node_id in c.nodes)

    def mine(self, blocks: int = 1) -> None:
        """Let blocks pass. At each height, what expires there is given back."""
        for _ in range(blocks):
            self._height += 1
            self.tick()
            for invoice, node in list(self._accepted.items()):
                first = min(part.route.hops[-1].expiry_height for part in invoice.parts)
                if self._height >= first - HOLD_EXPIRY_DELTA:
                    self.cancel(node, invoice)
            for part in list(self._parts):
                if part.position and self._height >= part.route.hops[part.position - 1].expiry_height:
                    self._expire_htlc(part)

    async def run_blocks(self, interval_s: float) -> None:
        """Mine a block every ``interval_s`` seconds of the clock, until cancelled. The caller owns the task."""
        while True:
            await self.clock.sleep(interval_s)
            self.mine()

    def set_hanging(self, node_id: bytes, hanging: bool) -> None:
        """Make HTLCs hang that reach a node, or come back through it; or let them go on."""
        self.state_of(node_id).hanging = hanging
        if not hanging:
            for part in list(self._parts):
                self._move(part)

    def add_invoice(self, node: NodeState, invoice: Invoice) -> None:
        """Take up an invoice that the node has made."""
        node.invoices[invoice.payment_hash] = invoice
        heapq.heappush(self._expiries, (invoice.expires_at, next(self._counter), node, invoice))
        node.signals[invoice.payment_hash].fire()

    def tick(self) -> None:
        """Do what time alone brings about. Every call to a node does this first."""
        now_ms = self.clock.now_ms()
        while self._expiries and self._expiries[0][0] * 1000 <= now_ms:
            *_, node, invoice = heapq.heappop(self._expiries)
            if invoice.state is InvoiceState.OPEN:
                self.cancel(node, invoice)
        for invoice in list(self._incomplete):
            if now_ms - invoice.parts[0].arrived_ms >= MPP_TIMEOUT_S * 1000:
                parts, invoice.parts = invoice.parts, []
                del self._incomplete[invoice]
                for part in parts:
                    self._give_back(part, "timeout")

    def _expire_htlc(self, part: Part) -> None:
        # The node that offered the HTLC takes it back on chain, or the one that knows the preimage claims it there.
        if not part.returning:
            part.returning, part.failure_reason = True, "timeout"
            self._drop_arrived(part)
        self._unwind(part, forced=True)

    def _drop_arrived(self, part: Part) -> None:
        invoice = self.state_of(part.payment.payee).invoices.get(part.payment.payment_hash)
        if invoice is not None and part in invoice.parts:
            invoice.parts.remove(part)
            if not invoice.parts:
                self._incomplete.pop(invoice, None)

    def send(
        self, payment: Payment, *, fee_limit_msat: int, cltv_limit: int, final_cltv_delta: int, multi_part: bool
    ) -> None:
        """Plan a payment and put its parts on their way. Without a route it has failed and nothing was sent."""
        final_expiry = self._height + final_cltv_delta + BLOCK_PADDING
        node = self.state_of(payment.payer)
        node.payments[payment.payment_hash] = payment
        if self.spendable_msat(node.node_id) < payment.amount_msat:
            payment.failure_reason = "insufficient_balance"
            return
        routes: list[Route] | None = None
        if final_expiry <= self._height + cltv_limit and payment.payee in self._nodes:
            routes = plan_routes(
                self._channels,
                payment.payer,
                payment.payee,
                payment.amount_msat,
                fee_limit_msat=fee_limit_msat,
                final_expiry=final_expiry,
                max_expiry=self._height + cltv_limit,
                max_parts=16 if multi_part else 1,
            )
        if routes is None:
            payment.failure_reason = "no_route"
            return
        payment.parts = [Part(payment=payment, route=route) for route in routes]
        payment.unresolved = set(payment.parts)
        for part in payment.parts:
            self._parts[part] = None
        for part in payment.parts:
            self._move(part)

    def _move(self, part: Part) -> None:
        """Carry a part as far as it goes now: forward to the payee, or back to the payer."""
        if part.returning:
            self._unwind(part)
            return
        hops = part.route.hops
        while part.position < len(hops):
            if part.position and self.state_of(part.waiting_at).hanging:
                return
            hop = hops[part.position]
            if not Ledger().can_carry(hop.channel, hop.sender, hop.amount_msat):
                self._give_back(part, "no_route")
                return
            if part.position and hop.expiry_height < self._height + FORWARD_MARGIN:
                self._give_back(part, "timeout")
                return
            self._lock(hop)
            part.position += 1
        if not part.arrived_height and not self.state_of(part.waiting_at).hanging:
            part.arrived_height, part.arrived_ms = self._height, self.clock.now_ms()
            self._arrive(part)

    def _lock(self, hop: Hop) -> None:
        hop.channel.balance_msat[hop.sender] -= hop.amount_msat
        hop.channel.locked_msat += hop.amount_msat
        hop.channel.htlcs[hop.sender] = hop.channel.htlcs.get(hop.sender, 0) + 1

    def _arrive(self, part: Part) -> None:
        payment, node = part.payment, self.state_of(part.payment.payee)
        if payment.keysend_preimage is not None:
            if node.accept_keysend and sha256(payment.keysend_preimage) == payment.payment_hash:
                self._take(part, payment.keysend_preimage)
            else:
                self._give_back(part, "incorrect_payment_details")
            return
        invoice = node.invoices.get(payment.payment_hash)
        if (
            invoice is None
            or invoice.state is not InvoiceState.OPEN
            or invoice.payment_secret != payment.payment_secret
            or payment.amount_msat < invoice.amount_msat
            or part.route.hops[-1].expiry_height < self._height + invoice.cltv_delta
        ):
            self._give_back(part, "incorrect_payment_details")
            return
        invoice.parts.append(part)
        if sum(held.route.amount_msat for held in invoice.parts) < payment.amount_msat:
            self._incomplete[invoice] = node
            return
        self._incomplete.pop(invoice, None)
        self._accepted[invoice] = node
        invoice.received_msat = payment.amount_msat
        invoice.state = InvoiceState.ACCEPTED
        if not invoice.is_hold and invoice.preimage is not None:
            self.settle(node, invoice, invoice.preimage)
        node.signals[invoice.payment_hash].fire()

    def settle(self, node: NodeState, invoice: Invoice, preimage: bytes) -> None:
        """Take all held parts of an accepted invoice."""
        invoice.state, invoice.preimage = InvoiceState.SETTLED, preimage
        self._accepted.pop(invoice, None)
        for part in invoice.parts:
            self._take(part, preimage)
        node.signals[invoice.payment_hash].fire()

    def cancel(self, node: NodeState, invoice: Invoice) -> None:
        """Close an invoice that is not settled and give its parts back."""
        invoice.state, invoice.received_msat = InvoiceState.CANCELED, 0
        self._accepted.pop(invoice, None)
        self._incomplete.pop(invoice, None)
        parts, invoice.parts = invoice.parts, []
        for part in parts:
            self._give_back(part, "incorrect_payment_details")
        node.signals[invoice.payment_hash].fire()

    def _take(self, part: Part, preimage: bytes) -> None:
        part.returning, part.preimage = True, preimage
        self._unwind(part)

    def _give_back(self, part: Part, reason: str) -> None:
        part.returning, part.failure_reason = True, reason
        self._unwind(part)

    def _unwind(self, part: Part, *, forced: bool = False) -> None:
        """Resolve a part's HTLCs from the payee's side: to the receivers if the preimage is known, else back to the senders."""
        hops = part.route.hops
        payee_has_it = part.position == len(hops)
        while part.position:
            if not payee_has_it and not forced and self.state_of(part.waiting_at).hanging:
                return
            hop = hops[part.position - 1]
            winner = hop.receiver if part.preimage else hop.sender
            hop.channel.locked_msat -= hop.amount_msat
            hop.channel.balance_msat[winner] += hop.amount_msat
            hop.channel.htlcs[hop.sender] -= 1
            part.position -= 1
            payee_has_it = forced = False
        self._resolve(part)

    def _resolve(self, part: Part) -> None:
        self._parts.pop(part, None)
        payment = part.payment
        payment.unresolved.discard(part)
        if part.failure_reason and not payment.failure_reason:
            payment.failure_reason = part.failure_reason
        if payment.state is not PaymentState.IN_FLIGHT:
            payment.signal.fire()
