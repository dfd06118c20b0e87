"""Predicts the rate on machines with more cores from the cost of an image at each stage.

A model, not a measurement. For N cores the rate is the lowest of three bounds:

  decoding   N / (processor time of an image): every core works on its own images
  memory     (bandwidth of N cores) / (bytes that an image moves)
  GIL        1 / (time that the GIL is held for an image)

Assumptions:
- All cores are as fast as those here are together, and have as much cache: clocks and hyper-threads are not modeled.
- Every core has the bandwidth that each had here when all usable cores copied large arrays (a copy counts as one read
  and one write), and all together have no more than --bandwidth, which is that of eight channels of DDR4-3200.
- Bytes that move: a file three times (copied out of the page cache, then read), what a stage writes twice (its lines
  are fetched and written back), what it reads once; half of the images are flipped, in place or on the way through
  Normalize; the consumer reads what it gets once. No cache hits. This overestimates the bytes, so the memory bound is a
  low estimate.
- The time that the GIL is held for a batch does not grow with threads, and the consumer holds it no more than a loop
  that takes batches does. Near the bound, threads wait for each other before reaching it.
- Files are in the page cache (cold.py measures disks).

On a busy machine the thread that holds the GIL may wait for a core, like all threads: the share of time that the GIL is
held stays about the same, and is applied to the time that the work takes on idle cores. Memory appears slower there.
"""

import statistics
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from limit import MODES, Limit, compile_c
from participants.jobs import JOBS
from subject import Steady

PROBE = Path(__file__).resolve().with_name("gil_probe.c")
COPIED_BYTES = 64 << 20
BOUNDS = ("decoding", "memory", "GIL")


@dataclass(frozen=True)
class Costs:
    """What one image costs in one job; seconds are of processor time, over all threads.

    Attributes
    ----------
    reading, entropy, decoding : float
        Of the bare loop: opening, reading and closing the file; undoing the entropy coding; the rest.
    whole : float
        Of Highway, everything.
    system : float
        Of that, in the operating system.
    gil : float
        Seconds that the GIL is held.
    gil_share : float
        Part of the time that it was held while that was measured.
    bytes_moved : float
        To and from memory.
    batch_size : int
        Images in a batch.
    """

    reading: float
    entropy: float
    decoding: float
    whole: float
    system: float
    gil: float
    gil_share: float
    bytes_moved: float
    batch_size: int

    @property
    def beyond(self) -> float:
        """Return Highway's time besides reading and decoding, without the time under the GIL."""
        return self.whole - self.reading - self.entropy - self.decoding - self.gil


def bytes_moved(job: str, file_bytes: float) -> float:
    """Return the bytes that an image moves to and from memory, by the assumptions above."""
    shape = JOBS[job]
    pixels = float(shape.height * shape.width * 3)
    moved = 3 * file_bytes + 2 * pixels  # Written by the reader.
    moved += pixels  # Flipped in place (half of them, read and written), or read by Normalize.
    if shape.dtype == "float32":
        pixels *= 4
        moved += 2 * pixels  # Floats, flipped in the same pass.
    return moved + pixels


def undisturbed(found: dict, threads: int) -> float:
    """Estimate the seconds of a run of Highway on idle cores."""
    return min(found["seconds"], (found["user_seconds"] + found["system_seconds"]) / threads)


def median_costs(job: str, threads: int, loops: list[dict[str, dict]], taken: list[dict]) -> Costs:
    """Return the costs from the rounds of the bare loop (by mode) and of Highway."""

    def loop(mode: str) -> float:
        return statistics.median(found[mode]["cpu_seconds"] / found[mode]["images"] for found in loops)

    def highway(*names: str) -> float:
        return statistics.median(sum(found[name] for name in names) / found["images"] for found in taken)

    read = loops[0]["read"]
    mode = MODES[job]
    questions = sum(found["gil_questions"] for found in taken)
    share = sum(found["gil_waits"] for found in taken) / max(1, questions)
    return Costs(
        reading=loop("read"),
        entropy=loop(f"{mode}-entropy") - loop("read"),
        decoding=loop(mode) - loop(f"{mode}-entropy"),
        whole=highway("user_seconds", "system_seconds"),
        system=highway("system_seconds"),
        gil=share * statistics.median(undisturbed(found, threads) / found["images"] for found in taken),
        gil_share=share,
        bytes_moved=bytes_moved(job, read["bytes"] / read["images"]),
        batch_size=JOBS[job].batch_size,
    )


def measure_costs(
    limit: Limit,
    python: str,
    directory: str,
    job: str,
    *,
    threads: int,
    rounds: int,
    warmup: float,
    seconds: float,
) -> Costs:
    """Measure the costs of a job in turns, with the same number of threads.

    Raises
    ------
    LimitError
        The bare loop or the probe of the GIL cannot be built or fails.
    SteadyError
        Highway fails.
    """
    loops, taken = [], []
    with tempfile.TemporaryDirectory(prefix="highway-bench-") as folder:
        probe = Path(folder) / "gil_probe.so"
        compile_c(PROBE, probe, "-shared", "-fPIC", "-pthread")
        for _ in range(rounds):
            modes = ("read", f"{MODES[job]}-entropy", MODES[job])
            loops.append({mode: limit.measure(mode, threads, warmup, seconds) for mode in modes})
            with Steady(python, directory, job, threads, warmup, probe) as steady:
                taken.append(steady.run(seconds))
    return median_costs(job, threads, loops, taken)


def memory_bandwidth(threads: int, seconds: float) -> float:
    """Measure the bytes per second that this many threads read and write, each copying arrays of 64 MiB."""
    copies = [0] * threads
    ready, stop = threading.Barrier(threads + 1), threading.Event()

    def copy(number: int) -> None:
        source, target = (np.ones(COPIED_BYTES, np.uint8) for _ in range(2))
        ready.wait()
        while not stop.is_set():
            np.copyto(target, source)
            copies[number] += 1

    workers = [threading.Thread(target=copy, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return 2 * COPIED_BYTES * sum(copies) / (time.perf_counter() - began)


@dataclass(frozen=True)
class Memory:
    """Bandwidth in bytes a second: what one core gets, and what all of them get at most."""

    of_a_core: float
    at_most: float

    def of(self, cores: int) -> float:
        """Return the bandwidth of this many cores."""
        return min(cores * self.of_a_core, self.at_most)


def bounds(costs: Costs, memory: Memory, cores: int) -> dict[str, float]:
    """Return the images per second that each of the three bounds allows."""
    return {
        "decoding": cores / costs.whole,
        "memory": memory.of(cores) / costs.bytes_moved,
        "GIL": 1 / costs.gil if costs.gil else float("inf"),
    }


def predict(costs: Costs, memory: Memory, cores: int) -> tuple[float, str]:
    """Return the images per second on this many cores, and the name of the bound."""
    found = bounds(costs, memory, cores)
    name = min(BOUNDS, key=found.__getitem__)
    return found[name], name


def turning_point(costs: Costs, memory: Memory) -> tuple[float, str]:
    """Return the number of cores up to which the rate grows, and the bound beyond it."""
    per_core, at_first = predict(costs, memory, 1)
    if at_first == "GIL":
        return 1.0, "GIL"
    limits = {"memory": memory.at_most / costs.bytes_moved, "GIL": bounds(costs, memory, 1)["GIL"]}
    name = min(limits, key=limits.__getitem__)
    return limits[name] / per_core, name


def table(costs: Costs, memory: Memory, cores: list[int]) -> str:
    """Return the costs and predictions as text."""
    stages = {
        "reading the file": costs.reading,
        "entropy decoding": costs.entropy,
        "rest of decoding": costs.decoding,
        "resampling and all else": costs.beyond,
        "Python, GIL held": costs.gil,
    }
    lines = ["processor time of an image (bare loops, and what Highway takes beside them)"]
    for name, seconds in stages.items():
        lines.append(f"  {name:24} {1e3 * seconds:7.3f} ms  {100 * seconds / costs.whole:5.1f} %")
    lines.append(
        f"  {'Highway, all of it':24} {1e3 * costs.whole:7.3f} ms  ({1e3 * costs.system:.3f} ms in the system)"
    )
    lines.append(
        f"GIL held {100 * costs.gil_share:.1f} % of the time, {1e3 * costs.gil * costs.batch_size:.2f} ms a batch; "
        f"an image moves {costs.bytes_moved / 1e6:.2f} MB; a core moves {memory.of_a_core / 1e9:.1f} GB/s"
    )
    lines.append(f"model, not measured  {'cores':>5}  {'images/s':>8}  {'bound':10}  {'GB/s':>6}  GIL held")
    for number in cores:
        rate, name = predict(costs, memory, number)
        lines.append(
            f"{number:26}  {rate:8.0f}  {name:10}  {rate * costs.bytes_moved / 1e9:6.1f}"
            f"  {100 * rate * costs.gil:6.0f} %"
        )
    turn, name = turning_point(costs, memory)
    held = f"the memory's {memory.at_most / 1e9:.0f} GB/s" if name == "memory" else "the GIL"
    lines.append(f"the rate grows with the cores up to {turn:.0f} of them; from there on {held} bounds it")
    return "\n".join(lines)


def record(costs: Costs, memory: Memory, cores: list[int]) -> dict:
    """Return the costs and predictions for JSON."""
    turn, name = turning_point(costs, memory)
    predictions = {}
    for number in cores:
        rate, bound = predict(costs, memory, number)
        predictions[number] = {"images_per_second": rate, "bound": bound}
    return {
        "costs": asdict(costs) | {"beyond": costs.beyond},
        "bandwidth": asdict(memory),
        "predictions": predictions,
        "grows_up_to_cores": turn,
        "then": name,
    }
