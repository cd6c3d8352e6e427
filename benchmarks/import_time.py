"""Time of ``import layer2`` next to ``import web3``: fresh interpreters in turn, medians, and their ratio.

    python benchmarks/import_time.py [--peer PYTHON] [--rounds N]

``--peer`` is the interpreter of an environment that has web3. Interpreter start itself is measured and taken off both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time


def seconds(python: str, code: str) -> float:
    """Wall time of one fresh interpreter that runs ``code``."""
    begun = time.perf_counter()
    subprocess.run([python, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - begun


def measure(cases: dict[str, tuple[str, str]], rounds: int) -> dict[str, float]:
    """Median seconds of each case; the cases take turns, so that a busy machine hurts all alike."""
    for python, code in cases.values():
        seconds(python, code)
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (python, code) in cases.items():
            taken[name].append(seconds(python, code))
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> int:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="interpreter with web3 installed")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    cases = {
        "start": (sys.executable, "pass"),
        "layer2": (sys.executable, "import layer2"),
        "layer2 values": (sys.executable, "from layer2 import BTC, TxId, parse_address"),
        "layer2 manager": (sys.executable, "from layer2 import Layer2Manager"),
    }
    if options.peer:
        cases |= {"peer start": (options.peer, "pass"), "web3": (options.peer, "import web3")}
    medians = measure(cases, options.rounds)
    result: dict[str, object] = {f"{name}_s": round(value, 4) for name, value in medians.items()}
    if options.peer:
        web3 = medians["web3"] - medians["peer start"]
        for name in ("layer2", "layer2 values", "layer2 manager"):
            result[f"ratio {name} / web3"] = round((medians[name] - medians["start"]) / web3, 3)
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
