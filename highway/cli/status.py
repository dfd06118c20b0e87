"""The command status: the machines of a running chain, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from highway.engine.stats import MachineStats, table_of_machines, verdict_on_machines
from highway.network.status import ask

__all__ = ["as_json", "as_table", "ask"]


def verdict(machines: Sequence[MachineStats]) -> str:
    """Return the verdict of the training machine, or what the figures of the other machines say."""
    told = [machine.verdict for machine in machines if machine.verdict]
    return told[0] if told else verdict_on_machines([each for each in machines if each.role != "trainer"])


def as_table(machines: Sequence[MachineStats]) -> str:
    """Return a line for every machine under a header, and the verdict."""
    return f"{table_of_machines(machines)}\n{verdict(machines)}"


def as_json(machines: Sequence[MachineStats]) -> str:
    """Return the figures as JSON: ``machines``, a list of maps, and ``verdict``."""
    found = [dataclasses.asdict(machine) for machine in machines]
    return json.dumps({"machines": found, "verdict": verdict(machines)}, indent=2)
