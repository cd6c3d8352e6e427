"""Check a transfer's proof with no network: only the file, and block hashes that you know to be of the chain.

python examples/verify_proof.py PROOF_FILE CHAIN_ID TOKEN_ADDRESS BLOCK_HASH...

Take the block hashes from a node of your own, at the depth that you ask for. The token is the one that you hold to be bitcoin.
"""

import sys
from pathlib import Path

from layer2.addresses import EvmAddress
from layer2.assets import BTC, AssetForm, AssetRegistry
from layer2.errors import ProofError
from layer2.proofs import Report, verify_transfer_proof


def verify(text: str, chain_id: int, token: str, block_hashes: list[str]) -> Report:
    """Every check by name."""
    form = AssetForm(asset=BTC, chain_id=chain_id, contract=EvmAddress.parse(token), decimals=8)
    return verify_transfer_proof(
        text,
        trusted_blocks=[bytes.fromhex(block.removeprefix("0x")) for block in block_hashes],
        assets=AssetRegistry([form]),
    )


def main(arguments: list[str]) -> int:
    """Print all checks. Exit status 0 only if every one that is needed passed."""
    if len(arguments) < 4:
        raise SystemExit(__doc__)
    file, chain_id, token, *blocks = arguments
    try:
        report = verify(Path(file).read_text(encoding="utf-8"), int(chain_id), token, blocks)
    except ProofError as error:
        print(f"not a proof: {error}")
        return 1
    for check in report.checks:
        print(f"{check.result:9} {check.name}: {check.reason}")
    for note in report.notes:
        print(f"not proved: {note}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
