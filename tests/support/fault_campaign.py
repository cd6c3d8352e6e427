"""What the fault campaign does, and its table: ``make campaign-faults``. A swap that has passed is not made again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from campaign_files import ENDS, Passed, markdown
from fault_rig import Plan, passed_points

if TYPE_CHECKING:
    from fault_rig import Scene, Told, Who

_passed = Passed("faults")
_points = Passed("points")
EVERY = int(os.environ.get("LAYER2_FAULTS_EVERY", "1"))
"""Only every so manieth moment."""


class Moments:
    """Where processes are stopped: at each point that a swap passes which nobody disturbs."""

    def __init__(self, points: Iterable[tuple[Iterable[str], Who, Sequence[str]]]) -> None:
        self._points = points

    @classmethod
    async def of(cls, scene: Scene) -> Moments:
        """Those that were seen once for this version."""
        if _points["points"] is None:
            seen = await passed_points(scene)
            _points["points"] = {"points": [[*party, points] for party, points in seen.items()]}
        return cls(_points["points"]["points"])

    def plans(self, *who: Who) -> list[Plan]:
        """One swap for each moment of these parties, both ways."""
        return [
            Plan((source, destination), party, point)
            for (source, destination), party, points in self._points
            if party in (who or ("client", "provider"))
            for point in points[EVERY // 2 :: EVERY]
        ]


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
