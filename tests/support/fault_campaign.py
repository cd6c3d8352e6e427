"""The table of the fault campaign: ``make campaign-faults``. A swap that has passed is not made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from campaign_files import ENDS, Passed, markdown

if TYPE_CHECKING:
    from fault_rig import Plan, Told

_passed = Passed("faults")


def left(fault: str, plans: Iterable[Plan]) -> list[Plan]:
    """The swaps that were not yet made with this fault."""
    done = _swaps(fault)
    return [plan for plan in plans if plan.name not in done]


def keep(fault: str, told: Told) -> None:
    """Write down how swaps have ended."""
    new = {swap.plan.name: [swap.held_at is not None, swap.ends.partition(":")[0]] for swap in told.swaps}
    _passed[fault] = {"fault": fault, "swaps": _swaps(fault) | new}


def _swaps(fault: str) -> dict[str, list[bool | str]]:
    kept = _passed[fault]
    return {} if kept is None else kept["swaps"]


def table() -> str:
    """All that was done, as a Markdown table."""
    header = ("fault", "swaps", "stopped at their moment", *ENDS.values())
    return markdown(header, 1, [((kept["fault"],), _figures(kept["swaps"].values())) for kept in _passed])


def _figures(swaps: Iterable[tuple[bool, str]]) -> dict[str, int]:
    made = list(swaps)
    ends = Counter(end for _, end in made)
    held = sum(was_held for was_held, _ in made)
    return {"swaps": len(made), "stopped at their moment": held, **{name: ends[end] for end, name in ENDS.items()}}
