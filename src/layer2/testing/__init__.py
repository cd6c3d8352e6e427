"""For people who test: a mock of a layer, a virtual clock, a simulator, conformance suites, a search for leaked secrets.

The pytest plugin is ``layer2.testing.pytest``. Importing this package loads nothing else until a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unittest.mock import ANY

    from layer2.devnet import EmbeddedNetwork
    from layer2.lightning._faults import FaultyLightningNode, LightningFault
    from layer2.testing._canary import Canaries
    from layer2.testing._lightning_conformance import LightningHarness, LightningNodeConformance
    from layer2.testing._mock import Expectation, MockCall, MockFailure, MockLayer2Protocol
    from layer2.testing._protocol_conformance import ConformanceSubject, Layer2ProtocolConformance
    from layer2.testing._simulation import Simulation, simulate
    from layer2.testing._simulation_checks import Violation
    from layer2.testing._simulation_many import SimulationTally, simulate_many
    from layer2.testing._simulation_plan import SimulationPlan, draw_plan
    from layer2.testing._simulation_report import SimulationReport
    from layer2.testing._simulation_shrink import shrink
    from layer2.testing._virtual_clock import VirtualClock

__all__ = [
    "ANY",
    "Canaries",
    "ConformanceSubject",
    "EmbeddedNetwork",
    "Expectation",
    "FaultyLightningNode",
    "Layer2ProtocolConformance",
    "LightningFault",
    "LightningHarness",
    "LightningNodeConformance",
    "MockCall",
    "MockFailure",
    "MockLayer2Protocol",
    "Simulation",
    "SimulationPlan",
    "SimulationReport",
    "SimulationTally",
    "Violation",
    "VirtualClock",
    "draw_plan",
    "shrink",
    "simulate",
    "simulate_many",
]

_HOME = {
    "ANY": "unittest.mock",
    "Canaries": "layer2.testing._canary",
    "ConformanceSubject": "layer2.testing._protocol_conformance",
    "EmbeddedNetwork": "layer2.devnet",
    "Expectation": "layer2.testing._mock",
    "FaultyLightningNode": "layer2.lightning._faults",
    "Layer2ProtocolConformance": "layer2.testing._protocol_conformance",
    "LightningFault": "layer2.lightning._faults",
    "LightningHarness": "layer2.testing._lightning_conformance",
    "LightningNodeConformance": "layer2.testing._lightning_conformance",
    "MockCall": "layer2.testing._mock",
    "MockFailure": "layer2.testing._mock",
    "MockLayer2Protocol": "layer2.testing._mock",
    "Simulation": "layer2.testing._simulation",
    "SimulationPlan": "layer2.testing._simulation_plan",
    "SimulationReport": "layer2.testing._simulation_report",
    "SimulationTally": "layer2.testing._simulation_many",
    "Violation": "layer2.testing._simulation_checks",
    "VirtualClock": "layer2.testing._virtual_clock",
    "draw_plan": "layer2.testing._simulation_plan",
    "shrink": "layer2.testing._simulation_shrink",
    "simulate": "layer2.testing._simulation",
    "simulate_many": "layer2.testing._simulation_many",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
