"""The program ``layer2``: all command groups under one name."""

from __future__ import annotations

import typer

from layer2.cli import (
    _contract,
    _copies,
    _demo,
    _devnet,
    _doctor,
    _init,
    _invoice,
    _keystore,
    _pay,
    _proof,
    _provider,
    _rescue,
    _status,
    _transfer,
    _transfers,
    _version,
)
from layer2.cli._exit import table_of_codes
from layer2.cli._usage import Program

__all__ = ["app"]

app = typer.Typer(
    name="layer2",
    cls=Program,
    help="Pay and get paid on Bitcoin's layers, and move value between Lightning and BOB without trust.",
    epilog=f"Exit codes: {table_of_codes()}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (_demo, _init, _doctor, _status, _pay, _transfer, _copies, _rescue, _version):
    module.add_to(app)
for group in (_keystore.app, _invoice.app, _transfers.app, _proof.app, _contract.app, _provider.app, _devnet.app):
    app.add_typer(group)
_transfers.add_run_to(app)
