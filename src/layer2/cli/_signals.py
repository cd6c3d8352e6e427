"""What a signal does while a command runs."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["on_signals"]


@contextmanager
def on_signals(*numbers: signal.Signals, action: Callable[[], object]) -> Iterator[None]:
    """Call ``action`` for these signals meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        # Signals come to the main thread only: whoever runs us in another one has them.
        yield
        return
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, action)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
