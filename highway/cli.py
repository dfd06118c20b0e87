"""The command ``highway``: demo, info, bench and preview."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from highway.errors import DecodeError, HighwayError, ReadError

if TYPE_CHECKING:
    from highway.engine import Module
    from highway.modules import ImageFileReader
    from highway.transforms import Transform
    from highway.transforms.fit import Fit

__all__ = ["main"]

FITS = ("center", "random", "letterbox", "stretch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the name of the program; those of this process by default.

    Returns
    -------
    int
        0; 1 after an error, which is told in one line on stderr; 130 after Ctrl-C. What argparse refuses ends with 2.
    """
    options = argparse.Namespace()
    try:
        _parser().parse_args(arguments, options)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output went away, which is no error; nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (HighwayError, OSError) as error:
        print(f"highway: {_in_one_line(error)}{_way_on(error, options)}", file=sys.stderr)
        return 1


def _in_one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, HighwayError) and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    # Names of files may hold line ends, or bytes that are no UTF-8.
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()


def _way_on(error: Exception, options: argparse.Namespace) -> str:
    if isinstance(error, (DecodeError, ReadError)) and getattr(options, "on_error", None) == "raise":
        return " (--on-error skip, or replace, goes on without it)"
    return ""


# The commands. What each needs is imported in it, so that --help comes at once.


def _demo(options: argparse.Namespace) -> int:
    from highway import demo

    return demo.run(options.output, epochs=options.epochs, workers=options.workers)


def _info(options: argparse.Namespace) -> int:
    from highway import environment
    from highway.terminal import facts

    facts(environment.describe())
    return 0


def _bench(options: argparse.Namespace) -> int:
    from highway.terminal import facts, run_pipeline

    reader, modules = _pipeline(options, options.batch_size, options.epochs)
    facts(
        [
            (
                "data",
                f"{_count(reader.size, 'file')} in {_count(len(reader.classes), 'class')}, in {options.data_dir}",
            ),
            ("job", " -> ".join(map(repr, modules))),
            ("threads", ", ".join(map(_threads, modules, ("read and decode", "augment")))),
        ]
    )
    result = run_pipeline(
        modules,
        total=options.epochs and options.epochs * reader.size,
        seconds=None if options.epochs else options.seconds,
    )
    print(f"\n{result}", flush=True)
    _tell_bad_files(reader)
    if result.interrupted:
        print("Interrupted: these are the figures until then.", file=sys.stderr)
        return 130
    return 0


def _threads(module: Module, work: str) -> str:
    return f"{module.workers or f'up to {module.most_workers()}'} to {work}"


def _preview(options: argparse.Namespace) -> int:
    from highway.engine import Pipeline
    from highway.sheet import save_contact_sheet

    reader, modules = _pipeline(options, options.count, 1)
    with Pipeline(modules) as pipeline:
        batch = pipeline.dequeue()
    title = ", then ".join([repr(reader.fit), *(repr(step) for step in _transforms(options))])
    save_contact_sheet(options.output, batch, reader.classes, columns=options.columns, title=title)
    _tell_bad_files(reader)
    shown = f"{batch.size} of {_count(reader.size, 'image')}"
    print(f"{options.output}: {shown}, {_count(len(reader.classes), 'class')}")
    return 0


def _pipeline(
    options: argparse.Namespace, batch_size: int, epochs: int | None
) -> tuple[ImageFileReader, list[Module]]:
    """The reader that the options describe, and all modules."""
    from highway.modules import Augmentations, ImageFileReader
    from highway.transforms import CenterFit, Letterbox, RandomResizedCrop, Stretch

    kinds: tuple[type[Fit], ...] = (CenterFit, RandomResizedCrop, Letterbox, Stretch)
    reader = ImageFileReader(
        options.data_dir,
        batch_size,
        options.size,
        fit=kinds[FITS.index(options.fit)](),
        shuffle=options.shuffle,
        seed=options.seed,
        epochs=epochs,
        on_error=options.on_error,
        workers=options.workers,
    )
    transforms = _transforms(options)
    if not transforms:
        return reader, [reader]
    return reader, [reader, Augmentations(transforms, seed=options.seed)]


def _transforms(options: argparse.Namespace) -> list[Transform]:
    from highway.transforms import FlipX, Normalize

    flip: list[Transform] = [FlipX()] if options.flip else []
    return [*flip, Normalize()] if options.normalize else flip


def _tell_bad_files(reader: ImageFileReader) -> None:
    errors = reader.errors
    if errors:
        done = "left out" if reader.on_error == "skip" else "replaced by others"
        print(
            f"{_count(reader.size, 'file')}, of which {len(errors)} could not be read; {done}:",
            file=sys.stderr,
        )
        for _, reason in errors[:10]:
            print(f"  {_in_one_line(HighwayError(reason))}", file=sys.stderr)
        if len(errors) > 10:
            print(f"  and {len(errors) - 10} more", file=sys.stderr)


def _count(number: int, noun: str) -> str:
    plural = noun if number == 1 else noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {plural}"


# The arguments


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from highway import environment

        print(f"highway {environment.version()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="highway",
        description="Feeds neural networks: folders of images to batches, in compiled threads.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and end")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(
        commands, "demo", _demo, "real photographs through Highway: rate, limiting stage, a contact sheet"
    )
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), metavar="DIR", help="where to write (demo-output)"
    )
    demo.add_argument(
        "--epochs",
        type=_positive,
        default=20,
        metavar="N",
        help="passes over the photographs in each job (20)",
    )
    _add_workers(demo)

    _command(commands, "info", _info, "versions, the JPEG library, SIMD, which PIL, cores, optional packages")

    bench = _command(
        commands, "bench", _bench, "how fast a folder of class folders becomes batches, and what limits"
    )
    _add_data(bench)
    bench.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="images in a batch (16)")
    bench.add_argument(
        "--normalize", action="store_true", help="also turn them to float32 NCHW, as networks want them"
    )
    _add_workers(bench)
    length = bench.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="how long to measure (10)"
    )
    length.add_argument(
        "--epochs", type=_positive, metavar="N", help="measure whole passes over the data instead"
    )

    preview = _command(
        commands, "preview", _preview, "a contact sheet of what the network would get from a folder"
    )
    _add_data(preview)
    preview.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("sheet.png"),
        metavar="FILE",
        help="image to write (sheet.png)",
    )
    preview.add_argument("--count", type=_positive, default=16, metavar="N", help="how many images (16)")
    preview.add_argument("--columns", type=_positive, metavar="N", help="images in a row (fitting)")
    preview.set_defaults(workers=None, normalize=False)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: object, what: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + "."
    )
    command.set_defaults(run=run)
    return command


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "data_dir", metavar="DIR", help="folder with one sub-folder of pictures for each class"
    )
    command.add_argument(
        "--size",
        type=_size,
        default=(240, 320),
        metavar="HxW",
        help="height and width of the images (240x320)",
    )
    command.add_argument(
        "--fit", choices=FITS, default="center", help="how a picture becomes that size (center)"
    )
    command.add_argument(
        "--seed", type=_natural, default=0, metavar="N", help="of order and augmentation (0)"
    )
    command.add_argument("--no-flip", dest="flip", action="store_false", help="without FlipX")
    command.add_argument(
        "--no-shuffle", dest="shuffle", action="store_false", help="in the order of the names"
    )
    command.add_argument(
        "--on-error",
        choices=("raise", "skip", "replace"),
        default="raise",
        help="what to do with a file that cannot be read: end, leave it out, or take another (raise)",
    )


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="threads that read and decode (as many as help, up to one for each usable core)",
    )


def _positive(text: str) -> int:
    number = _natural(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HEIGHTxWIDTH, as 240x320, or one number for a square"
        )
    height, width = (_positive(side) for side in (sides * 2)[:2])
    return height, width
