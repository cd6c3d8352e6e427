"""The reference: every public name with its signature and docstring, as they stand in the source.

Signatures are read from the source, not from the objects: so they are the same on every version of Python.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).resolve().parent.parent / "src" / "layer2"
PAGES: Final = {
    "layer2": ("layer2",),
    "lightning": ("layer2.lightning",),
    "evm": ("layer2.bob", "layer2.evm", "layer2.signers"),
    "proofs": ("layer2.proofs",),
    "testing": ("layer2.testing", "layer2.devnet"),
    "provider": ("layer2.provider", "layer2.connect", "layer2.config"),
    "sync": ("layer2.sync",),
    "swaps": ("layer2.swaps", "layer2.storage"),
}
"""Page -> the modules on it, in the order in which a name's home is looked for."""
_SECTION: Final = re.compile(r"(Args|Raises|Returns|Yields):")
_LONGEST_LINE: Final = 100


def page(name: str) -> str:
    """The body of one page."""
    parts = []
    for module in PAGES[name]:
        parts.append(f"## {module}\n\n{_text(inspect.getdoc(importlib.import_module(module)) or '')}")
        parts += [_entry(module, item) for item in sorted(public_names(module), key=str.lower)]
    return "\n\n".join(parts) + "\n"


def public_names(module: str) -> list[str]:
    """What a module offers, without the modules among it."""
    found = importlib.import_module(module)
    return [name for name in found.__all__ if not inspect.ismodule(getattr(found, name))]


@cache
def _homes() -> dict[str, tuple[str, str]]:
    """Name -> the page and module that describe it: the first on which the very same object stands."""
    homes: dict[str, tuple[str, str]] = {}
    for name, modules in PAGES.items():
        for module in modules:
            for item in public_names(module):
                homes.setdefault(item, (name, module))
    return homes


def _entry(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) and value.__module__ == "layer2.errors":
        return f"`{name}`: see [errors](errors.md#{name.lower()})."
    home_page, home = _homes()[name]
    if home != module and getattr(importlib.import_module(home), name) is value:
        return f"`{name}`: see [{home}](reference-{home_page}.md#{name.lower()})."
    heading = f"### {name}\n\n"
    if inspect.isclass(value) and value.__module__ == "layer2.config":
        return f"{heading}{_class(value)}\n\nEvery setting: see [configuration](configuration.md)."
    if inspect.isclass(value):
        return heading + _class(value)
    if inspect.isfunction(inspect.unwrap(value)):
        node = _node(inspect.unwrap(value))
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        return f"{heading}{_code(_signature(node))}\n\n{_text(inspect.getdoc(value) or '')}"
    shown, text = _constant(module, name, value)
    return f"{heading}{_code(shown)}\n\n{_text(text)}"


def _node(value: Any) -> ast.stmt:
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _class(value: type[Any]) -> str:
    node = _node(value)
    assert isinstance(node, ast.ClassDef)
    bases = ", ".join(base for base in map(ast.unparse, node.bases) if not base.startswith("_") and base != "Value")
    lines = [f"class {node.name}({bases})" if bases else f"class {node.name}"]
    parts = [_text(_own_doc(node))]
    if issubclass(value, enum.Enum):
        parts += [f"- `{name}`{f': {text}' if text else ''}" for name, text in _fields(node)]
        return "\n\n".join([_code(lines[0]), parts[0], "\n".join(parts[1:])])
    fields: dict[str, str] = {}
    methods: dict[str, tuple[str, str]] = {}
    for part in reversed(_described_with(value)):
        own = _node(part)
        assert isinstance(own, ast.ClassDef)
        fields.update(_annotated(own))
        methods.update(_methods(own))
    init = methods.pop("__init__", None)
    if init is not None:
        lines = [init[0].replace("def __init__", f"class {node.name}").removesuffix(" -> None")]
        parts.append(init[1])
    rows = [f"- `{declared}`{f': {text}' if text else ''}" for declared, text in _pairs(fields)]
    blocks = [_code(lines[0]), *[part for part in parts if part], *(["\n".join(rows)] if rows else [])]
    for declared, text in methods.values():
        blocks.append("\n\n".join(filter(None, [_code(declared), text])))
    return "\n\n".join(blocks)


def _pairs(fields: dict[str, str]) -> Iterator[tuple[str, str]]:
    for entry in fields.values():
        declared, _, text = entry.partition("\0")
        yield declared, text


def _described_with(value: type[Any]) -> list[type[Any]]:
    """A class and those of its bases that have no place of their own in the reference."""
    found = [value]
    for base in value.__mro__[1:]:
        home = _homes().get(base.__name__)
        public = home is not None and getattr(importlib.import_module(home[1]), base.__name__) is base
        if base.__module__.startswith("layer2") and not public and base.__name__ not in ("Value", "_Section"):
            found.append(base)
    return found


def _own_doc(node: ast.ClassDef) -> str:
    return ast.get_docstring(node) or ""


def _documented(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    for item, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        yield item, str(after.value.value) if is_text and isinstance(after.value.value, str) else ""  # type: ignore[attr-defined]  # checked


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Members of an enum."""
    for item, text in _documented(node.body):
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            yield f"{item.targets[0].id} = {ast.unparse(item.value)}", _line(text)


def _annotated(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for item, text in _documented(node.body):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
            declared = f"{item.target.id}: {ast.unparse(item.annotation)}"
            if item.value is not None and not isinstance(item.value, ast.Call):
                declared += f" = {ast.unparse(item.value)}"
            found[item.target.id] = f"{declared}\0{_line(text)}"
    return found


def _methods(node: ast.ClassDef) -> dict[str, tuple[str, str]]:
    found = {}
    for item in node.body:
        if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) or item.name.startswith("test_"):
            continue
        decorators = [ast.unparse(decorator) for decorator in item.decorator_list]
        if "overload" in decorators or any(decorator.endswith(".setter") for decorator in decorators):
            continue
        if item.name.startswith("_") and item.name != "__init__":
            continue
        text = _text(ast.get_docstring(item) or "")
        if {"property", "cached_property", "functools.cached_property"} & set(decorators):
            returns = f": {ast.unparse(item.returns)}" if item.returns is not None else ""
            found[item.name] = (f"{item.name}{returns}  # property", text)
            continue
        prefix = "".join(f"@{name}\n" for name in decorators if name in ("classmethod", "staticmethod"))
        found[item.name] = (prefix + _signature(item, bound="staticmethod" not in decorators), text)
    return found


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool = False) -> str:
    """The head of a function; what is bound to the object is left out, and long ones are broken after each parameter."""
    start = ("async def " if isinstance(node, ast.AsyncFunctionDef) else "def ") + node.name
    end = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    shown = node.args
    if bound:
        place = shown.posonlyargs or shown.args
        place.pop(0)
    whole = f"{start}({', '.join(_parameters(shown))}){end}"
    if len(whole) <= _LONGEST_LINE:
        return whole
    return f"{start}(\n{''.join(f'    {part},{chr(10)}' for part in _parameters(shown))}){end}"


def _parameters(shown: ast.arguments) -> Iterator[str]:
    positional = [*shown.posonlyargs, *shown.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(shown.defaults)) + list(shown.defaults)
    for index, (parameter, default) in enumerate(zip(positional, defaults, strict=True), 1):
        yield _parameter(parameter, default)
        if index == len(shown.posonlyargs):
            yield "/"
    if shown.vararg is not None:
        yield "*" + _parameter(shown.vararg, None)
    elif shown.kwonlyargs:
        yield "*"
    for parameter, default in zip(shown.kwonlyargs, shown.kw_defaults, strict=True):
        yield _parameter(parameter, default)
    if shown.kwarg is not None:
        yield "**" + _parameter(shown.kwarg, None)


def _parameter(parameter: ast.arg, default: ast.expr | None) -> str:
    typed = parameter.arg if parameter.annotation is None else f"{parameter.arg}: {ast.unparse(parameter.annotation)}"
    return typed if default is None else f"{typed} = {ast.unparse(default)}"


@cache
def _constants(folder: Path, pattern: str) -> dict[str, tuple[str, str]]:
    """Every name that is assigned at the top of a file -> how, and what stands under it."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob(pattern), reverse=True):
        for item, text in _documented(ast.parse(path.read_text(encoding="utf-8")).body):
            target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
            if isinstance(target, ast.Name) and getattr(item, "value", None) is not None:
                shown = ast.unparse(item)
                declared = shown if len(shown) <= _LONGEST_LINE else f"{target.id} = ..."
                if text or target.id not in found:
                    found[target.id] = (declared, text)
    return found


def _constant(module: str, name: str, value: Any) -> tuple[str, str]:
    """How a constant is made and what it is; the files of its own package come first."""
    own = SOURCE.joinpath(*module.split(".")[1:])
    for folder, pattern in ((own, "*.py"), (SOURCE, "**/*.py")):
        if name in (found := _constants(folder, pattern)):
            return found[name]
    return name, f"From ``{type(value).__module__}``."


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _line(text: str) -> str:
    """Text of a docstring as one line of Markdown."""
    parts = re.split(r"(``[^`]*``|`[^`]*`)", " ".join(text.split()))
    return "".join(
        part.replace("``", "`") if part.startswith("`") else re.sub(r"([<*\[\]])", r"\\\1", part) for part in parts
    )


def _text(text: str) -> str:
    """A docstring as Markdown: paragraphs, and lists of arguments and errors."""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        head, *rest = block.splitlines() or [""]
        section = _SECTION.fullmatch(head.strip())
        if section is not None:
            entries = re.split(r"\n(?=\S)", textwrap.dedent("\n".join(rest)))
            parts.append(f"{section[1]}:\n\n" + "\n".join(f"- {_argument(section[1], entry)}" for entry in entries))
        elif block.startswith("    "):
            parts.append(_code(textwrap.dedent(block)))
        elif head.startswith("- "):
            parts.append("\n".join(f"- {_line(entry)}" for entry in re.split(r"(?:^|\n)- ", block)[1:]))
        else:
            parts.append(_line(block))
    return "\n\n".join(part for part in parts if part)


def _argument(section: str, entry: str) -> str:
    name, colon, meaning = entry.partition(": ")
    if section == "Args" and colon and re.fullmatch(r"[\w*, ]+", name):
        return f"`{name}`: {_line(meaning)}"
    return _line(entry)
