"""Draws the tables and the plot of `peers.py` from its JSON alone, on any machine."""

import hashlib
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from participants.registry import HIGHWAY, PARTICIPANTS

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
# Okabe and Ito's blue, a matching gray for all others, and black.
BLUE, GREY, INK, FAINT = "#0072B2", "#A9B4BC", "#22292F", "#6B7680"
FEW_CORES = 0.1


class ReportError(ValueError):
    """A file is not what `peers.py` writes; the message says what is wrong with it."""


@dataclass
class Line:
    """One participant, or the limit, in one job.

    Attributes
    ----------
    label : str
        Its row's name in the record.
    title : str
        What it is called here.
    rounds : list of dict
        The figures of every round.
    """

    label: str
    title: str
    version: str
    reduced: bool
    rounds: list[dict]

    @property
    def rates(self) -> list[float]:
        """Return the images per second of each round."""
        return [found["images_per_second"] for found in self.rounds]

    @property
    def rate(self) -> float:
        """Return the median of the rates."""
        return statistics.median(self.rates)

    @property
    def cpu_milliseconds(self) -> float:
        """Return the processor time per image, median over the rounds."""
        return statistics.median(1e3 * found["cpu_seconds"] / found["images"] for found in self.rounds)

    @property
    def peak_megabytes(self) -> float | None:
        """Return the highest resident memory, median over the rounds; None for the limit."""
        found = [one["peak_megabytes"] for one in self.rounds if "peak_megabytes" in one]
        return statistics.median(found) if found else None

    def times(self, other: "Line") -> float:
        """Median of the rounds' ratios of its rate to that of another line."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True))


@dataclass
class Job:
    """One job of a record: the lines with figures, fastest first, and remarks on the others."""

    text: str
    lines: list[Line]
    absent: list[str]

    @property
    def limit(self) -> Line | None:
        """The JPEG library alone."""
        return next((line for line in self.lines if line.label == "limit"), None)

    @property
    def highway(self) -> Line | None:
        """Highway."""
        return next((line for line in self.lines if line.label == HIGHWAY.name), None)

    @property
    def best_peer(self) -> Line | None:
        """Fastest of those that do the whole job."""
        others = ("limit", HIGHWAY.name)
        return next((line for line in self.lines if line.label not in others and not line.reduced), None)


def library_version(number: int) -> str:
    """Return the version of libjpeg-turbo: "2.1.5" for 2001005."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def title_and_version(row: dict) -> tuple[str, str]:
    """Return the title of a row of a record, and the version of its participant."""
    first = row["rounds"][0] if row["rounds"] else {}
    if row["label"] == "limit":
        number = first.get("libjpeg_turbo")
        return "libjpeg-turbo alone, in C", library_version(number) if number else ""
    participant = PARTICIPANTS[row["label"].removesuffix(" *")]
    found = first.get("versions", {})
    version = next((found[name] for name in participant.distributions if name in found), "")
    return participant.title + (" *" if row["reduced"] else ""), version


def read_jobs(record: dict) -> list[Job]:
    """Parse a record."""
    jobs = []
    for found in record["jobs"].values():
        lines, absent = [], []
        for row in found["rows"]:
            title, version = title_and_version(row)
            if row["status"] == "ok":
                lines.append(Line(row["label"], title, version, row["reduced"], row["rounds"]))
            else:
                absent.append(f"{title}: {row['status']}: {row['reason']}")
        jobs.append(Job(found["text"], sorted(lines, key=lambda line: -line.rate), absent))
    return jobs


def conditions(record: dict) -> str:
    """Describe the machine and the method in a few sentences."""
    facts, photographs = record["machine"], record["photographs"]
    threads = sorted({job["threads"] for job in record["jobs"].values()})
    rounds = max(len(row["rounds"]) for job in record["jobs"].values() for row in job["rows"])
    size = f", {photographs['mean_kilobytes']:.0f} KB on average" if photographs.get("mean_kilobytes") else ""
    text = (
        f"{photographs['files']} photographs{size}; {' and '.join(map(str, threads))} threads on {facts['cores']} "
        f"cores of {facts['cpu']}, {facts['system'].split('-')[0]}, {facts['time'][:10]}.\n"
        f"Medians of {rounds} rounds in which all took turns; ratios are medians of the rounds' ratios."
    )
    busy = [
        one["others_cores"]
        for job in record["jobs"].values()
        for row in job["rows"]
        for one in row["rounds"]
        if "others_cores" in one
    ]
    if busy and statistics.mean(busy) > FEW_CORES:
        text += f"\nThe machine was not quiet: other processes kept {statistics.mean(busy):.2f} cores busy on average."
    return text


def markdown(record: dict) -> str:
    """Return the tables of all jobs."""
    text = [conditions(record)]
    jobs = read_jobs(record)
    for job in jobs:
        limit, highway, best = job.limit, job.highway, job.best_peer
        text.append(f"**{job.text}**")
        table = [
            "| | images/s | lowest–highest | of the limit | Highway is ... times as fast | CPU ms an image "
            "| peak MB | version |",
            "| --- | --: | --: | --: | --: | --: | --: | --- |",
        ]
        for line in job.lines:
            mark = "**" if line is highway else ""
            memory = line.peak_megabytes
            cells = [
                f"{mark}{line.title}{mark}",
                f"{mark}{line.rate:.0f}{mark}",
                f"{min(line.rates):.0f}–{max(line.rates):.0f}",
                f"{line.times(limit):.2f}" if limit else "",
                f"{highway.times(line):.2f}" if highway and line is not highway else "",
                f"{line.cpu_milliseconds:.2f}",
                f"{memory:.0f}" if memory else "",
                line.version,
            ]
            table.append(f"| {' | '.join(cells)} |")
        text.append("\n".join(table))
        said = []
        if highway and best:
            said.append(
                f"Highway makes {highway.times(best):.2f} times as many images a second as the best peer, {best.title}"
                + (f", and {highway.times(limit):.2f} of the limit." if limit else ".")
            )
        if said or job.absent:
            text.append("\n".join([*said, *job.absent]))
    if any(line.reduced for job in jobs for line in job.lines):
        text.append(
            "\\* gives up quality for speed (a resize without antialiasing, fast decoding); not counted as best peer."
        )
    return "\n\n".join(text) + "\n"


def digest(record: dict) -> str:
    """Return the digest that connects a plot with its record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def draw(record: dict, target: Path) -> None:
    """Plot the participants of the whole job: one bar each, its range over the rounds, the limit as a line.

    Raises
    ------
    ReportError
        matplotlib is missing.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ReportError(f"the plot needs matplotlib ({error}): pip install matplotlib") from None

    jobs = read_jobs(record)
    most = max(sum(not line.reduced for line in job.lines) for job in jobs)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK}):
        figure = Figure(figsize=(6.2 * len(jobs), 1.35 + 0.36 * most), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, job in zip(figure.subplots(1, len(jobs), squeeze=False)[0], jobs, strict=True):
            draw_job(axes, job)
        facts, first = record["machine"], next(iter(record["jobs"].values()))
        text = (
            f"images a second; {first['threads']} threads on {facts['cores']} cores of {facts['cpu']}; whiskers: "
            "lowest and highest round; beside a bar: how many times as fast Highway is"
        )
        figure.supxlabel(text, fontsize=9, color=FAINT)
        figure.savefig(target, metadata={"Software": "matplotlib", "Description": digest(record)})


def draw_job(axes, job: Job) -> None:
    """One panel."""
    limit = job.limit
    lines = [line for line in job.lines if line is not limit and not line.reduced]
    middles = [line.rate for line in lines]
    below = [line.rate - min(line.rates) for line in lines]
    above = [max(line.rates) - line.rate for line in lines]
    places = range(len(lines))
    colors = [BLUE if line is job.highway else GREY for line in lines]
    whiskers = {"ecolor": INK, "elinewidth": 1, "capsize": 2.5}
    axes.barh(places, middles, height=0.68, color=colors, xerr=[below, above], error_kw=whiskers)
    most = max([*(max(line.rates) for line in lines), limit.rate if limit else 0.0])
    for place, line in enumerate(lines):
        own = line is job.highway
        axes.text(most * 0.015, place, f"{line.rate:.0f}", va="center", color="white" if own else INK)
        if job.highway and not own:
            beside = f"{job.highway.times(line):.2f} ×"
            axes.text(max(line.rates) + most * 0.02, place, beside, va="center", fontsize=9, color=FAINT)
    if limit:
        axes.axvline(limit.rate, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        text = f"{limit.title}: {limit.rate:.0f}"
        place = (limit.rate - most * 0.015, len(lines) - 0.12)
        axes.text(*place, text, ha="right", va="center", fontsize=9, color=INK)
    axes.set_yticks(places, [line.title for line in lines])
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if line is job.highway else "normal")
    axes.set_ylim(len(lines) - 0.5 + (0.8 if limit else 0), -0.6)
    axes.set_xlim(0, most * 1.03)
    axes.set_title(job.text.replace(", ", "\n", 1), fontsize=10.5, loc="left", color=INK)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", color=FAINT, labelcolor=FAINT, labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def read_record(path: Path) -> dict:
    """Return the record of a run.

    Raises
    ------
    ReportError
        No such file, no JSON, or not of this kind.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not all(record[key] for key in ("machine", "photographs", "jobs")):
            raise KeyError("machine, photographs or jobs")
        read_jobs(record)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: {error}; expected the JSON that peers.py writes") from None
    except (KeyError, TypeError) as error:
        raise ReportError(f"{path}: no {error} in it; expected the JSON that peers.py writes") from None
    return record


def write_results(record: dict, folder: Path) -> None:
    """Write peers.json, peers.md and peers.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "peers.md").write_text(markdown(record), encoding="utf-8")
    draw(record, folder / "peers.png")


def update_page(record: dict, page: Path) -> None:
    """Put the tables between the two marks of a page.

    Raises
    ------
    ReportError
        The marks are not there, once each and in order.
    """
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{BEGIN}\n.*?{END}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ReportError(f"{page}: expected one passage between lines {BEGIN} and {END}")
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n{markdown(record)}{END}", text), encoding="utf-8")


def without_paths(text: str) -> str:
    """Return text with absolute paths reduced to their last part, since results are published."""
    return re.sub(r"(?<![\w.:/])/(?:[^\s/:'\",;()]+/)+([^\s/:'\",;()]*)", r"\1", text)
