"""Writes the tables of the documentation that follow from the code. ``--check`` only compares.

    python tools/generate_docs.py [--check]

A page holds ``<!-- generated: NAME -->`` and ``<!-- end -->``; what stands between is replaced.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import generate_reference  # noqa: E402 - it lies beside this file, wherever that was started from

BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
SECTIONS = {
    "": "Layer2Config",
    "bob": "BobConfig",
    "lightning": "LightningConfig",
    "signer": "SignerConfig",
    "swap": "SwapConfig",
    "swap.depth": "DepthRule",
    "assets.NAME": "AssetConfig",
    "store": "StoreConfig",
    "connection_pool": "ConnectionPoolConfig",
    "provider": "ProviderConfig",
}
TYPES = {
    "str": "text",
    "int": "whole number",
    "bool": "true or false",
    "Path": "path",
    "Secret": "secret",
    "EvmAddress": "address",
    "Mapping[str, int]": "table of whole numbers",
    "tuple[str, ...]": "list of texts",
    "tuple[DepthRule, ...]": "list of `swap.depth`",
}
_EVERYWHERE = ("help", "json_output", "config_path", "debug")
TWINS = ("Layer2ManagerSync", "TransferSync", "Layer2ProtocolSync", "BobClientSync", "LightningNetworkSync")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def markdown(text: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(text.replace("``", "`").split())


def attribute_docs(body: list[ast.stmt]) -> dict[str, str]:
    """Name -> the string that stands under it."""
    docs = {}
    for item, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
        if isinstance(target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            docs[target.id] = markdown(str(text))
    return docs


def bounds_of(node: ast.ClassDef) -> dict[str, tuple[int, int]]:
    """The ranges that ``__post_init__`` checks."""
    names: dict[str, Any] = {}
    found = {}
    for item in ast.walk(node):
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.Tuple) and isinstance(item.targets[0], ast.Name):
            names[item.targets[0].id] = _number(item.value, {})
        if isinstance(item, ast.Call) and getattr(item.func, "attr", "") == "_bounds":
            found.update({keyword.arg: _number(keyword.value, names) for keyword in item.keywords})
    return {name: value for name, value in found.items() if name is not None}


def _number(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "bounds", "eval"), {"__builtins__": {}}, names)


def power(value: int) -> str:
    """A bound as people write it."""
    for exponent in (53, 63, 64):
        for less in (0, 1):
            if value == 2**exponent - less:
                return f"2^{exponent}" + (" - 1" if less else "")
    return f"{value:,}"


def type_name(annotation: str) -> str:
    """A type annotation in words."""
    parts = [part.strip() for part in annotation.split(" | ") if part.strip() != "None"]
    shown = []
    for part in parts:
        if part.startswith("Literal["):
            shown += [f"`{value}`" for value in ast.literal_eval(f"({part[8:-1]},)")]
        else:
            shown.append(TYPES.get(part, part))
    return ", ".join(shown)


def configuration() -> str:
    """Every setting, section by section."""
    import layer2.config as module

    tree = ast.parse(inspect.getsource(module))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    parts = []
    for section, name in SECTIONS.items():
        node = classes[name]
        docs, bounds = attribute_docs(node.body), bounds_of(node)
        rows = []
        for item in node.body:
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            key = item.target.id
            if not section and (key in SECTIONS or key == "assets"):
                continue
            limits = f"{power(bounds[key][0])} to {power(bounds[key][1])}" if key in bounds else ""
            kind = type_name(ast.unparse(item.annotation))
            rows.append((f"`{key}`", f"{kind}, {limits}" if limits else kind, default_of(item.value), docs[key]))
        title = f"`[{section}]`" if section else "Top level"
        if section == "swap.depth":
            title = "`[[swap.depth]]`"
        parts += [
            f"### {title}\n\n{markdown(ast.get_docstring(node) or '')}\n\n",
            table(("key", "type", "default", "meaning"), rows),
        ]
    return "\n".join(parts)


def default_of(value: ast.expr | None) -> str:
    """The default of a field, as it stands in a settings file."""
    if isinstance(value, ast.Call):
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if "default_factory" in given:
            return "empty"
        value = given.get("default")
    if value is None:
        return "needed"
    constant = ast.literal_eval(value)
    match constant:
        case None:
            return "none"
        case bool():
            return f"`{str(constant).lower()}`"
        case int():
            return f"`{constant:_}`"
        case _:
            return f"`{constant}`"


def twins() -> str:
    """Each blocking call and its async twin."""
    import layer2
    from layer2 import sync

    rows = []
    for name in TWINS:
        cls = getattr(layer2, name, None) or getattr(sync, name)
        owner = name.removesuffix("Sync")
        shown = {"Layer2Protocol": "every layer"}.get(owner, f"`{owner}`")
        known = set() if name in TWINS[:3] else set(dir(sync.Layer2ProtocolSync))
        rows += [
            (
                shown,
                f"`{method}(...)`",
                f"`{'async for ... in ' if iterates(cls, method) else 'await '}{method.removesuffix('_sync')}_async(...)`",
            )
            for method in sorted(dir(cls))
            if method.endswith("_sync") and not method.startswith("_") and method not in known
        ]
    return table(("of", "blocking", "async"), rows)


def iterates(cls: type, method: str) -> bool:
    """Whether the call gives an iterator."""
    return "SyncIterator" in str(inspect.signature(getattr(cls, method)).return_annotation)


def errors() -> str:
    """What is true of each class of error."""
    from layer2 import errors as module

    yes = {True: "maybe", False: "no"}
    rows = []
    for name in module.__all__:
        cls = getattr(module, name)
        also = [
            base.__name__
            for base in cls.__mro__[1:]
            if base.__module__ == "builtins"
            and base.__name__ not in ("Exception", "BaseException", "object", "OSError")
        ]
        fields = sorted(cls._field_names())
        rows.append(
            (
                f"[`{name}`](#{name.lower()})",
                f"`{cls.__mro__[1].__name__}`" + (f", `{also[0]}`" if also else ""),
                yes[cls.default_money_may_have_moved],
                {True: "yes", False: "see below"}[cls.default_retry_safe],
                ", ".join(f"`{field}`" for field in fields),
            )
        )
    return table(("error", "is a", "money moved?", "retry safe?", "fields"), rows)


def http_api() -> str:
    """The provider's interface, from its own OpenAPI description."""
    from types import SimpleNamespace

    from layer2 import SystemClock
    from layer2.provider._http import create_app

    schema = create_app(SimpleNamespace(version="0"), clock=SystemClock()).openapi()  # type: ignore[arg-type]  # never asked
    parts = []
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.append(
                f"### `{method.upper()} {path}`\n\n{operation['summary']}. {markdown(operation.get('description', ''))}\n"
            )
            if body := operation.get("requestBody"):
                parts.append(f"Takes {reference(body['content'])}.\n")
            rows = [
                (code, reference(answer.get("content", {})) or "", markdown(answer["description"]))
                for code, answer in sorted(operation["responses"].items())
            ]
            parts.append(table(("status", "body", "meaning"), rows))
    parts.append("## Shapes\n")
    meanings = documented_fields()
    for name, shape in sorted(schema["components"]["schemas"].items()):
        about = f"### {name}\n\n{markdown(shape.get('description', ''))}\n\n"
        if "properties" in shape:
            needed = set(shape.get("required", ()))
            known = meanings.get(name, {})
            rows = [
                (f"`{key}`", json_type(value), "yes" if key in needed else "", known.get(snake_case(key), ""))
                for key, value in shape["properties"].items()
            ]
            parts.append(about + table(("field", "type", "always", "meaning"), rows))
        else:
            values = ", ".join(f"`{value}`" for value in shape.get("enum", ()))
            parts.append(f"{about}{values or json_type(shape)}\n")
    return "\n".join(parts)


def documented_fields() -> dict[str, dict[str, str]]:
    """Class -> field -> meaning, of everything that crosses the provider's interface."""
    found = {}
    for name in ("terms", "transactions", "swaps/_wire"):
        tree = ast.parse((ROOT / "src" / "layer2" / f"{name}.py").read_text())
        found.update({node.name: attribute_docs(node.body) for node in tree.body if isinstance(node, ast.ClassDef)})
    return found


def snake_case(name: str) -> str:
    """``amountMsat`` as ``amount_msat``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", name)


def reference(content: dict[str, Any]) -> str:
    """What stands in a body."""
    for kind, media in content.items():
        shown = json_type(media.get("schema", {}))
        return shown if kind in ("application/json", "application/problem+json") else f"`{kind}`"
    return ""


def json_type(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(json_type(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        inner = schema.get("items") or {"type": "array", "prefixItems": schema.get("prefixItems", [])}
        return "list of " + (
            json_type(inner)
            if schema.get("items")
            else ", ".join(json_type(x) for x in inner["prefixItems"]) or "values"
        )
    if "const" in schema:
        return f"`{schema['const']}`"
    if "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        return f"table of {json_type(schema['additionalProperties'])}"
    return str(schema.get("type", "")) or ""


def command_line() -> str:
    """Every command with its options."""
    import typer.main

    from layer2.cli._app import app

    def walk(command: Any, path: str) -> Iterator[str]:
        yield f"### `{path}`\n\n{paragraphs(command.help or '')}\n"
        context = command.context_class(command, info_name=path)
        rows = []
        for parameter in command.get_params(context):
            if getattr(parameter, "hidden", False) or parameter.name in _EVERYWHERE:
                continue
            record = parameter.get_help_record(context) or ("", getattr(parameter, "help", None) or "")
            argument = parameter.param_type_name == "argument"
            shown = record[0].split()[0].upper() if argument else record[0].replace(" range>", ">")
            rows.append((f"`{shown}`", markdown(record[1])))
        if rows:
            yield table(("argument or option", "meaning"), rows)
        for name, child in sorted(getattr(command, "commands", {}).items()):
            if not child.hidden:
                yield from walk(child, f"{path} {name}")

    return "\n".join(walk(typer.main.get_command(app), "layer2"))


def exit_codes() -> str:
    """What each exit code means."""
    from layer2.cli import _exit as module

    node = next(item for item in ast.parse(inspect.getsource(module)).body if getattr(item, "name", "") == "ExitCode")
    rows = []
    for item, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if isinstance(item, ast.Assign):
            text = (
                after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else "Done."
            )
            rows.append((str(ast.literal_eval(item.value)), markdown(str(text))))
    return table(("code", "meaning"), rows)


def paragraphs(text: str) -> str:
    """A help text as paragraphs of Markdown."""
    return "\n\n".join(markdown(part) for part in inspect.cleandoc(text).replace("\b", "").split("\n\n"))


def names() -> str:
    """Every name of ``layer2`` and its first sentence."""
    import layer2

    constants: dict[str, str] = {}
    for module in ("_observe", "assets", "addresses", "protocol", "transactions", "transfers", "proofs/_proof"):
        constants |= attribute_docs(ast.parse((ROOT / "src" / "layer2" / f"{module}.py").read_text()).body)
    rows = []
    for name in sorted(layer2.__all__, key=str.lower):
        value = getattr(layer2, name)
        own = inspect.isclass(value) or inspect.isfunction(value)
        text = (inspect.getdoc(value) if own else constants.get(name)) or ""
        rows.append((f"`{name}`", re.split(r"(?<=\.)\s", markdown(text))[0]))
    return table(("name", "what it is"), rows)


GENERATORS: dict[str, Callable[[], str]] = {
    "command-line": command_line,
    "configuration": configuration,
    "errors": errors,
    "exit-codes": exit_codes,
    "http-api": http_api,
    "names": names,
    "twins": twins,
    **{f"reference-{name}": partial(generate_reference.page, name) for name in generate_reference.PAGES},
}


def main(arguments: list[str] | None = None) -> int:
    """Write the tables, or compare them. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="only compare; exit status 1 if a page is not up to date")
    check = parser.parse_args(arguments).check
    stale = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        old = page.read_text()
        new = BLOCK.sub(lambda match: f"{match[1]}\n{GENERATORS[match[2]]()}\n{match[3]}", old)
        if new != old:
            stale.append(page.name)
            if not check:
                page.write_text(new)
    if stale:
        print(f"{'not up to date' if check else 'written'}: {', '.join(stale)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
