"""Measures photographs to training input on a Ray cluster: Highway's workers, compared with Ray Data and without Ray.

The job is RandomResizedCrop to 224, flip, and with --dtype float32 normalize, in batches of 64. All participants use
the same photographs and the same number of cores, and the training process only takes batches. Each has a fresh
interpreter, which starts Ray where it uses it; rounds are interleaved, and ratios are medians of the rounds' ratios.

Memory is the proportional set size of all processes of the participant, Ray's own included: the peak after the first
batch, and without the processes that Ray has before any work. The object store's bytes are what its nodes report,
the most during the run.

"highway on Ray" listens at 127.0.0.1, where batches are not encrypted; on several machines they are.

Ray Data runs with `read_images` and with `read_binary_files`, and `map_batches` that decodes (where needed) and crops
with Pillow as its documentation shows.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import machine

RUNNER = Path(__file__).resolve().parent / "participants" / "on_ray.py"
PARTICIPANTS = (
    "highway",
    "highway on Ray",
    "highway on Ray, encrypted",
    "Ray Data read_binary_files",
    "Ray Data read_images",
)
# Seconds that a run may take, beside its measured time.
LIMIT = 300


def measured(options: argparse.Namespace, who: str) -> dict[str, float]:
    """Run a participant, and return its figures."""
    command = [
        options.python,
        str(RUNNER),
        who,
        options.dir,
        options.dtype,
        str(options.workers),
        str(options.seconds),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT + options.seconds, check=False
    )
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(rounds: list[dict[str, dict[str, float]]]) -> str:
    """Medians by participant, and ratios to the fastest form of Ray Data of the same round."""
    lines = [
        f"{'':28}  images/s  of Ray Data  CPU ms/image  peak MB  of Ray Data  object store MB",
    ]
    for who in rounds[0]:
        rates, memory = [], []
        for figures in rounds:
            peer = max(
                (figures[name] for name in figures if name.startswith("Ray Data")),
                key=lambda each: each["rate"],
                default=None,
            )
            if peer is not None:
                rates.append(figures[who]["rate"] / peer["rate"])
                memory.append(figures[who]["memory"] / peer["memory"])

        def median(name: str, who: str = who) -> float:
            return statistics.median(figures[who][name] for figures in rounds)

        ratios = [f"{statistics.median(each):.2f}" if each else "-" for each in (rates, memory)]
        lines.append(
            f"{who:28}  {median('rate'):8.0f}  {ratios[0]:>11}  {median('cpu'):12.2f}  {median('memory'):7.0f}"
            f"  {ratios[1]:>11}  {median('store'):15.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter with highway, Pillow and ray[data] (default: this)",
    )
    parser.add_argument("--dtype", choices=("uint8", "float32"), default="uint8", help="default: uint8")
    parser.add_argument("--workers", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="timed part of a run (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        metavar="NAME;...",
        default=";".join(PARTICIPANTS),
        help=f"participants, of: {'; '.join(PARTICIPANTS)} (default: all)",
    )
    options = parser.parse_args()
    names = options.only.split(";")
    unknown = [name for name in names if name not in PARTICIPANTS]
    if unknown:
        parser.error(f"--only names {', '.join(unknown)}; choose from {', '.join(PARTICIPANTS)}")
    facts = machine.describe()
    rounds = [{who: measured(options, who) for who in names} for _ in range(options.rounds)]
    print(
        f"RandomResizedCrop 224 + flip, {options.dtype}, batches of 64, {options.workers} workers of one core, "
        f"{options.rounds} rounds of {options.seconds:g} s"
    )
    print(table(rounds))
    print(machine.describe_line(facts))


if __name__ == "__main__":
    main()
