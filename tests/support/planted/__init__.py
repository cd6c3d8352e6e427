"""Bugs that were made on purpose, each a small patch of the engine that breaks one rule; ``seeds.json`` has a seed that shows each."""

from importlib import import_module

from planted.planting import BUGS

__all__ = ["BUGS"]

# Each adds its own, in the order in which the documentation has them.
for _name in ("bugs", "ways_out", "misread", "sender"):
    import_module(f"planted.{_name}")
