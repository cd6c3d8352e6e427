"""All benchmarks, side by side with what they are compared with, into ``results.json`` and a table, ``results.md``.

    python benchmarks/run.py --peers PATH/TO/PYTHON [--quick] [--no-real] [--output FOLDER]

Each benchmark is a program of its own and runs in a process of its own. Quote the ratios and their spread, not single absolute
times: both sides of a ratio run in turns on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def machine():
    """Where the figures come from, in the words that matter for judging them."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "model": model,
        "load_before": round(os.getloadavg()[0], 2),
    }


def measure(name, *options):
    """The JSON object that one benchmark prints."""
    print(f"measuring: {name} {' '.join(options)}".rstrip(), file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *options], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def rows(results):
    """What was measured, its figure, what it is compared with."""
    bolt11, start = results["bolt11"], results["import_time"]
    yield (
        "BOLT11 decoding with signature check",
        f"{bolt11['median_us']['layer2']} µs",
        (
            f"{bolt11['times_faster_than_bolt11']} times faster than the package bolt11, "
            f"{bolt11['times_the_bare_recovery']} times the bare key recovery of coincurve"
        ),
    )
    for name in ("layer2", "layer2 manager"):
        cost = start[f"{name}_s"] - start["start_s"]
        text = "import layer2" if name == "layer2" else "from layer2 import Layer2Manager"
        yield f"`{text}`", f"{cost * 1000:.0f} ms", f"{start[f'ratio {name} / web3']} of `import web3`"
    figures = results["embedded"]
    for name, spread in figures["transfers_per_second"].items():
        label = f"transfers a second, embedded, {name}, {figures['at_once']} at once"
        yield label, shown(spread), "provider and chain run in the same process; a block each second"
    for figures in results["restart"]:
        where = f"{figures['store']}, {figures['layers']}"
        yield (
            f"restart with {figures['swaps']} unfinished swaps, {where}: each looked at and under watch again",
            f"{figures['all_looked_at_s']} s, of which {figures['cpu_s']} s our CPU time",
            (
                f"those on their way out after {figures['exits_s']} s; {figures['bytes_for_each_waiting_swap'][-1]} bytes for each "
                "that waits"
            ),
        )
    if "real" not in results:
        return
    figures = results["real"]
    for name, times in figures["times_a_plain_payment"].items():
        label = f"transfers a second, real nodes, {name}, {figures['at_once']} at once"
        yield (
            label,
            shown(figures["per_second"][name]),
            f"{times} times the time of plain lnd payments on the same route",
        )
    yield (
        "plain lnd payments a second, same run",
        shown(figures["per_second"]["payment"]),
        "no layer2 in between",
    )
    yield (
        "our CPU time of one real transfer, client and provider together",
        shown({key: round(value * 1000) for key, value in figures["own_cpu_s_per_transfer"].items()}, " ms"),
        (
            f"{figures['own_cpu_share_of_wall']:.0%} of the wall time, "
            f"{figures['own_cpu_share_of_all_cpu']:.0%} of the CPU time with the nodes' added"
        ),
    )


def noise(results):
    """What to know before quoting: whether the machine did other things, and which figures' rounds differ much."""
    where = results["machine"]
    wide = [what for what, spread in spreads(results) if spread["max"] > 1.5 * spread["min"]]
    if where["load_before"] > where["processors"] / 2:
        yield "The machine was busy with other work: absolute figures are too low, ratios less so."
    if wide:
        yield f"Rounds differed by more than half: {'; '.join(wide)}."


def spreads(results):
    for name, spread in results["embedded"]["transfers_per_second"].items():
        yield f"embedded transfers, {name}", spread
    if "real" in results:
        for name, spread in results["real"]["per_second"].items():
            yield f"real nodes, {name}", spread
        yield "our CPU time", results["real"]["own_cpu_s_per_transfer"]


def shown(spread, unit=""):
    return f"{spread['median']}{unit} ({spread['min']} to {spread['max']})"


def table(results):
    where = results["machine"]
    lines = [
        "# Benchmarks",
        "",
        (
            f"CPython {where['python']}, {where['processors']} processors ({where['model']}), load average {where['load_before']} "
            "before the run. Medians, with the smallest and largest round in brackets. `make bench` measures anew."
        ),
        "",
        "| measured | figure | compared |",
        "|---|---|---|",
        *(f"| {what} | {figure} | {against} |" for what, figure, against in rows(results)),
        "",
        *noise(results),
        "",
    ]
    return "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=os.environ.get("LAYER2_BENCH_PEERS"), help="Python that has the peers")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to quote")
    parser.add_argument("--no-real", action="store_true", help="without real nodes")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for results.json and results.md")
    options = parser.parse_args()
    if not options.peers:
        parser.error("name the Python that has the peers: --peers or LAYER2_BENCH_PEERS ('make bench' does)")
    rounds = "3" if options.quick else "15"
    transfers = ("--rounds", "2" if options.quick else "5")
    swaps = ("--swaps", "1000" if options.quick else "10000")
    results = {
        "machine": machine(),
        "bolt11": measure("bolt11", "--peers", options.peers, "--rounds", rounds),
        "import_time": measure("import_time", "--peer", options.peers, "--rounds", rounds),
        "embedded": measure("transfers", *transfers),
        "restart": [measure("restart", *swaps), measure("restart", "--postgresql", *swaps)],
    }
    if not options.no_real:
        results["real"] = measure("transfers", "--real", *transfers)
        results["restart"].append(measure("restart", "--real", *swaps))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    (options.output / "results.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
