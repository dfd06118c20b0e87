"""The arguments of the command ``highway``, and what each may be."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from highway.arguments.limits import MOST_JPEG_SIDE, MOST_WINDOW, MOST_WORKERS, side_and_quality
from highway.arguments.signatures import meant, nearest

__all__ = ["FITS", "RANDOM", "parser"]

RANDOM = "random"
"""A seed that is drawn."""

FITS = ("center", "random", "letterbox", "stretch")

_SIZE = re.compile("([0-9]{1,9})(?:x([0-9]{1,9}))?", re.ASCII | re.IGNORECASE)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from highway.cli import environment

        print(f"highway {environment.version()}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Names the nearest of what there is, where something is misspelt."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = sys.argv[1:] if args is None else list(args)
        # First of all: where one that is required is misspelt, argparse would only say that it is missing.
        self._refuse(word for word in self._own(words) if not self._is_known(word.partition("=")[0]))
        found, unknown = super().parse_known_args(
            words, argparse.Namespace() if namespace is None else namespace
        )
        self._refuse(unknown)
        return found, unknown

    def _own(self, words: Sequence[str]) -> Iterator[str]:
        """The long options that are for this parser, and not for a command of it."""
        for word in words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return
            if word.startswith("--"):
                yield word

    def _is_known(self, option: str) -> bool:
        # Abbreviations are allowed.
        return any(known.startswith(option) for known in self._option_string_actions)

    def _refuse(self, words: Iterable[str]) -> None:
        options = [option for option in self._option_string_actions if option.startswith("--")]
        found = [_guessed(word, meant(word.partition("=")[0], options)) for word in words]
        if found:
            self.error(f"unrecognized arguments: {' '.join(found)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # What argparse compares with the choices that it has, commands among them.
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action,
                f"{_guessed(repr(value), nearest(str(value), choices))}; choose from {', '.join(choices)}",
            )


def _guessed(word: str, other: str | None) -> str:
    return f"{word} (did you mean {other}?)" if other else word


def parser(runs: Mapping[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """All commands and their options.

    Parameters
    ----------
    runs : mapping of str to callable
        What each command does; it is `run` among the options.
    """
    parser = _Parser(
        prog="highway",
        description="Feeds neural networks: folders of images to batches, in compiled threads.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and end")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(
        commands,
        "demo",
        runs["demo"],
        "real photographs through Highway: rate, limiting stage, a contact sheet",
    )
    demo.add_argument(
        "--output",
        type=_path,
        default=Path("demo-output"),
        metavar="DIR",
        help="where to write (demo-output)",
    )
    demo.add_argument(
        "--epochs",
        type=_positive,
        default=20,
        metavar="N",
        help="passes over the photographs in each job (20)",
    )
    _add_workers(demo)

    info = _command(
        commands,
        "info",
        runs["info"],
        "versions, the JPEG library, SIMD, which PIL, cores, optional packages; or what a folder of data is",
    )
    info.add_argument(
        "data_dir",
        nargs="?",
        type=_expanded,
        metavar="DIR",
        help="class folders, a VOC set or a store: its classes, its samples, and what is skipped in it",
    )

    classes = _command(
        commands,
        "classes",
        runs["classes"],
        "the classes of a folder of class folders, a VOC set or a store: label, name, and how many there are",
    )
    _add_source(classes, ", a VOC set, or a store")
    _add_voc(classes)
    # Nothing is decoded.
    classes.set_defaults(
        size=(1, 1), fit=None, shuffle=False, seed=0, shard=(0, 1), on_error="skip", workers=None
    )
    classes.set_defaults(masks=False, masks_dir=None)

    bench = _command(
        commands,
        "bench",
        runs["bench"],
        "how fast a folder of class folders, a VOC set or a store becomes batches, and what limits",
    )
    _add_data(bench)
    _add_annotated(bench)
    _add_flip(bench)
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
        commands,
        "preview",
        runs["preview"],
        "a contact sheet of what the network would get from a folder or a store",
    )
    _add_data(preview)
    _add_flip(preview)
    preview.add_argument(
        "-o",
        "--output",
        type=_path,
        default=Path("sheet.png"),
        metavar="FILE",
        help="image to write (sheet.png)",
    )
    preview.add_argument("--count", type=_positive, default=16, metavar="N", help="how many images (16)")
    preview.add_argument("--columns", type=_positive, metavar="N", help="images in a row (fitting)")
    _add_annotated(preview)
    preview.add_argument(
        "--transforms",
        type=_place,
        metavar="FILE.py:NAME",
        help="what to apply instead of FlipX: a list of transforms, a Stage, or a list of Stages in a Python file",
    )
    preview.add_argument(
        "--original", action="store_true", help="draw the whole picture beside what becomes of it"
    )
    # No seed, and no number of workers, may be given to Stages out of a file.
    preview.set_defaults(workers=None, normalize=False, seed=None)

    serve = _command(
        commands,
        "serve",
        runs["serve"],
        "a data machine: batches of a folder or a store to workers or to the training machine",
    )
    _add_data(serve, shared=True)
    serve.add_argument(
        "--to",
        type=_address,
        required=True,
        metavar="ADDR",
        help="where to listen: tcp://HOST:PORT, tcp://*:PORT or ipc://PATH",
    )
    serve.add_argument("--connect", action="store_true", help="connect to ADDR instead of listening there")
    serve.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="images in a batch (16)")
    serve.add_argument("--epochs", type=_positive, metavar="N", help="passes over the data (without end)")
    serve.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="R/W",
        help="serve part R of W, where W machines serve, R from 0 on (0/1)",
    )
    _add_network(serve)
    _add_workers(serve)
    serve.set_defaults(flip=False, normalize=False)

    work = _command(
        commands, "work", runs["work"], "a worker: transforms between data machines and the training machine"
    )
    work.add_argument(
        "--from",
        dest="sources",
        type=_address,
        action="append",
        required=True,
        metavar="ADDR",
        help="where data machines listen; once for each",
    )
    work.add_argument(
        "--to", type=_address, required=True, metavar="ADDR", help="where the training machine listens"
    )
    work.add_argument(
        "--listen-from", action="store_true", help="listen at the one --from ADDR; data machines connect"
    )
    work.add_argument(
        "--listen-to", action="store_true", help="listen at the --to ADDR; the training machine connects"
    )
    work.add_argument(
        "--transforms",
        type=_place,
        metavar="FILE.py:NAME",
        help="a list of transforms, a Stage, or a list of Stages in a Python file (a FlipX)",
    )
    work.add_argument("--seed", type=_shared_seed, metavar="N", help="of the transforms (0)")
    work.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="threads (as many as help, up to one for each usable core)",
    )
    work.add_argument(
        "--timeout",
        type=_seconds,
        metavar="S",
        help="end when no data machine is there for so long, though a training machine is (never)",
    )
    _add_network(work)

    keygen = _command(
        commands,
        "keygen",
        runs["keygen"],
        "a new secret, for sending batches between machines: whoever has it takes part",
    )
    keygen.add_argument("file", type=_path, metavar="FILE", help="file to write; must not be there yet")

    pack = _command(
        commands,
        "pack",
        runs["pack"],
        "a folder of pictures into a store, or what an interrupted run left out",
    )
    _add_source(pack)
    pack.add_argument("store", type=_expanded, metavar="TO", help="folder of the store")
    pack.add_argument(
        "--encoding",
        type=_encoding,
        default=("original", None),
        metavar="HOW",
        help="original: the files as they are; jpeg:SIDE[:QUALITY]: no side longer than SIDE pixels; raw:SIZE, or "
        "raw:HxW: bytes, of that size (original)",
    )
    pack.add_argument(
        "--fit",
        choices=FITS,
        help="with raw: how a picture becomes that size (letterbox with --voc, else center)",
    )
    _add_annotated(pack)
    pack.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="skip",
        help="what to do with a file that cannot be read: end, or leave it out and tell at the end (skip)",
    )
    pack.add_argument(
        "--max-pixels", type=_positive, metavar="N", help="the largest picture that is read (178956970)"
    )
    _add_workers(pack)
    pack.set_defaults(shuffle=False, seed=0, shard=(0, 1), ways_on=("skip",))

    store = commands.add_parser(
        "store",
        help="what is in a store, whether it is sound, and its samples as files",
        description="Looks at a store of samples.",
    )
    stores = store.add_subparsers(title="commands", metavar="COMMAND", required=True)
    told = _command(stores, "info", runs["store info"], "what a store says of itself")
    verify = _command(
        stores,
        "verify",
        runs["store verify"],
        "read every record of a store; ends with 1 where one is damaged",
    )
    repair = _command(
        stores,
        "repair",
        runs["store repair"],
        "copy what is sound in a damaged store to a new one, and say how much is gone",
    )
    export = _command(
        stores,
        "export",
        runs["store export"],
        "write the samples of a store to files: images, masks, and samples.jsonl with all else",
    )
    for command in (told, verify, repair, export):
        command.add_argument("path", type=_expanded, metavar="PATH", help="folder of the store")
    repair.add_argument(
        "target", type=_expanded, metavar="TO", help="folder of the new store; must not be there yet"
    )
    export.add_argument(
        "folder", type=_expanded, metavar="DIR", help="folder to write to; must not have anything in it"
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[Any], name: str, run: object, what: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + "."
    )
    command.set_defaults(run=run)
    return command


def _add_source(command: argparse.ArgumentParser, more: str = "") -> None:
    command.add_argument(
        "data_dir",
        type=_expanded,
        metavar="DIR",
        help=f"folder with one sub-folder of pictures for each class{more}",
    )
    command.add_argument(
        "--classes",
        type=_path,
        metavar="FILE",
        help="the classes in the order of their labels, one a line, or what highway classes has printed (found)",
    )


def _add_data(command: argparse.ArgumentParser, shared: bool = False) -> None:
    """The options of what is read; `shared` where other machines need the same seed."""
    _add_source(command, ", or a store")
    command.add_argument("--size", type=_size, metavar="HxW", help="height and width of the images (240x320)")
    command.add_argument(
        "--fit",
        choices=FITS,
        help="how a picture becomes that size (letterbox where there are boxes, else center)",
    )
    command.add_argument(
        "--seed",
        type=_shared_seed if shared else _seed,
        default=0,
        metavar="N",
        help=f"of order and augmentation (0){'' if shared else '; random: another one each time'}",
    )
    command.add_argument(
        "--no-shuffle", dest="shuffle", action="store_false", help="in the order of the names"
    )
    command.add_argument(
        "--on-error",
        choices=("raise", "skip", "replace"),
        default="raise",
        help="what to do with a file that cannot be read: end, leave it out, or take another (raise)",
    )
    command.set_defaults(ways_on=("skip", "replace"))


def _add_voc(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--voc", action="store_true", help="DIR is a PASCAL VOC set (JPEGImages, Annotations), with boxes"
    )
    command.add_argument(
        "--split", metavar="NAME", help="with --voc: only the pictures of this list, as train (all of them)"
    )
    command.add_argument(
        "--images",
        type=_expanded,
        metavar="DIR",
        help="with --voc: the folder of pictures in the set (JPEGImages)",
    )
    command.add_argument(
        "--annotations",
        type=_expanded,
        metavar="DIR",
        help="with --voc: the folder of annotations in the set (Annotations)",
    )


def _add_annotated(command: argparse.ArgumentParser) -> None:
    _add_voc(command)
    masks = command.add_mutually_exclusive_group()
    masks.add_argument("--masks", action="store_true", help="with --voc: its segmentation masks too")
    masks.add_argument(
        "--masks-dir",
        type=_expanded,
        metavar="DIR",
        help="folder with a mask for each picture, in the same class folders",
    )


def _add_flip(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-flip", dest="flip", action="store_false", help="without FlipX")
    # A part of the data is for several machines.
    command.set_defaults(shard=(0, 1))


def _add_network(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--window", type=_window, default=8, metavar="N", help="batches that may be under way to a peer (8)"
    )
    secret = command.add_mutually_exclusive_group()
    secret.add_argument(
        "--secret-file",
        type=_path,
        metavar="FILE",
        help="what keygen wrote; needed where other machines can reach the address (the file that "
        "HIGHWAY_SECRET_FILE names)",
    )
    secret.add_argument(
        "--insecure", action="store_true", help="without a secret, on a network where everyone is trusted"
    )
    command.add_argument(
        "--drain-timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="longest time to finish what was begun, after SIGTERM (30)",
    )


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="threads that read and decode (as many as help, up to one for each usable core)",
    )


def _expanded(text: str) -> str:
    """A path; of ``--option=~/x`` the shell leaves the ~."""
    return os.path.expanduser(text)


def _path(text: str) -> Path:
    return Path(_expanded(text))


def _positive(text: str) -> int:
    number = _natural(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _seed(text: str) -> int | str:
    if text == RANDOM:
        return text
    number = _natural(text)
    if number >= 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number below 2**64")
    return number


def _shared_seed(text: str) -> int | str:
    if text == RANDOM:
        raise argparse.ArgumentTypeError(
            f"{text!r} would be another one on each machine; expected a number, the same for all"
        )
    return _seed(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def _window(text: str) -> int:
    return _up_to(MOST_WINDOW, text)


def _workers(text: str) -> int:
    return _up_to(MOST_WORKERS, text)


def _up_to(most: int, text: str) -> int:
    number = _positive(text)
    if number > most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
    return number


def _address(text: str) -> str:
    if text.startswith("inproc:"):
        raise argparse.ArgumentTypeError(f"{text!r} is within this process, where nobody else is")
    return text


def _shard(text: str) -> tuple[int, int]:
    rank, slash, world = text.partition("/")
    pair = (_natural(rank), _positive(world)) if slash else (1, 0)
    if pair[0] >= pair[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not R/W, as 0/2 and 1/2 for two machines")
    return pair


def _place(text: str) -> tuple[Path, str]:
    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not FILE.py:NAME")
    return _path(path), name


def _encoding(text: str) -> tuple[str, tuple[int, int] | None]:
    """How pictures are packed, and the size of raw ones."""
    kind, _, size = text.partition(":")
    if kind == "raw" and size:
        return kind, _size(size)
    if text == "original" or side_and_quality(text) is not None:
        return text, None
    raise argparse.ArgumentTypeError(
        f"{text!r} is not original, jpeg:SIDE (to {MOST_JPEG_SIDE}), jpeg:SIDE:QUALITY (to 100), raw:SIZE or raw:HxW"
    )


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    sides = [int(side) for side in found.groups() if side is not None] if found else [0]
    if 0 in sides:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HEIGHTxWIDTH, as 240x320, or one number for a square, in pixels, 1 or more"
        )
    return sides[0], sides[-1]
