"""The package's table of contents."""

import subprocess
import sys

import pytest

import layer2.lightning as package


def test_every_name_in_the_table_is_there():
    assert sorted(package.__all__) == package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = package.nothing_of_the_kind


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, layer2.lightning; "
        "print(*[m for m in ('pydantic', 'aiohttp', 'sqlalchemy', 'btclib_secp256k1') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_decoding_needs_no_network_and_no_pydantic(vectors):
    code = (
        "import sys; from layer2.lightning import decode_invoice; decode_invoice(sys.argv[1]); "
        "print(*[m for m in ('pydantic', 'aiohttp', 'sqlalchemy', 'socket') if m in sys.modules])"
    )
    text = vectors["valid"][0]["text"]
    done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
