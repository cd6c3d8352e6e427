from __future__ import annotations

import subprocess
import sys

import pytest

import layer2.storage


def test_everything_that_is_named_is_there():
    for name in layer2.storage.__all__:
        assert getattr(layer2.storage, name) is not None
    assert dir(layer2.storage) == sorted(layer2.storage.__all__)
    for name in layer2.storage.swaps.__all__:
        assert callable(getattr(layer2.storage.swaps, name))


def test_what_is_not_named_is_not_there():
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        layer2.storage.nothing_of_that_name  # noqa: B018


def test_importing_the_package_does_not_load_the_database_library():
    code = "import sys, layer2.storage; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
