"""The reference has every public name, with what it is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import layer2

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "layer2"
MODULES = [
    "layer2",
    *("layer2.config", "layer2.connect", "layer2.sync"),
    *sorted(
        f"layer2.{path.parent.name}"
        for path in SOURCE.glob("*/__init__.py")
        if "__all__" in path.read_text() and path.parent.name != "cli"
    ),
]
PAGES = sorted((ROOT / "docs").glob("reference-*.md"))


def sections() -> dict[str, str]:
    """Module -> what the reference says of it."""
    found = {}
    for page in PAGES:
        parts = re.split(r"^## (layer2[\w.]*)$", page.read_text(), flags=re.MULTILINE)
        found |= dict(zip(parts[1::2], parts[2::2], strict=True))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_stands_in_the_section_of_its_module(module):
    section = sections()[module]
    names = [name for name in importlib.import_module(module).__all__ if (module, name) != ("layer2.storage", "swaps")]
    headings = set(re.findall(r"^### (\w+)$", section, re.MULTILINE))
    links = set(re.findall(r"^`(\w+)`: see \[", section, re.MULTILINE))
    assert len(names) > 2
    assert set(names) == headings | links


def test_every_module_has_a_section_and_every_page_a_place_on_the_site():
    assert set(sections()) == set(MODULES)
    listed = (ROOT / "docs" / "reference.md").read_text()
    assert all(f"\n{page.stem}\n" in listed for page in PAGES)


def test_every_entry_says_what_the_name_is():
    silent = []
    for module, section in sections().items():
        for name, entry in re.findall(r"^### (\w+)$(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL):
            shown = re.sub(r"^```text$.*?^```$", "", entry, flags=re.MULTILINE | re.DOTALL)
            if not re.search(r"\w{2}", shown) or "```text" not in entry:
                silent.append(f"{module}.{name}")
    assert silent == []


def test_signatures_are_those_of_the_code():
    section = sections()["layer2"]
    manager = section[section.index("### Layer2Manager\n") : section.index("### Layer2ManagerSync\n")]
    for method in ("quote_cross_layer_transfer_async", "health", "close_async", "on_event"):
        assert f"def {method}(" in manager
    for parameter in layer2.Layer2Manager.cross_layer_transfer_async.__annotations__:
        assert parameter == "return" or f"    {parameter}: " in manager
