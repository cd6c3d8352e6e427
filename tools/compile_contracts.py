"""Compile the contracts and write (or, with ``--check``, compare) the artifacts that the package ships.

The bytecode carries no metadata, so it and the CREATE2 addresses that follow from it depend on the code alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "src" / "layer2" / "evm" / "artifacts"
CONTRACTS = {"Layer2Htlc.vy": "htlc.json", "TestToken.vy": "test_token.json"}
OUTPUTS = ("abi", "bytecode", "bytecode_runtime")
_ERROR = re.compile(r'raw_revert\(method_id\("(\w+)\(\)"\)\)')
_PRAGMA = re.compile(r"^#pragma ([a-z-]+) (\S+)$", re.MULTILINE)


def vyper(*arguments: str) -> str:
    """Run the compiler that is installed beside this interpreter."""
    command = [sys.executable, "-m", "vyper.cli.vyper_compile", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def compile_contract(path: Path) -> dict[str, Any]:
    """What is kept of one compiled contract."""
    source = path.read_bytes()
    pragmas = dict(_PRAGMA.findall(source.decode()))
    lines = vyper("--no-bytecode-metadata", "-f", ",".join(OUTPUTS), str(path)).splitlines()
    abi, bytecode, runtime = json.loads(lines[0]), lines[1], lines[2]
    # The language has no custom errors, so its ABI lacks them; tools that decode reverts need them there.
    errors = sorted(set(_ERROR.findall(source.decode())))
    return {
        "contract": path.stem,
        "compiler": {
            "name": "vyper",
            "version": vyper("--version"),
            "evm_version": pragmas["evm-version"],
            "optimize": pragmas["optimize"],
            "bytecode_metadata": False,
        },
        "source_sha256": hashlib.sha256(source).hexdigest(),
        "abi": abi + [{"type": "error", "name": name, "inputs": []} for name in errors],
        "bytecode": bytecode,
        "runtime_bytecode": runtime,
    }


def main() -> int:
    """Write the artifacts; with ``--check`` only say whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed artifacts; write nothing")
    check = parser.parse_args().check
    stale = []
    for source, target in CONTRACTS.items():
        text = json.dumps(compile_contract(ROOT / "contracts" / source), indent=1) + "\n"
        artifact = ARTIFACTS / target
        if not check:
            artifact.write_text(text, encoding="utf-8")
        elif not artifact.exists() or artifact.read_text(encoding="utf-8") != text:
            stale.append(source)
    if stale:
        print(f"artifacts differ from a recompile of {', '.join(stale)}: run {Path(__file__).name}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
