"""``python -m layer2``: the command line."""

from __future__ import annotations

from layer2.cli import main

if __name__ == "__main__":
    main()
