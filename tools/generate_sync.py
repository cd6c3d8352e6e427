"""Writes the sync twins of the async classes: thin typed methods, no logic. ``--check`` only compares.

    python tools/generate_sync.py [--check]

Each public ``X_async`` becomes ``X_sync`` with the same parameters; ``cancel`` becomes a ``threading.Event``, async iterators
become iterators, and objects that have a twin are returned as their twin. Public properties, fields and plain methods are
passed on.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "layer2"


@dataclass(frozen=True)
class Twin:
    """One async class and its sync twin."""

    module: str
    name: str
    twin: str
    base: str | None = None
    skip: frozenset[str] = frozenset()


TARGETS: dict[str, tuple[str, tuple[Twin, ...]]] = {
    "_sync_protocols.py": (
        "Sync twins of the layers.",
        (
            Twin("layer2.protocol", "Layer2ProtocolAsync", "Layer2ProtocolSync"),
            Twin(
                "layer2.bob",
                "BobClient",
                "BobClientSync",
                base="Layer2ProtocolSync",
                skip=frozenset({"node", "rpc", "sender"}),
            ),
            Twin(
                "layer2.lightning",
                "LightningNetwork",
                "LightningNetworkSync",
                base="Layer2ProtocolSync",
                skip=frozenset({"node"}),
            ),
        ),
    ),
    "_sync_manager.py": (
        "Sync twins of the manager and of its transfers.",
        (
            Twin("layer2.transfers", "Transfer", "TransferSync"),
            Twin(
                "layer2.manager",
                "Layer2Manager",
                "ManagerMethods",
                skip=frozenset({"close_async", "embedded_network", "operations"}),
            ),
        ),
    ),
}
RENAMED = {twin.name: twin.twin for _, twins in TARGETS.values() for twin in twins} | {"AsyncIterator": "SyncIterator"}
RENAMED.pop("Layer2Manager")
HOMES = {twin.twin: f"layer2.{file.removesuffix('.py')}" for file, (_, twins) in TARGETS.items() for twin in twins}
HEADER = '''"""{title} Written by tools/generate_sync.py; change the async classes instead."""

from __future__ import annotations

'''


@dataclass
class Names:
    """Where the names come from that the generated text uses."""

    known: dict[str, str] = field(default_factory=dict)
    typing_only: set[str] = field(default_factory=set)
    runtime: set[str] = field(default_factory=set)


def find_class(module: str, name: str) -> tuple[str, ast.Module, ast.ClassDef] | None:
    """The class's definition, following the table of contents of a package to the module that has it."""
    path = SOURCE.joinpath(*module.split(".")[1:])
    candidates = [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else sorted(path.glob("*.py"))
    for file in candidates:
        tree = ast.parse(file.read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                relative = file.relative_to(SOURCE.parent).with_suffix("")
                return ".".join(relative.parts), tree, node
    return None


def imports(module: str, tree: ast.Module) -> dict[str, str]:
    """Name -> module, of everything that the module imports by name or defines, those under TYPE_CHECKING included."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = module
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = module
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = module
    return found


class _Rename(ast.NodeTransformer):
    """Types of the async side -> types of the sync side."""

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.copy_location(ast.Name(id=RENAMED.get(node.id, node.id)), node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if ast.unparse(node.value) == "AsyncGenerator" and isinstance(node.slice, ast.Tuple):
            iterator = ast.Subscript(value=ast.Name(id="AsyncIterator"), slice=node.slice.elts[0], ctx=ast.Load())
            return self.generic_visit(iterator)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if ast.unparse(node) == "asyncio.Event":
            return ast.copy_location(ast.parse("threading.Event", mode="eval").body, node)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return node


def renamed(node: ast.expr | None) -> str:
    """The annotation on the sync side."""
    return "Any" if node is None else ast.unparse(_Rename().visit(ast.parse(ast.unparse(node), mode="eval").body))


def has_twin(node: ast.expr | None) -> bool:
    """Whether a value of this annotation must be replaced by its twin."""
    names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)} if node is not None else set()
    return bool(names & (set(RENAMED) - {"AsyncIterator"}))


def collect(text: str, into: set[str]) -> None:
    """Remember the names that an expression uses."""
    into.update(node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name))


def parameters(arguments: ast.arguments, names: Names) -> tuple[str, str, bool]:
    """The sync signature, the arguments of the call, and whether there is a ``cancel``."""
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if argument.annotation is not None:
            text = renamed(argument.annotation)
            argument.annotation = ast.parse(text, mode="eval").body
            collect(text, names.typing_only)
    for default in [*arguments.defaults, *[item for item in arguments.kw_defaults if item is not None]]:
        collect(ast.unparse(default), names.runtime)
    passed = [argument.arg for argument in arguments.args[1:]]
    cancel = any(argument.arg == "cancel" for argument in arguments.kwonlyargs)
    passed += [
        f"{argument.arg}={'_cancel' if argument.arg == 'cancel' else argument.arg}" for argument in arguments.kwonlyargs
    ]
    return ast.unparse(arguments), ", ".join(passed), cancel


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is decorated with ``overload``."""
    return any(ast.unparse(item).endswith("overload") for item in node.decorator_list)


def is_generator(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether calling it gives an async iterator without awaiting."""
    yields = any(isinstance(item, ast.Yield) for item in ast.walk(node))
    returns = ast.unparse(node.returns) if node.returns is not None else ""
    iterator = returns.startswith(("AsyncIterator", "AsyncGenerator"))
    return iterator and (yields or isinstance(node, ast.FunctionDef))


def method(owner: str, node: ast.FunctionDef | ast.AsyncFunctionDef, names: Names) -> list[str]:
    """The twin of one method."""
    new_name = f"{node.name.removesuffix('_async')}_sync" if node.name.endswith("_async") else node.name
    returns = renamed(node.returns)
    collect(returns, names.typing_only)
    signature, passed, cancel = parameters(node.args, names)
    lines = []
    if is_overload(node):
        names.runtime.add("overload")
        return ["    @overload", f"    def {new_name}({signature}) -> {returns}: ...", ""]
    lines += [f"    def {new_name}({signature}) -> {returns}:", f'        """See ``{owner}.{node.name}``."""']
    what = f'what="{new_name}"'
    call = f"self._async.{node.name}({passed})"
    plain = f"lambda: {call}" if passed else call.removesuffix("()")
    if is_generator(node):
        convert = ", convert=lambda item: twin(self._portal, item)" if has_twin(node.returns) else ""
        expression = f"self._portal.iterate({plain}, {what}{convert})"
    elif isinstance(node, ast.AsyncFunctionDef):
        expression = f"self._portal.call(lambda _cancel: {call}, {what}{', cancel=cancel' if cancel else ''})"
    else:
        expression = f"self._portal.call_plain({plain}, {what})"
    if has_twin(node.returns) and is_generator(node):
        names.runtime.add("twin")
        lines.append(f"        return {expression}")
    elif has_twin(node.returns):
        names.runtime.add("twin")
        lines += [f"        result: {returns} = twin(self._portal, {expression})", "        return result"]
    else:
        lines.append(f"        {'' if returns == 'None' else 'return '}{expression}")
    return [*lines, ""]


def twin_class(twin: Twin, names: Names) -> list[str]:
    """The text of one twin, or nothing if its class does not exist."""
    found = find_class(twin.module, twin.name)
    if found is None:
        return []
    module, tree, node = found
    names.typing_only.add(twin.name)
    own = members(module, tree, node, names)
    names.known[twin.name] = twin.module
    base = twin.base or "Twin"
    names.runtime.add(base)
    inherited = base_members(twin.base)
    lines = [f"class {twin.twin}({base}):", f'    """``{twin.name}`` for code that is not async."""', ""]
    # Only the constructor sets it, and only to what its class says: no caller can break the narrower type.
    narrower = (
        "  # pyright: ignore[reportIncompatibleVariableOverride]  # set by the constructor only" if twin.base else ""
    )
    lines += [f"    _async: {twin.name}{narrower}", ""]
    for item in own:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
            text = renamed(item.annotation)
            collect(text, names.typing_only)
            lines += ["    @property", f"    def {item.target.id}(self) -> {text}:"]
            lines += [
                f'        """See ``{twin.name}.{item.target.id}``."""',
                f"        return self._async.{item.target.id}",
                "",
            ]
        if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) or item.name.startswith("_"):
            continue
        if item.name in twin.skip or item.name in inherited:
            continue
        decorators = {ast.unparse(decorator) for decorator in item.decorator_list}
        if decorators & {"staticmethod", "classmethod"}:
            continue
        if any(decorator.endswith("property") for decorator in decorators):
            text = renamed(item.returns)
            collect(text, names.typing_only)
            lines += ["    @property", f"    def {item.name}(self) -> {text}:"]
            lines += [f'        """See ``{twin.name}.{item.name}``."""', f"        return self._async.{item.name}", ""]
            continue
        lines += method(twin.name, item, names)
    return [*lines, ""]


def members(module: str, tree: ast.Module, node: ast.ClassDef, names: Names) -> list[ast.stmt]:
    """What the class and its bases in this package define; the class itself wins."""
    found = list(node.body)
    known = imports(module, tree)
    names.known |= known
    for base in node.bases:
        home = known.get(ast.unparse(base), "")
        definition = find_class(home, ast.unparse(base)) if home.startswith("layer2") else None
        if definition is not None:
            own = {getattr(item, "name", None) for item in found} - {None}
            found += [item for item in members(*definition, names) if getattr(item, "name", None) not in own]
    return found


def base_members(base: str | None) -> set[str]:
    """Names that the base twin already has."""
    for _, twins in TARGETS.values():
        for twin in twins:
            if twin.twin == base:
                found = find_class(twin.module, twin.name)
                assert found is not None
                return {item.name for item in found[2].body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    return set()


def generate(file: str) -> str:
    """The whole text of one target."""
    title, twins = TARGETS[file]
    names = Names()
    body = [line for twin in twins for line in twin_class(twin, names)]
    own = f"layer2.{file.removesuffix('.py')}"
    known = {
        **names.known,
        **HOMES,
        "Any": "typing",
        "SyncIterator": "layer2._portal",
        "overload": "typing",
        "Twin": "layer2._sync_twin",
        "twin": "layer2._sync_twin",
    }
    runtime = {name for name in names.runtime if known.get(name) not in (None, own)}
    typing_only = {name for name in names.typing_only if known.get(name) not in (None, own)} - runtime
    lines = [f"from {known[name]} import {name}" for name in sorted(runtime | ({"TYPE_CHECKING"} & runtime))]
    lines += ["from typing import TYPE_CHECKING"]
    guarded = [f"    from {known[name]} import {name}" for name in sorted(typing_only)]
    if "threading" in names.typing_only:
        guarded.insert(0, "    import threading")
    text = HEADER.format(title=title) + "\n".join([*lines, "", "if TYPE_CHECKING:", *guarded, "", ""])
    made = [twin.twin for twin in twins if f"class {twin.twin}(" in "\n".join(body)]
    text += f"__all__ = {sorted(made)!r}\n\n\n" + "\n".join(body)
    return formatted(text)


def formatted(text: str) -> str:
    """As the repository's formatter and import sorter want it."""
    ruff = [sys.executable, "-m", "ruff"] if _has_ruff_module() else ["ruff"]
    name = ["--stdin-filename", str(SOURCE / "_sync_generated.py"), "-"]
    fixed = subprocess.run(
        [*ruff, "check", "--quiet", "--fix-only", "--select", "I,F401,RUF022", *name],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return subprocess.run(
        [*ruff, "format", "--quiet", *name], input=fixed, capture_output=True, text=True, check=True
    ).stdout


def _has_ruff_module() -> bool:
    from importlib.util import find_spec

    return find_spec("ruff") is not None


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description="Write the sync twins of the async classes.")
    parser.add_argument("--check", action="store_true", help="only compare; exit code 1 if a file is stale")
    check = parser.parse_args().check
    stale = False
    for file in TARGETS:
        path, text = SOURCE / file, generate(file)
        old = path.read_text() if path.exists() else ""
        if old == text:
            continue
        stale = True
        if check:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), text.splitlines(True), file, "generated"))
        else:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
