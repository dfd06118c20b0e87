"""Measures participants in turns on one set of numbered photographs: the rows of formats.py and remote.py."""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import install_peers
import machine
import subject
from participants.registry import HIGHWAY_READERS, LOADERS, Participant
from peers import Row, positive, say

JOB = "rrc"
# A batch.
LEAST_PHOTOGRAPHS = 64


@dataclass
class Turn(Row):
    """A row whose participant reads the photographs in one form.

    Attributes
    ----------
    settings : dict
        Of the variant, besides "kind".
    compared : str
        Label of the row of the same photographs on this machine.
    workers : int
        Threads or worker processes.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    compared: str = ""
    workers: int = 0

    @property
    def peer(self) -> bool:
        """Whether it is not Highway."""
        return self.participant in LOADERS

    @property
    def written_as(self) -> str:
        """The variant and the number of workers, in words."""
        return ", ".join(filter(None, (self.variant, f"{self.workers} workers")))

    def epoch_rates(self, photographs: int) -> list[float]:
        """Images per second of the first epoch in each round, from its start."""
        return [photographs / result["first_epoch_seconds"] for result in self.results]


def turn_of(label: str, participant: Participant, *, compared: str = "", **settings: Any) -> Turn:
    """Return the row of a participant that reads what `settings` say."""
    return Turn(label, participant, participant.variants[JOB], settings=settings, compared=compared)


def highway(label: str, reader: str, source: str, *, compared: str = "", **settings: Any) -> Turn:
    """Return the row of a reader of Highway."""
    return turn_of(label, HIGHWAY_READERS, compared=compared, reader=reader, source=source, **settings)


class Turns:
    """Runs rows in turns.

    Parameters
    ----------
    rows : list of Turn
    options : argparse.Namespace
        Those of `add_options`.
    folder : path
        The photographs, whose sorted names have the order of their numbers.
    colors : Path
        Their mean colors, of `photographs.write_colors`.
    environment : mapping of str to str, optional
        Variables for the participants.
    """

    def __init__(
        self,
        rows: list[Turn],
        options: argparse.Namespace,
        folder: Path,
        colors: Path,
        environment: Mapping[str, str] | None = None,
    ):
        self.rows, self.options = rows, options
        self.folder, self.colors, self.environment = folder, colors, environment

    def run(self, row: Turn, variant: str, workers: int, *, trial: bool = False) -> dict[str, Any]:
        """Run a row once; a trial is half as long, and begins without a whole epoch."""
        options = self.options
        share = 0.5 if trial else 1.0
        return subject.measure(
            row.participant,
            options.interpreters[row.participant.name],
            str(self.folder),
            JOB,
            variant=json.dumps({"kind": variant} | row.settings),
            threads=workers,
            warmup=share * options.warmup,
            seconds=share * options.seconds,
            seed=len(row.results),
            colors=self.colors,
            whole_epoch=not trial,
            environment=self.environment,
        )

    def try_all(self) -> None:
        """Find the fastest variant of each peer, with as many workers as cores, and then its number of workers."""
        for row in self.active():
            row.variant, row.workers = row.variants[0], self.options.threads
            if row.peer:
                reasons = self._try(row, [(variant, row.workers) for variant in row.variants])
                if not row.trials:
                    row.fail("failed", "; ".join(reasons))
                    continue
                others = [number for number in self.options.workers if number != row.workers]
                self._try(row, [(row.variant, number) for number in others])

    def _try(self, row: Turn, pairs: Iterable[tuple[str, int]]) -> list[str]:
        """Try variants and numbers of workers, and choose the fastest so far; return the reasons of failures."""
        reasons = []
        for variant, workers in pairs:
            result = self.run(row, variant, workers, trial=True)
            name = f"{variant}, {workers} workers"
            if result["status"] == "ok":
                row.trials[name] = result["images_per_second"]
                if row.trials[name] == max(row.trials.values()):
                    row.variant, row.workers = variant, workers
                say(f"trial: {row.label} as {name}: {row.trials[name]:.0f} images/s")
            else:
                reasons.append(f"{name}: {result['reason']}")
                say(f"trial: {row.label} as {reasons[-1]}")
        return reasons

    def active(self) -> list[Turn]:
        """Rows that have not failed."""
        return [row for row in self.rows if row.status == "ok"]

    def measure(self) -> None:
        """Run all rounds, each in another order."""
        self.try_all()
        for number in range(self.options.rounds):
            rows = self.active()
            shift = number % max(1, len(rows))
            for row in rows[shift:] + rows[:shift]:
                result = self.run(row, row.variant, row.workers)
                if result["status"] == "ok":
                    row.results.append(result)
                    outcome = f"{result['images_per_second']:.0f} images/s"
                else:
                    row.fail(result["status"], result["reason"])
                    outcome = f"{row.status}: {row.reason}"
                say(f"round {number + 1} of {self.options.rounds}: {row.label}: {outcome}")

    def row(self, label: str) -> Turn | None:
        """Return the row of that name, if it is measured."""
        return next((row for row in self.active() if row.label == label), None)

    def failures(self) -> list[str]:
        """Say why rows are missing, a line for each."""
        return [
            f"- {row.label}: {row.status}: {row.reason.splitlines()[0]}"
            for row in self.rows
            if row.status != "ok"
        ]

    def busy(self) -> str:
        """How busy other processes kept the machine; empty if they did not."""
        cores = [result["others_cores"] for row in self.active() for result in row.results]
        if not cores or max(cores) <= 0.1:
            return ""
        return f"Other processes kept {statistics.mean(cores):.2f} cores busy (at most {max(cores):.2f})."

    def record(self) -> list[dict[str, Any]]:
        """Return all measurements, for --json."""
        return [
            {
                "label": row.label,
                "status": row.status,
                "reason": row.reason,
                "written_as": row.written_as,
                "trials": row.trials,
                "rounds": row.results,
            }
            for row in self.rows
        ]


def table(rows: list[Turn], columns: Mapping[str, Callable[[Turn], str]]) -> str:
    """Return a table in Markdown with a line for each row, and a function for each further column."""
    lines = ["| " + " | ".join(("participant", *columns)) + " |", "| --- |" + " --: |" * len(columns)]
    for row in rows:
        cells = [row.label, *(cell(row) for cell in columns.values())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_options(parser: argparse.ArgumentParser, peers: list[Participant], photographs: int) -> None:
    """Add the options that formats.py and remote.py share."""
    names = ", ".join(peer.name for peer in peers)
    cores = machine.usable_cores()
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--photos",
        type=positive(int),
        default=photographs,
        help="photographs in an epoch; those of DIR are repeated (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=positive(int),
        default=cores,
        help="of Highway (default: usable cores, %(default)s here)",
    )
    parser.add_argument(
        "--workers",
        metavar="NUMBER,...",
        type=lambda text: [positive(int)(part) for part in text.split(",")],
        default=[cores, cores + 1, 2 * cores],
        help="numbers of worker processes of peers, of which the fastest counts (default: usable cores, one more, and "
        "twice as many)",
    )
    parser.add_argument("--rounds", type=positive(int), default=5, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=positive(float), default=5.0, help="timed part of a run (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup",
        type=positive(float),
        default=1.0,
        help="seconds before the timed part (default: %(default)s)",
    )
    parser.add_argument(
        "--python",
        metavar="[NAME=]PATH",
        action="append",
        default=[],
        help=f"interpreter of a peer ({names}), or tried for all; repeatable",
    )
    parser.add_argument(
        "--peers", metavar="FOLDER", type=Path, help="folder of environments, which --install makes"
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="first install the peers that are missing (see install_peers.py)",
    )
    parser.add_argument(
        "--scratch",
        metavar="FOLDER",
        type=Path,
        help="for the packed photographs (default: of temporary files)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all measurements to this file")
    parser.add_argument(
        "--markdown", metavar="FILE", type=Path, help="write what is printed to this file as well"
    )


def complete(parser: argparse.ArgumentParser, options: argparse.Namespace, peers: list[Participant]) -> None:
    """Check the options of `add_options`, install peers if they say so, and find the interpreters."""
    if options.install and not options.peers:
        parser.error("--install needs --peers FOLDER, where the environments are made")
    if options.photos < LEAST_PHOTOGRAPHS:
        parser.error(f"--photos is {options.photos}; expected {LEAST_PHOTOGRAPHS} or more")
    options.not_installed = {}
    if options.install:
        names = [peer.name for peer in peers]
        options.not_installed = install_peers.install(Path(os.path.abspath(options.peers)), names)
    options.interpreters = subject.choose_interpreters(
        options.python, options.peers, [HIGHWAY_READERS, *peers]
    )


def missing(row: Turn, options: argparse.Namespace) -> None:
    """Exclude a row whose participant has no interpreter."""
    name, needs = row.participant.name, " and ".join(row.participant.needs)
    if name not in options.interpreters:
        reason = options.not_installed.get(name, f"no interpreter that was given imports {needs}")
        row.fail("missing", reason)


def write(told: list[str], record: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print the lines, and write them and the record where the options say."""
    text = "\n".join(told)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
