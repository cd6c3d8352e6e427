"""What a signal does while a command runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["on_signals"]


@contextmanager
def on_signals(*numbers: signal.Signals, action: Callable[[], object]) -> Iterator[None]:
    """Call ``action`` for these signals meanwhile."""
    loop = asyncio.get_running_loop()
    handled = []
    for number in numbers:
        # Not in the main thread, or not on this system: whoever runs us there has the signals.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, action)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
