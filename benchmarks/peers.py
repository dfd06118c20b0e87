"""Measures how fast photographs become batches, compared with the bare JPEG library and other loaders.

Jobs, each over a folder of class folders of JPEGs:
  fit   center crop to 3:4, antialiased resize to 240x320, flip with p=0.5; uint8 NHWC batches of 16
  rrc   RandomResizedCrop to 224, flip with p=0.5, normalize; float32 NCHW batches of 64

Limits (bare_decode.c, C threads that only decode with libjpeg-turbo): for fit the whole
photograph, for rrc only the drawn window at the smallest sufficient scale.

Every participant follows its own documentation, runs in a fresh interpreter with the same number of threads or worker
processes, and must return correct images: shape, dtype, labels, varying pixels, and, for fit, the pixels of the files.
If a participant has several variants, a separate run first finds the fastest. Variants that trade quality for speed (a
resize without antialiasing, fast decoding) have separate rows, marked *. Then all participants take turns in rounds, in
a different order each time. Ratios are medians of the rounds' ratios, so a temporary slowdown of the machine favors no
participant. On a busy machine, where rates depend on the number of waiting threads, CPU time per image is more stable.
Missing and failed participants are listed with the reason.

A run of both jobs with all participants writes peers.json, peers.md (tables) and peers.png (plot) into the
folder results/ next to this script; a shortened run only with --results. `--report peers.json` redraws tables and plot
without measuring.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import install_peers
import machine
import report
import subject
from limit import MODES, Limit, LimitError
from participants.jobs import JOBS, list_files
from participants.registry import HIGHWAY, PARTICIPANTS, PEERS, Participant

RESULTS = Path(__file__).resolve().parent / "results"
DATA = "HIGHWAY_BENCH_DATA"

# maximum difference of the means of two participants: in levels, and in normalized units for random windows
SAME_MEAN = {"fit": 5.0, "rrc": 0.15}


@dataclass
class Row:
    """One line of a job's table: a participant, or the limit when `participant` is None."""

    label: str
    participant: Participant | None
    variants: tuple[str, ...] = ("",)
    reduced: bool = False
    variant: str = ""
    status: str = "ok"
    reason: str = ""
    trials: dict[str, float] = field(default_factory=dict)
    results: list[dict] = field(default_factory=list)

    def fail(self, status: str, reason: str) -> None:
        """Exclude this row from further rounds."""
        self.status, self.reason = status, reason

    def median(self, key: str) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(result[key] for result in self.results)

    def rates(self) -> list[float]:
        """Images per second of each round."""
        return [result["images_per_second"] for result in self.results]

    def ratio(self, other: "Row") -> float:
        """Median of the rounds' ratios of the rate to that of another row."""
        return statistics.median(
            mine / theirs for mine, theirs in zip(self.rates(), other.rates(), strict=True)
        )

    def cpu_ratio(self, other: "Row") -> float:
        """Median of the rounds' ratios of another row's processor time for an image to this one's."""
        pairs = zip(self.results, other.results, strict=True)
        return statistics.median(
            theirs["cpu_seconds"] / theirs["images"] / (mine["cpu_seconds"] / mine["images"])
            for mine, theirs in pairs
        )

    def cpu_milliseconds(self) -> float:
        """Processor time for one image, median over the rounds."""
        return statistics.median(1e3 * result["cpu_seconds"] / result["images"] for result in self.results)


class Contest:
    """All rows of one job."""

    def __init__(
        self,
        options: argparse.Namespace,
        job: str,
        interpreters: dict[str, str],
        limit: Limit | str,
        grids: Path | None,
        not_installed: dict[str, str],
    ):
        self.options = options
        self.job = job
        self.interpreters = interpreters
        self.limit = limit
        self.grids = grids
        self.rows = [Row("limit", None)]
        if isinstance(limit, str):
            self.rows[0].fail("missing", limit)
        for participant in (HIGHWAY, *PEERS):
            if participant.name not in options.only:
                continue
            self.rows.append(Row(participant.name, participant, participant.variants[job]))
            if participant.reduced and not options.full_quality:
                self.rows.append(Row(f"{participant.name} *", participant, participant.reduced, reduced=True))
        for row in self.rows[1:]:
            if row.participant.name not in interpreters:
                needs = " and ".join(row.participant.needs)
                reason = not_installed.get(
                    row.participant.name, f"no interpreter that was given imports {needs}"
                )
                row.fail("missing", reason)

    def run(self, row: Row, variant: str) -> dict:
        """One run of one row."""
        options = self.options
        if row.participant is None:
            return self.limit.measure(MODES[self.job], options.threads, options.warmup, options.seconds)
        return subject.measure(
            row.participant,
            self.interpreters[row.participant.name],
            options.dir,
            self.job,
            variant=variant,
            threads=options.threads,
            warmup=options.warmup,
            seconds=options.seconds,
            seed=len(row.results),
            grids=self.grids,
        )

    def try_variants(self) -> None:
        """Choose the fastest variant of each participant."""
        for row in self.active():
            if len(row.variants) == 1:
                row.variant = row.variants[0]
                continue
            reasons = []
            for variant in row.variants:
                result = self.run(row, variant)
                if result["status"] == "ok":
                    row.trials[variant] = result["images_per_second"]
                    say(f"{self.job} trial: {row.label} as {variant}: {row.trials[variant]:.0f} images/s")
                else:
                    reasons.append(f"{variant}: {result['reason']}")
            if row.trials:
                row.variant = max(row.trials, key=row.trials.__getitem__)
            else:
                row.fail("failed", "; ".join(reasons))

    def active(self) -> list[Row]:
        """Rows still in the contest."""
        return [row for row in self.rows if row.status == "ok"]

    def measure(self) -> None:
        """Run all rounds, then compare the returned images."""
        self.try_variants()
        for number in range(self.options.rounds):
            rows = self.active()
            shift = number % max(1, len(rows))
            for row in rows[shift:] + rows[:shift]:
                try:
                    result = self.run(row, row.variant)
                except LimitError as error:
                    result = {"status": "failed", "reason": str(error)}
                if result["status"] == "ok":
                    row.results.append(result)
                    rate = f"{result['images_per_second']:.0f} images/s"
                else:
                    row.fail(result["status"], result["reason"])
                    rate = f"{row.status}: {row.reason}"
                say(f"{self.job} round {number + 1} of {self.options.rounds}: {row.label}: {rate}")
        self.compare_means()

    def compare_means(self) -> None:
        """Fail participants whose mean pixel differs from most; random windows hardly change the mean."""
        rows = self.active()[1:] if self.rows[0].status == "ok" else self.active()
        if len(rows) < 3:
            return
        middle = statistics.median(row.median("mean") for row in rows)
        for row in rows:
            mean = row.median("mean")
            if abs(mean - middle) > SAME_MEAN[self.job]:
                row.fail(
                    "failed", f"its pixels have mean {mean:.3f}, those of most participants {middle:.3f}"
                )

    def best_peer(self, reduced: bool) -> Row | None:
        """Fastest peer, of those that do the whole job or of all."""
        peers = [row for row in self.active() if row.participant in PEERS and (reduced or not row.reduced)]
        return max(peers, key=lambda row: row.median("images_per_second"), default=None)

    def table(self) -> str:
        """Return the results as text."""
        limit = self.rows[0] if self.rows[0].status == "ok" else None
        best, fastest = self.best_peer(reduced=False), self.best_peer(reduced=True)
        header = (
            "",
            "images/s",
            "lowest-highest",
            "of limit",
            "of best peer",
            "CPU ms/image",
            "of limit by CPU",
            "peak MB",
            "first batch s",
            "written as",
        )
        lines = [header]
        for row in sorted(self.active(), key=lambda row: -row.median("images_per_second")):
            rates = row.rates()
            lines.append(
                (
                    row.label,
                    f"{statistics.median(rates):.0f}",
                    f"{min(rates):.0f}-{max(rates):.0f}",
                    f"{row.ratio(limit):.2f}" if limit else "-",
                    f"{row.ratio(best):.2f}" if best else "-",
                    f"{row.cpu_milliseconds():.2f}",
                    f"{row.cpu_ratio(limit):.2f}" if limit else "-",
                    f"{row.median('peak_megabytes'):.0f}" if row.participant else "-",
                    f"{row.median('first_batch_seconds'):.2f}" if row.participant else "-",
                    row.variant or ("bare_decode " + MODES[self.job] if row.participant is None else "-"),
                )
            )
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        text = [
            f"{self.job}: {JOBS[self.job].text}, {self.options.threads} threads, {self.options.rounds} rounds"
        ]
        for line in lines:
            cells = [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)),
            ]
            text.append("  ".join([*cells, line[-1]]).rstrip())
        if any(row.reduced for row in self.active()):
            text.append(
                "* gives up quality for speed (no antialiasing, fast decoding); not counted as best peer"
            )
        highway = next((row for row in self.active() if row.participant is HIGHWAY), None)
        for other in (best, fastest if fastest is not best else None):
            if highway and other:
                text.append(
                    f"highway is {highway.ratio(other):.2f} times {other.label} "
                    f"({other.variant or other.participant.module}); by CPU time {highway.cpu_ratio(other):.2f}"
                )
        busy = [result["others_cores"] for row in self.active() if row.participant for result in row.results]
        if busy and max(busy) > 0.1:
            text.append(
                f"other processes kept {statistics.mean(busy):.2f} cores busy meanwhile "
                f"(at most {max(busy):.2f}): measure on a quiet machine"
            )
        text += [f"{row.label}: {row.status}: {row.reason}" for row in self.rows if row.status != "ok"]
        return "\n".join(text)

    def record(self) -> dict:
        """Return all results, for --json."""
        limit = self.rows[0] if self.rows[0].status == "ok" else None
        best, fastest = self.best_peer(reduced=False), self.best_peer(reduced=True)
        rows = []
        for row in self.rows:
            reason = report.without_paths(row.reason)
            entry = {"label": row.label, "status": row.status, "reason": reason, "reduced": row.reduced}
            entry |= {"variant": row.variant, "trials": row.trials, "rounds": row.results}
            if row.status == "ok":
                entry["images_per_second"] = row.median("images_per_second")
                entry["cpu_milliseconds"] = row.cpu_milliseconds()
                entry["ratio_to_limit"] = row.ratio(limit) if limit else None
                entry["cpu_ratio_to_limit"] = row.cpu_ratio(limit) if limit else None
                entry["cpu_ratio_to_best_peer"] = row.cpu_ratio(best) if best else None
                entry["ratio_to_best_peer"] = row.ratio(best) if best else None
                entry["ratio_to_fastest_of_any_quality"] = row.ratio(fastest) if fastest else None
            rows.append(entry)
        return {
            "text": JOBS[self.job].text,
            "threads": self.options.threads,
            "best_peer": best.label if best else None,
            "fastest_of_any_quality": fastest.label if fastest else None,
            "rows": rows,
        }


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def positive(kind):
    """Argument type of numbers above zero."""

    def convert(text: str):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    convert.__name__ = kind.__name__
    return convert


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "dir",
        metavar="DIR",
        nargs="?",
        default=os.environ.get(DATA) or None,
        help=f"folder of class folders of JPEGs (default: the environment variable {DATA})",
    )
    parser.add_argument("--job", choices=[*JOBS, "all"], default="all", help="which job (default: all)")
    parser.add_argument(
        "--only",
        metavar="NAME,...",
        default=list(PARTICIPANTS),
        type=lambda text: text.split(","),
        help=f"participants besides the limit, of: {', '.join(PARTICIPANTS)} (default: all)",
    )
    parser.add_argument(
        "--full-quality",
        action="store_true",
        help="skip the rows marked *, which trade quality for speed",
    )
    parser.add_argument(
        "--threads",
        type=positive(int),
        default=machine.usable_cores(),
        help="threads, or worker processes, of every participant (default: usable cores, %(default)s here)",
    )
    parser.add_argument(
        "--rounds", type=positive(int), default=5, help="rounds of all participants (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=positive(float), default=3.0, help="timed part of a run (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup",
        type=positive(float),
        default=1.0,
        help="seconds of warm-up after the first 256 images (default: %(default)s)",
    )
    parser.add_argument(
        "--python",
        metavar="[NAME=]PATH",
        action="append",
        default=[],
        help="another interpreter: for one participant with NAME=, else tried for all peers, before those of "
        "--peers and this one; repeatable",
    )
    parser.add_argument(
        "--peers",
        metavar="FOLDER",
        type=Path,
        help="folder of environments: FOLDER/NAME is that participant's, any others are tried for the rest",
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="first install the peers that are missing in the folder of --peers (see install_peers.py)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all measurements to this file")
    parser.add_argument(
        "--results", metavar="FOLDER", type=Path, help="write JSON, tables and plot into this folder"
    )
    parser.add_argument(
        "--report",
        metavar="JSON",
        type=Path,
        help="measure nothing: write tables and plot of this file beside it, or where --results says",
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        type=Path,
        help=f"put the tables between {report.BEGIN} and {report.END} of this file",
    )
    options = parser.parse_args(arguments)
    if options.report:
        options.results = options.results or options.report.parent
    elif not options.dir:
        parser.error(f"no photographs: give DIR, a folder of class folders of JPEGs, or set {DATA}")
    elif options.results is None and options.job == "all" and set(options.only) == set(PARTICIPANTS):
        options.results = RESULTS
    if options.install and not options.peers:
        parser.error("--install needs --peers FOLDER, where the environments are made")
    unknown = [name for name in options.only if name not in PARTICIPANTS]
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; expected some of {', '.join(PARTICIPANTS)}")
    return options


def photographs(paths: list[str]) -> dict[str, float]:
    """Describe the data: number of files and their mean size."""
    sizes = [os.path.getsize(path) for path in paths]
    return {"files": len(paths), "mean_kilobytes": round(statistics.mean(sizes) / 1e3, 1)}


def write(record: dict, options: argparse.Namespace) -> None:
    """Run the requested action."""
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if options.page:
        report.update_page(record, options.page)
    if options.results:
        report.write_results(record, options.results)
        print(f"\nwritten: peers.json, peers.md and peers.png in {options.results}")


def measure(options: argparse.Namespace) -> dict:
    """Run all contests, print their tables, and return the record."""
    try:
        paths, _, _ = list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"peers.py: {error}") from None
    not_installed = {}
    if options.install:
        not_installed = install_peers.install(Path(os.path.abspath(options.peers)), options.only)
    interpreters = subject.choose_interpreters(options.python, options.peers)
    facts = machine.describe()
    contests = []
    with tempfile.TemporaryDirectory(prefix="highway-bench-") as folder:
        limit: Limit | str
        grids = None
        try:
            limit = Limit(Path(folder), paths)
            grids = Path(folder) / "grids.txt"
            limit.write_grids(grids, JOBS["fit"].height, JOBS["fit"].width)
        except LimitError as error:
            limit, grids = str(error), None
        for job in JOBS if options.job == "all" else [options.job]:
            contest = Contest(options, job, interpreters, limit, grids, not_installed)
            contest.measure()
            contests.append(contest)
    print(machine.describe_line(facts))
    print(f"{len(paths)} files in {options.dir}")
    for contest in contests:
        print(f"\n{contest.table()}")
    return {
        "machine": facts,
        "photographs": photographs(paths),
        "jobs": {contest.job: contest.record() for contest in contests},
    }


def main() -> None:
    options = parse()
    try:
        write(report.read_record(options.report) if options.report else measure(options), options)
    except report.ReportError as error:
        raise SystemExit(f"peers.py: {error}") from None


if __name__ == "__main__":
    main()
