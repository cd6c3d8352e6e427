"""The engine's log while a simulation runs: kept out of the program's, but for unforeseen errors, which go into the story."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["quiet"]

_logger: Final = logging.getLogger("layer2.swaps")


class _Teller(logging.Handler):
    def __init__(self, story: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._story.append(self.format(record))


@contextmanager
def quiet(story: list[str]) -> Iterator[None]:
    """Keep the engine's log out of the program's; what it says of unforeseen errors goes into the story."""
    level, propagate = _logger.level, _logger.propagate
    teller = _Teller(story)
    _logger.setLevel(logging.ERROR)
    _logger.propagate = False
    _logger.addHandler(teller)
    try:
        yield
    finally:
        _logger.removeHandler(teller)
        _logger.setLevel(level)
        _logger.propagate = propagate
