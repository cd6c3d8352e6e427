"""Settings files of tests, and what is refused in them."""

from pathlib import Path
from typing import Any

import pytest

from layer2 import Layer2Config
from layer2.errors import ConfigurationError


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(key: str | None, *needles: str, **load: Any) -> ConfigurationError:
    """The refusal of ``load``, which must name ``key`` and hold ``needles``."""
    with pytest.raises(ConfigurationError) as caught:
        Layer2Config.load(**load)
    assert caught.value.key == key
    for needle in needles:
        assert needle in str(caught.value)
    return caught.value
