"""Measures photographs in a store with latency against the same photographs on this machine, and against peers.

A server on this machine, in a process of its own, answers each request of S3 or HTTP after --latency seconds. It and
the network need a part of a core, which the readers then lack: on a machine with few cores, leave them one (--threads,
--workers), or compare the CPU time per image. The job is RandomResizedCrop to 224 x 224, flip and normalize, in batches
of 64. The photographs of DIR are repeated until there are --photos, and numbered. The participants:

  folder, tar          on this machine
  folder in S3, tar in S3, tar over HTTP
                       the same files; --prefetch bytes are less than half of them, so every epoch fetches them again
  ..., cache           through a cache on the local disk, which is empty when a run starts, and holds all of them
  folder in S3, index  the bucket was listed before
  tars in S3           as many tars as --many says, their indexes beside them in the store, or kept on this machine
  litData, mosaicml-streaming
                       their own formats in S3, shards of the size of the tars; they keep all that they fetch, in a
                       folder that is empty when a run starts. The fastest of their decoders (torchvision) and numbers
                       of worker processes is found first

Every participant runs in a process of its own, in turns. A run begins with the first epoch, which is timed from its
start; the rate of later epochs is timed after it. In each epoch every photograph must come once; shape, dtype and
range of the images are checked, and that their colors are those of the photographs of their labels. Ratios are medians
of the rounds' ratios. Memory is the peak of all processes of a participant.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
from participants.registry import LOADERS
from photographs import copied, write_colors, write_tars
from turns import Turn, Turns, add_options, complete, highway, missing, positive, say, table, turn_of, write

from highway.modules import ImageFileReader, TarReader

HERE = Path(__file__).resolve().parent
SERVER = HERE.parent / "tests" / "helpers" / "object_server.py"
PACK = HERE / "participants" / "packing_for_peers.py"
PACK_SECONDS = 600
PEERS = [peer for peer in LOADERS if peer.environment == "streams"]
KEYS = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}


@contextmanager
def served(folder: Path, latency: float) -> Iterator[str]:
    """Serve a folder as the bucket "data"; the value is the address."""
    command = [sys.executable, str(SERVER), str(folder), "--latency", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            address = server.stdout.readline().strip()
            if not address:
                raise SystemExit("remote.py: the server did not start")
            yield address
        finally:
            server.stdin.close()


def variables(address: str, scratch: Path) -> dict[str, str]:
    """Return the environment in which peers find the store, and leave nothing behind."""
    return {
        "AWS_ENDPOINT_URL": address,
        "S3_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEYS["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": KEYS["secret_access_key"],
        "AWS_DEFAULT_REGION": KEYS["region"],
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "TMPDIR": str(scratch),
    }


def packed(row: Turn, options: argparse.Namespace, photos: Path, to: Path, nbytes: int) -> None:
    """Pack the photographs for a peer; its row fails if that does."""
    if row.status != "ok":
        return
    say(f"packing for {row.label}")
    to.mkdir()
    command = [options.interpreters[row.participant.name], str(PACK), row.participant.module]
    command += [str(photos), str(to), str(nbytes)]
    try:
        subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PACK_SECONDS,
            check=True,
            env=os.environ | {"TMPDIR": str(to.parent.parent)},
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        row.fail("failed", f"packing: {lines[-1] if lines else 'it printed no reason'}")
    except subprocess.TimeoutExpired:
        row.fail("failed", f"packing did not end within {PACK_SECONDS} s")


def readers(options: argparse.Namespace, bucket: Path, scratch: Path, address: str) -> list[Turn]:
    """Return the rows of Highway."""
    tars = f"photos-{{0000..{options.shards - 1:04}}}.tar"
    many = f"s3://data/many/photos-{{0000..{options.many - 1:04}}}.tar"
    photos = "s3://data/photos"
    store = {"endpoint": address, **KEYS}
    remote = {"storage_options": store, "prefetch_bytes": options.prefetch}
    index, kept = str(scratch / "bucket.index"), str(scratch / "kept")
    # The listing and the indexes that a run before these would have kept.
    ImageFileReader(photos, 1, 1, storage_options=store, index=index)
    TarReader(many, 1, 1, storage_options=store, index_dir=kept)
    cached = {"cache_bytes": 1e12, **remote}

    def row(label: str, reader: str, source: str, compared: str, fresh: tuple[str, ...], **more: Any) -> Turn:
        return highway(
            label, reader, source, compared=compared, options=more, fresh=fresh, scratch=str(scratch)
        )

    folder, tar = "ImageFileReader", "TarReader"
    http = f"{address}/data/tars/{tars}"
    return [
        highway("folder", folder, str(bucket / "photos")),
        highway("tar", tar, str(bucket / "tars" / tars)),
        row("folder in S3", folder, photos, "folder", (), **remote),
        row("tar in S3", tar, f"s3://data/tars/{tars}", "tar", ("index_dir",), **remote),
        row("tar over HTTP", tar, http, "tar", ("index_dir",), prefetch_bytes=options.prefetch),
        row("folder in S3, cache", folder, photos, "folder", ("cache",), **cached),
        row("tar in S3, cache", tar, f"s3://data/tars/{tars}", "tar", ("cache", "index_dir"), **cached),
        row("folder in S3, index", folder, photos, "folder", (), index=index, **remote),
        row(f"{options.many} tars in S3", tar, many, "tar", ("index_dir",), **remote),
        row(f"{options.many} tars in S3, indexes here", tar, many, "tar", (), index_dir=kept, **remote),
    ]


def told(turns: Turns, options: argparse.Namespace) -> list[str]:
    """Return the tables, and what is compared."""

    def local(row: Turn) -> Turn | None:
        return turns.row(row.compared) if row.compared else None

    def above(row: Turn) -> float | None:
        other = local(row)
        if other is None:
            return None
        pairs = zip(row.results, other.results, strict=True)
        return statistics.median(mine["peak_megabytes"] - its["peak_megabytes"] for mine, its in pairs)

    def shown(row: Turn) -> dict[str, str]:
        other, more = local(row), above(row)
        return {
            "first batch s": f"{row.median('first_batch_seconds'):.2f}",
            "first epoch images/s": f"{statistics.median(row.epoch_rates(options.photos)):.0f}",
            "later images/s": f"{row.median('images_per_second'):.0f}",
            "later, of local": "" if other is None else f"{row.ratio(other):.3f}",
            "CPU ms/image": f"{row.cpu_milliseconds():.2f}",
            "by CPU": "" if other is None else f"{row.cpu_ratio(other):.3f}",
            "peak MB": f"{row.median('peak_megabytes'):.0f}",
            "MB above local": "" if more is None else f"{more:.0f}",
            "written as": row.written_as,
        }

    rows = turns.active()
    lines = []
    if rows:
        cells = {row.label: shown(row) for row in rows}
        names = list(cells[rows[0].label])
        lines = [table(rows, {name: lambda row, name=name: cells[row.label][name] for name in names}), ""]
    window = options.prefetch / 1e6
    for row in rows:
        more = above(row)
        if more is not None:
            lines.append(
                f"- {row.label}: {more:.0f} MB above the local run, of which {window:.0f} are the fetch window"
            )
    for peer in PEERS:
        other = turns.row(peer.title)
        for label in ("tar in S3", "tar in S3, cache"):
            row = turns.row(label)
            if row is not None and other is not None:
                pairs = zip(row.epoch_rates(options.photos), other.epoch_rates(options.photos), strict=True)
                first = statistics.median(mine / its for mine, its in pairs)
                lines.append(
                    f"- {label} is {first:.2f} times {other.label} in the first epoch, {row.ratio(other):.2f} times in "
                    f"later ones (by CPU time {row.cpu_ratio(other):.2f}; {other.written_as})"
                )
    return lines + turns.failures()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, PEERS, 2000)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds (default: %(default)s)")
    parser.add_argument(
        "--prefetch", type=positive(int), metavar="BYTES", default=64 << 20, help="default: %(default)s"
    )
    parser.add_argument(
        "--shards", type=positive(int), default=16, help="number of tars (default: %(default)s)"
    )
    parser.add_argument(
        "--many",
        type=positive(int),
        default=1000,
        help="number of tars for first batches (default: %(default)s)",
    )
    options = parser.parse_args()
    if options.latency < 0:
        parser.error(f"--latency is {options.latency}; expected 0 or more")
    if max(options.shards, options.many) > min(options.photos, 10000):
        parser.error("--shards and --many must be 10000 or less, and no more than photographs")
    complete(parser, options, PEERS)

    facts = machine.describe()
    with tempfile.TemporaryDirectory(prefix="highway-remote-", dir=options.scratch) as name:
        scratch, bucket = Path(name), Path(name) / "bucket"
        try:
            paths = copied(options.dir, options.photos, bucket / "photos")
        except (OSError, ValueError) as error:
            raise SystemExit(f"remote.py: {error}") from None
        nbytes = sum(path.stat().st_size for path in paths)
        if 2 * options.prefetch >= nbytes:
            raise SystemExit(
                f"remote.py: --prefetch is {options.prefetch}, and the photographs have {nbytes} bytes; expected more "
                "than twice as many, so that every epoch fetches them: give more --photos or less --prefetch"
            )
        write_colors(paths, scratch / "colors.npy")
        for folder, shards in (("tars", options.shards), ("many", options.many)):
            # Their indexes lie beside them.
            TarReader(write_tars(paths, bucket / folder, shards), 1, 1)
        peers = []
        for peer in PEERS:
            source = f"s3://data/{peer.name}"
            peers.append(turn_of(peer.title, peer, source=source, scratch=str(scratch)))
            missing(peers[-1], options)
            packed(peers[-1], options, bucket / "photos", bucket / peer.name, nbytes // options.shards)
        with served(bucket, options.latency) as address:
            rows = readers(options, bucket, scratch, address) + peers
            environment = variables(address, scratch)
            turns = Turns(rows, options, bucket / "photos", scratch / "colors.npy", environment)
            turns.measure()
    lines = [
        machine.describe_line(facts),
        f"{options.photos} photographs of {nbytes / 1e6:.0f} MB, {options.shards} tars, "
        f"{1000 * options.latency:g} ms latency, {options.threads} threads, {options.rounds} rounds. "
        f"{turns.busy()}".strip(),
        "",
        *told(turns, options),
    ]
    record = {
        "machine": facts,
        "photographs": options.photos,
        "bytes": nbytes,
        "latency": options.latency,
        "prefetch": options.prefetch,
        "rows": turns.record(),
    }
    write(lines, record, options)


if __name__ == "__main__":
    main()
