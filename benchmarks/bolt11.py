"""BOLT11 decoding, signature check included, against its peers.

layer2 runs in this interpreter; the peers (``bolt11`` with the ``bitstring`` it needs, and the bare public key recovery of
``coincurve``) run in one of their own, given by ``--peers`` or ``LAYER2_BENCH_PEERS``, whose environment has ``PEERS`` installed.
All take turns, a round each, so that whatever else the machine does falls on all alike. The figures are medians over the rounds, in
microseconds for one invoice, and their ratios.

    python benchmarks/bolt11.py --peers PATH/TO/PYTHON [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PEERS = ("bolt11==2.2.0", "bitstring<5", "coincurve==21.0.0")
BATCHES = {"layer2": 200, "bolt11": 8, "coincurve": 300}
"""Decodings of each invoice in a round: about as long for each."""


def timed(call, arguments, times):
    """Microseconds for one call, on average over ``times`` of each argument."""
    gc.collect()
    gc.disable()
    start = time.perf_counter_ns()
    for _ in range(times):
        for argument in arguments:
            call(*argument)
    took = time.perf_counter_ns() - start
    gc.enable()
    return took / 1000 / (times * len(arguments))


def serve_as_peer():
    """Answer one line of JSON for each line: set up with the invoices, then a round of what is named."""
    import bolt11
    import coincurve

    cases = json.loads(sys.stdin.readline())
    texts = [(case["text"],) for case in cases]
    signed = [(bytes.fromhex(case["signature"]), bytes.fromhex(case["digest"])) for case in cases]

    def recover(signature, digest):
        return coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None).format()

    calls = {"bolt11": (bolt11.decode, texts), "coincurve": (recover, signed)}
    payees = [[bolt11.decode(*text).payee, recover(*parts).hex()] for text, parts in zip(texts, signed, strict=True)]
    print(json.dumps(payees), flush=True)
    for line in sys.stdin:
        name = line.strip()
        print(json.dumps(timed(*calls[name], BATCHES[name])), flush=True)


def invoices():
    """A plain invoice, one with a long description, and one with a private route, all without ``n``."""
    from layer2.lightning import RouteHop, encode_invoice, sign_invoice

    key = bytes(range(1, 33))
    node = bytes.fromhex("03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad")
    hop = RouteHop(
        node_id=node, short_channel_id=2**40, fee_base_msat=1000, fee_proportional_millionths=1, cltv_expiry_delta=80
    )
    common = {
        "network": "mainnet",
        "timestamp": 1_700_000_000,
        "payment_hash": bytes(range(32)),
        "payment_secret": bytes(range(32, 64)),
        "amount_msat": 123_456_000,
        "expiry_s": 86_400,
        "min_final_cltv_delta": 80,
    }
    for change in (
        {"description": "1 cup coffee"},
        {"description": "an order of many things, each of them named " * 4},
        {"description": "1 cup coffee", "route_hints": [[hop]]},
    ):
        unsigned = encode_invoice(**common, **change)
        yield sign_invoice(unsigned, key), unsigned.signing_hash


def run(peers, rounds):
    from layer2.lightning import decode_invoice

    made = list(invoices())
    texts = [(invoice.text,) for invoice, _ in made]
    cases = [
        {
            "text": invoice.text,
            "signature": (invoice.signature + bytes([invoice.recovery_id])).hex(),
            "digest": digest.hex(),
        }
        for invoice, digest in made
    ]
    times = {name: [] for name in BATCHES}
    with subprocess.Popen(
        [peers, "-I", __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as peer:

        def ask(line):
            answer = ""
            with contextlib.suppress(BrokenPipeError):
                print(line, file=peer.stdin, flush=True)
                answer = peer.stdout.readline()
            if not answer:
                needed = " ".join(f"'{package}'" for package in PEERS)
                raise SystemExit(f"the peers do not run; their environment needs: pip install {needed}")
            return json.loads(answer)

        payees = ask(json.dumps(cases))
        if payees != [[invoice.payee.hex()] * 2 for invoice, _ in made]:
            raise SystemExit("the peers disagree on who is paid")
        for number in range(rounds + 1):
            figures = {
                name: timed(decode_invoice, texts, times_each) if name == "layer2" else ask(name)
                for name, times_each in BATCHES.items()
            }
            if number:
                for name, figure in figures.items():
                    times[name].append(figure)
        peer.stdin.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "benchmark": "bolt11_decode",
        "rounds": rounds,
        "invoice_characters": [len(invoice.text) for invoice, _ in made],
        "median_us": {name: round(value, 1) for name, value in medians.items()},
        "times_faster_than_bolt11": round(medians["bolt11"] / medians["layer2"], 1),
        "times_the_bare_recovery": round(medians["layer2"] / medians["coincurve"], 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=os.environ.get("LAYER2_BENCH_PEERS"), help="Python that has the peers")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_as_peer()
        return
    if not options.peers:
        parser.error("name the Python that has the peers: --peers or LAYER2_BENCH_PEERS")
    result = run(options.peers, options.rounds)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
