"""Compares the formats that photographs are kept in: class folders, tar shards, Parquet, and peers on the same files.

The job is RandomResizedCrop to 224 x 224, flip and normalize, in batches of 64, from files that are in memory. The
photographs of DIR are repeated until there are --photos, and numbered. Peers are webdataset's WebLoader on the tars,
and `datasets` of Hugging Face with torch's DataLoader on the Parquet file, of which it makes Arrow files; both decode
with torchvision. The fastest of their decoders and numbers of worker processes is found first.

Every participant runs in a process of its own, in turns, and each run begins with a whole epoch, in which every
photograph must come once; so must it in the epochs after it. Shape, dtype and range of the images are checked, and that
their colors are those of the photographs of their labels. Ratios are medians of the rounds' ratios. A participant that
is missing or fails is listed with the reason.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import machine
from participants.registry import LOADERS
from photographs import copied, write_colors, write_parquet, write_tars
from turns import Turn, Turns, add_options, complete, highway, missing, table, turn_of, write

from highway.modules import TarReader

PEERS = [peer for peer in LOADERS if peer.environment == "shards"]


def rows_of(options: argparse.Namespace, folder: Path, photos: Path, paths: list[Path]) -> list[Turn]:
    """Pack the photographs; return the participants."""
    tars = write_tars(paths, folder / "tars", options.shards)
    # The index is made once, like the shards.
    TarReader(tars, 1, 1)
    rows = [
        highway("folder", "ImageFileReader", str(photos)),
        highway("tar", "TarReader", tars, compared="folder"),
    ]
    parquet = folder / "photos.parquet"
    try:
        write_parquet(paths, parquet)
    except ImportError as error:
        rows.append(highway("Parquet", "TableReader", str(parquet)))
        rows[-1].fail("missing", f"this interpreter has no pyarrow ({error}): pip install pyarrow")
    else:
        rows.append(highway("Parquet", "TableReader", str(parquet), compared="folder"))
    for peer, source in zip(PEERS, (tars, str(parquet)), strict=True):
        rows.append(turn_of(peer.title, peer, compared="folder", source=source, scratch=str(folder)))
        missing(rows[-1], options)
        if source == str(parquet) and not parquet.exists():
            rows[-1].fail("missing", "there is no Parquet file, as there is no pyarrow")
    return rows


def told(turns: Turns) -> list[str]:
    """Return the table and the ratios of Highway to the peers."""
    folder = turns.row("folder")

    def ratio(row: Turn, other: Turn | None) -> str:
        return f"{row.ratio(other):.3f}" if other is not None and row is not other else ""

    lines = [
        table(
            turns.active(),
            {
                "images/s": lambda row: f"{row.median('images_per_second'):.0f}",
                "of the folder": lambda row: ratio(row, folder),
                "CPU ms/image": lambda row: f"{row.cpu_milliseconds():.2f}",
                "first batch s": lambda row: f"{row.median('first_batch_seconds'):.2f}",
                "peak MB": lambda row: f"{row.median('peak_megabytes'):.0f}",
                "written as": lambda row: row.written_as,
            },
        ),
        "",
    ]
    for mine, peer in zip(("tar", "Parquet"), PEERS, strict=True):
        row, other = turns.row(mine), turns.row(peer.title)
        if row is not None and other is not None:
            lines.append(
                f"- {mine} is {row.ratio(other):.2f} times {peer.title} on the same files "
                f"({other.written_as}); by CPU time {row.cpu_ratio(other):.2f}"
            )
    return lines + turns.failures()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, PEERS, 2000)
    parser.add_argument("--shards", type=int, default=16, help="number of tars (default: %(default)s)")
    options = parser.parse_args()
    if not 1 <= options.shards <= min(options.photos, 10000):
        parser.error(f"--shards is {options.shards}; expected 1 to 10000, and no more than photographs")
    complete(parser, options, PEERS)

    facts = machine.describe()
    with tempfile.TemporaryDirectory(prefix="highway-formats-", dir=options.scratch) as name:
        folder = Path(name)
        try:
            paths = copied(options.dir, options.photos, folder / "photos")
        except (OSError, ValueError) as error:
            raise SystemExit(f"formats.py: {error}") from None
        write_colors(paths, folder / "colors.npy")
        turns = Turns(
            rows_of(options, folder, folder / "photos", paths),
            options,
            folder / "photos",
            folder / "colors.npy",
            # Nothing is left behind, or asked for.
            {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder)},
        )
        turns.measure()
    lines = [
        machine.describe_line(facts),
        f"{options.photos} photographs, {options.shards} tars, {options.threads} threads, {options.rounds} rounds. "
        f"{turns.busy()}".strip(),
        "",
        *told(turns),
    ]
    write(lines, {"machine": facts, "photographs": options.photos, "rows": turns.record()}, options)


if __name__ == "__main__":
    main()
