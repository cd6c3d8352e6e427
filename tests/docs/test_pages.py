"""What the pages say about the code is compared with the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import layer2
from layer2 import Layer2Config, errors
from layer2.swaps import (
    BOB_TIMING,
    DEVNET_TIMING,
    State,
    reverse_final_cltv,
    reverse_timelock,
    submarine_timelock,
)
from layer2.terms import DepthPolicy
from layer2.transactions import Depth
from layer2.transfers import TransferState

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "layer2"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
STATES = {state.__name__ for state in State.__args__}
FINAL_CLTV = 80
"""What lnd's invoices ask for."""
CODE = re.compile(r"[a-z]+\.[a-z_]+")


def generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_tables_are_up_to_date(capsys):
    assert generator().main(["--check"]) == 0, f"{capsys.readouterr().out}: run python tools/generate_docs.py"


def test_every_setting_has_a_meaning():
    rows = [line for line in generator().configuration().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [line for line in rows if line.endswith("|  |")] == []


def test_every_public_name_is_described():
    rows = [line for line in generator().names().splitlines() if line.startswith("| `")]
    assert {re.match(r"\| `(\w+)`", row)[1] for row in rows} == set(layer2.__all__)
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_error_has_its_section():
    text = (ROOT / "docs" / "errors.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(errors.__all__)
    assert all(len(section.split()) > 5 for section in sections.values())


def test_links_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in LINK.findall(FENCED.sub("", page.read_text())):
            path = target.partition("#")[0]
            if path and "://" not in path and not (page.parent / path).is_file():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_pages_of_the_site_link_to_pages_of_the_site_only():
    """The site is read without the repository."""
    outside = [
        f"{page.name}: {target}"
        for page in sorted((ROOT / "docs").glob("*.md"))
        for target in LINK.findall(FENCED.sub("", page.read_text()))
        if target.startswith("..")
    ]
    assert outside == []


def test_the_guarantees_name_tests_that_exist():
    text = (ROOT / "GUARANTEES.md").read_text()
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert len(files) > 15
    assert {name for name in files if not (ROOT / name).is_file()} == set()
    for name in re.findall(r"`(test_\w+)`", text):
        assert any(f"def {name}(" in (ROOT / file).read_text() for file in files), name
    promises = re.split(r"^## \d\. ", text, flags=re.MULTILINE)[1:]
    assert len(promises) == 6
    rows = [line for promise in promises for line in promise.splitlines() if line.startswith("| ")]
    unbacked = [line for line in rows if "`tests/" not in line and "not shown yet" not in line]
    assert [line for line in unbacked if not line.startswith("| what |")] == []


@pytest.mark.parametrize("machine", ["submarine_client", "submarine_provider", "reverse_client", "reverse_provider"])
def test_diagrams_have_the_states_that_the_machine_enters(machine):
    text = (ROOT / "docs" / "states.md").read_text()
    section = text[text.index(f"`swaps/_{machine}.py`") :].partition("\n## ")[0]
    drawn = {word for line in re.findall(r"^ +(\w+|\[\*\]) --> (\w+)", section, re.MULTILINE) for word in line}
    started = set(re.findall(r"\[\*\] --> (\w+)", section))
    tree = ast.parse((SOURCE / "swaps" / f"_{machine}.py").read_text())
    entered = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert (drawn - {"[*]"}) == (entered & STATES) | started


def test_every_state_of_a_transfer_is_explained():
    text = (ROOT / "docs" / "transfers.md").read_text()
    assert [state.value for state in TransferState if f"| `{state.value}` |" not in text] == []


def test_every_event_code_is_listed():
    text = (ROOT / "docs" / "events.md").read_text()
    listed = set(re.findall(r"`([a-z]+\.[a-z_]+)`", text)) - {"layer2.operation"}
    missing = {code for code in emitted_codes() if code not in listed}
    assert missing == set()


def emitted_codes() -> set[str]:
    """Codes of alarms, events and log records, as they stand in the source."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                values += [keyword.value for keyword in node.keywords if keyword.arg == "alarm"]
                if name in ("_on_alarm", "on_alarm", "log_event", "emit"):
                    values += node.args
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                values += [v for k, v in pairs if isinstance(k, ast.Constant) and k.value == "event_code"]
            found |= {v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)}
    return {code for code in found if CODE.fullmatch(code)}


def test_every_metric_is_listed():
    text = (ROOT / "docs" / "events.md").read_text()
    source = (SOURCE / "_metrics.py").read_text()
    names = set(re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(\w+)"', source))
    assert len(names) >= 5
    assert [name for name in names if f"`{name}`" not in text and f"`{name}_total`" not in text] == []


def test_the_numbers_of_the_trust_page_follow_from_the_deadlines():
    text = (ROOT / "docs" / "trust.md").read_text()
    depths = (
        DepthPolicy(depth=Depth.INCLUDED, confirmations=3),
        DepthPolicy(depth=Depth.SAFE),
        DepthPolicy(depth=Depth.FINALIZED),
    )
    bob, devnet = BOB_TIMING, DEVNET_TIMING
    assert f"about {submarine_timelock(bob, 0, FINAL_CLTV) / 86_400:.1f} days" in text
    assert f"| {submarine_timelock(devnet, 0, FINAL_CLTV)} s |" in text
    assert " / ".join(f"{reverse_timelock(bob, depth, 0) / 3_600:.1f}" for depth in depths) + " hours" in text
    assert " / ".join(str(reverse_final_cltv(bob, depth)) for depth in depths) in text
    lowest, highest = (reverse_final_cltv(devnet, depth) for depth in (depths[0], depths[2]))
    assert f"| {lowest} to {highest}, one a second |" in text
    assert f"D, the time within which a claim is assumed to be included, is\n{bob.evm_inclusion_s} seconds" in text
    assert f"({bob.route_cltv_blocks + FINAL_CLTV} blocks here)" in text
    rules = [rule for rule in Layer2Config(network="bob").depth_rules if rule.up_to is not None]
    assert [f"{rule.up_to:,} satoshi" in text or f"{rule.up_to:,} at" in text for rule in rules] == [True, True]


def test_settings_files_in_the_pages_are_accepted(tmp_path):
    checked = 0
    for page in PAGES:
        for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            settings = tomllib.loads(text)
            settings["lightning"] = {**settings["lightning"], "macaroon": "ab" * 16}
            settings["signer"] = {**settings["signer"], "password": "secret"}
            Layer2Config.load(environ={"HOME": str(tmp_path)}, **settings)
            checked += 1
    assert checked >= 2


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "html"), "-d", str(tmp_path / "trees")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "html" / "index.html").is_file()


def test_the_runbook_says_what_to_do_about_every_alarm():
    events, runbook = ((ROOT / "docs" / name).read_text() for name in ("events.md", "runbook.md"))
    alarms = {code for line in events.splitlines() if "| ERROR |" in line for code in CODE.findall(line.split("|")[1])}
    assert len(alarms) >= 10
    table = runbook[runbook.index("## Alarms") :]
    assert alarms == {
        code for line in table.splitlines()[4:] if "|" in line for code in CODE.findall(line.split("|")[1])
    }
