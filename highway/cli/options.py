"""The arguments of the command ``highway``, and their valid values."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from highway._core.installation import version
from highway.arguments.limits import MOST_JPEG_SIDE, MOST_WINDOW, MOST_WORKERS, side_and_quality
from highway.arguments.synonyms import meant, nearest

__all__ = ["FITS", "RANDOM", "parser"]

RANDOM = "random"
"""Value of --seed that draws a new seed on every run."""

FITS = ("center", "random", "letterbox", "stretch")

_SIZE = re.compile("([0-9]{1,9})(?:x([0-9]{1,9}))?", re.ASCII | re.IGNORECASE)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"highway {version()}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Suggests the nearest known option or command for a misspelled one."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = sys.argv[1:] if args is None else list(args)
        # Before argparse: for a misspelled required option it would only report that the option is missing.
        self._refuse(word for word in self._own(words) if not self._is_known(word.partition("=")[0]))
        found, unknown = super().parse_known_args(
            words, argparse.Namespace() if namespace is None else namespace
        )
        self._refuse(unknown)
        return found, unknown

    def _own(self, words: Sequence[str]) -> Iterator[str]:
        """Yield the long options of this parser, without those of its commands."""
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
        # argparse calls this for every value with choices, commands included.
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action,
                f"{_guessed(repr(value), nearest(str(value), choices))}; choose from {', '.join(choices)}",
            )


def _guessed(word: str, other: str | None) -> str:
    return f"{word} (did you mean {other}?)" if other else word


def parser(runs: Mapping[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """Return the parser of all commands and their options.

    Parameters
    ----------
    runs : mapping of str to callable
        The function of each command; the parsed options hold it as `run`.
    """
    parser = _Parser(
        prog="highway",
        description="Feeds neural networks: folders of images to batches, in compiled threads.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = _command(
        commands,
        "demo",
        runs["demo"],
        "run Highway on real photographs: rate, bottleneck, a contact sheet",
    )
    demo.add_argument(
        "--output",
        type=_path,
        default=Path("demo-output"),
        metavar="DIR",
        help="folder to write to (demo-output)",
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
        "show versions, JPEG library, SIMD, PIL, cores and optional packages; or describe data",
    )
    info.add_argument(
        "data_dir",
        nargs="?",
        type=_expanded,
        metavar="DIR",
        help="class folders, a VOC set, a store, tar shards, a table or a manifest; shows what it contains",
    )

    classes = _command(
        commands,
        "classes",
        runs["classes"],
        "list the classes of class folders, a VOC set, a store, tar shards, a table or a manifest: label, name, count",
    )
    _add_source(classes, "a VOC set, a store, ")
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
        "measure how fast a folder, a store, tar shards, a table or a manifest become batches, and find the bottleneck",
    )
    _add_data(bench)
    _add_annotated(bench)
    _add_flip(bench)
    bench.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="images in a batch (16)")
    bench.add_argument("--normalize", action="store_true", help="also normalize the images to float32 NCHW")
    _add_workers(bench)
    length = bench.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="how long to measure (10)"
    )
    length.add_argument(
        "--epochs", type=_positive, metavar="N", help="measure whole passes over the data instead"
    )
    bench.add_argument(
        "--step-ms",
        type=_milliseconds,
        metavar="MS",
        help="simulate a trainer that takes MS milliseconds for a batch: measure how long it waits with all cores, and "
        "how few cores feed it, so that it waits at most 1%% of the time; measures each number of cores as long as "
        "--seconds or --epochs says",
    )

    preview = _command(
        commands,
        "preview",
        runs["preview"],
        "write a contact sheet of the batches of a folder, a store, tar shards, a table or a manifest",
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
    preview.add_argument("--columns", type=_positive, metavar="N", help="images in a row (automatic)")
    _add_annotated(preview)
    preview.add_argument(
        "--transforms",
        type=_place,
        metavar="FILE.py:NAME",
        help="apply these instead of FlipX: a list of transforms, a Stage, or a list of Stages in a Python file",
    )
    preview.add_argument(
        "--original", action="store_true", help="also draw the whole original picture next to each image"
    )
    # Stages from a file accept neither a seed nor a number of workers.
    preview.set_defaults(workers=None, normalize=False, seed=None)

    replay = _command(
        commands,
        "replay",
        runs["replay"],
        "make the batch that a training received at a step again: print its keys and labels, draw a contact sheet",
    )
    replay.add_argument(
        "state",
        nargs="?",
        type=_path,
        metavar="STATE",
        help="JSON file of a state_dict() of the training: checks the data, gives the epoch and what was skipped",
    )
    replay.add_argument(
        "--pipeline",
        type=_place,
        required=True,
        metavar="FILE.py:NAME",
        help="the pipeline of the training: a Pipeline, a list of modules, or a function that returns one of them",
    )
    number = replay.add_mutually_exclusive_group(required=True)
    number.add_argument("--step", type=_natural, metavar="N", help="number of the batch in its epoch, from 0")
    number.add_argument(
        "--global-step", type=_natural, metavar="N", help="number of the batch from the start of epoch 0"
    )
    replay.add_argument("--epoch", type=_natural, metavar="N", help="epoch of --step (that of STATE, or 0)")
    replay.add_argument(
        "--shard", type=_shard, metavar="R/W", help="the batch of rank R of W (as in the pipeline)"
    )
    replay.add_argument(
        "-o", "--output", type=_path, metavar="FILE", help="also draw a contact sheet, such as sheet.png"
    )
    replay.add_argument("--columns", type=_positive, metavar="N", help="images in a row (automatic)")

    serve = _command(
        commands,
        "serve",
        runs["serve"],
        "run a data machine: send the batches of a folder, a store, tar shards, a table or a manifest to workers or to "
        "the training machine",
    )
    _add_data(serve, shared=True)
    serve.add_argument(
        "--to",
        type=_address,
        required=True,
        metavar="ADDR",
        help="address to listen at: tcp://HOST:PORT, tcp://*:PORT or ipc://PATH",
    )
    serve.add_argument("--connect", action="store_true", help="connect to ADDR instead of listening there")
    serve.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="images in a batch (16)")
    serve.add_argument("--epochs", type=_positive, metavar="N", help="passes over the data (endless)")
    serve.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="R/W",
        help="serve the part of rank R of W training machines, from 0 to W-1, each with data machines of its own (0/1)",
    )
    serve.add_argument(
        "--stream",
        type=_shard,
        default=(0, 1),
        metavar="I/N",
        help="serve part I of N of that, from 0 to N-1, where N data machines serve the same training machine (0/1)",
    )
    _add_network(serve)
    _add_life(serve)
    _add_workers(serve)
    serve.set_defaults(flip=False, normalize=False)

    work = _command(
        commands,
        "work",
        runs["work"],
        "run a worker: apply transforms, or read and decode, for a training machine",
    )
    work.add_argument(
        "--from",
        dest="sources",
        type=_address,
        action="append",
        required=True,
        metavar="ADDR",
        help="address of a data machine; repeat for several",
    )
    work.add_argument(
        "--to",
        dest="targets",
        type=_address,
        action="append",
        required=True,
        metavar="ADDR",
        help="address of the training machine; with --pipeline, repeat --from and --to to serve several ranks",
    )
    work.add_argument(
        "--listen-from", action="store_true", help="listen at the (single) --from ADDR; data machines connect"
    )
    work.add_argument(
        "--listen-to", action="store_true", help="listen at the --to ADDR; the training machine connects"
    )
    work.add_argument(
        "--transforms",
        type=_place,
        metavar="FILE.py:NAME",
        help="a list of transforms, a Stage, or a list of Stages in a Python file (FlipX)",
    )
    work.add_argument(
        "--pipeline",
        type=_place,
        metavar="FILE.py:NAME",
        help="read and decode too: the modules of a training with Pipeline(modules, on=Remote(...)): a list, a "
        "Pipeline or a function that returns one; --from and --to are the addresses of Remote, a pair for each rank",
    )
    work.add_argument("--seed", type=_shared_seed, metavar="N", help="seed of the transforms (0)")
    work.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="threads (tuned automatically, up to one per usable core)",
    )
    work.add_argument(
        "--timeout",
        type=_seconds,
        metavar="S",
        help="end after S seconds with a training machine but without a data machine (never)",
    )
    _add_network(work)
    _add_life(work)

    status = _command(
        commands,
        "status",
        runs["status"],
        "print every machine of a running chain: role, rate, cores, queue, and the bottleneck",
    )
    status.add_argument(
        "address", type=_address, metavar="ADDR", help="address at which a machine of the chain listens"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="S", help="longest wait for an answer in seconds (5)"
    )
    _add_secret(status)

    keygen = _command(
        commands,
        "keygen",
        runs["keygen"],
        "make a new secret for sending batches between machines; every machine that has it can take part",
    )
    keygen.add_argument("file", type=_path, metavar="FILE", help="file to write; must not exist yet")

    pack = _command(
        commands,
        "pack",
        runs["pack"],
        "pack pictures (folders, tar shards, a table, a manifest) into a store or tar shards, or resume",
    )
    _add_source(pack, "")
    pack.add_argument(
        "store",
        type=_expanded,
        metavar="TO",
        help="folder of the store, or name of tar shards, such as 'train-{0000..}.tar'",
    )
    pack.add_argument("--shard-size", type=_positive, metavar="MIB", help="largest tar shard in MiB (1024)")
    pack.add_argument(
        "--encoding",
        type=_encoding,
        default=("original", None),
        metavar="HOW",
        help="original: the unchanged files; jpeg:SIDE[:QUALITY]: JPEGs with no side longer than SIDE pixels; "
        "raw:SIZE or raw:HxW: pixels of that size (original)",
    )
    pack.add_argument(
        "--fit",
        choices=FITS,
        help="with raw: how to fit a picture to that size (letterbox with --voc, else center)",
    )
    _add_annotated(pack)
    pack.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="skip",
        help="for a file that cannot be read: raise an error, or skip it and report it at the end (skip)",
    )
    pack.add_argument(
        "--max-pixels", type=_positive, metavar="N", help="most pixels of a picture (178956970)"
    )
    _add_workers(pack)
    pack.set_defaults(shuffle=False, seed=0, shard=(0, 1), ways_on=("skip",))

    store = commands.add_parser(
        "store",
        help="describe, verify, repair or export a store",
        description="Describe, verify, repair or export a store of samples.",
    )
    stores = store.add_subparsers(title="commands", metavar="COMMAND", required=True)
    info_parser = _command(stores, "info", runs["store info"], "describe a store")
    verify = _command(
        stores,
        "verify",
        runs["store verify"],
        "read every record of a store; the exit code is 1 if any is damaged",
    )
    repair = _command(
        stores,
        "repair",
        runs["store repair"],
        "copy the sound records of a damaged store to a new one, and report how many are lost",
    )
    export = _command(
        stores,
        "export",
        runs["store export"],
        "write the samples of a store to files: images, masks, and samples.jsonl with the other fields",
    )
    for command in (info_parser, verify, repair, export):
        command.add_argument("path", type=_expanded, metavar="PATH", help="folder of the store")
    repair.add_argument(
        "target", type=_expanded, metavar="TO", help="folder of the new store; must not exist yet"
    )
    export.add_argument("folder", type=_expanded, metavar="DIR", help="folder to write to; must be empty")

    index = _command(
        commands,
        "index",
        runs["index"],
        "list a bucket, or a folder in it, once for all: readers that get the index do not list it again",
    )
    index.add_argument(
        "url", metavar="URL", help="such as s3://BUCKET/FOLDER, gs://, az://, http:// or https://"
    )
    place = index.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "-o", "--output", type=_expanded, metavar="FILE", help="file to write: index=FILE of readers"
    )
    place.add_argument(
        "--cache", type=_expanded, metavar="DIR", help="write it where readers with cache=DIR look for it"
    )
    index.add_argument("--refresh", action="store_true", help="list again, even if there is an index")
    index.add_argument(
        "--storage-option",
        type=_setting,
        action="append",
        default=[],
        dest="storage_options",
        metavar="NAME=VALUE",
        help="option of the store, such as endpoint=https://HOST or region=NAME; repeat for several",
    )

    cache = commands.add_parser(
        "cache",
        help="describe, verify or clear a cache of fetched data",
        description="Describe, verify or clear a cache of fetched data; programs may use it meanwhile.",
    )
    caches = cache.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, what in (
        ("info", "describe a cache: entries, bytes, limit, when it was used"),
        (
            "verify",
            "read every entry of a cache, and remove damaged ones; the exit code is 1 if there were any",
        ),
        ("clear", "remove all entries and indexes of a cache; its limit stays"),
    ):
        command = _command(caches, name, runs[f"cache {name}"], what)
        command.add_argument("directory", type=_expanded, metavar="DIR", help="folder of the cache")
    return parser


def _command(
    commands: argparse._SubParsersAction[Any], name: str, run: object, what: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + "."
    )
    command.set_defaults(run=run)
    return command


_SHARDS = (
    "tar shards ('train-{0000..0099}.tar'), a table ('train-*.parquet') or a manifest (.csv, .tsv, .jsonl)"
)


def _add_source(command: argparse.ArgumentParser, more: str) -> None:
    command.add_argument(
        "data_dir",
        type=_expanded,
        metavar="DIR",
        help=f"folder with one sub-folder of pictures for each class; or {more}{_SHARDS}",
    )
    command.add_argument(
        "--classes",
        type=_path,
        metavar="FILE",
        help="file of classes in the order of their labels, one per line, or the output of highway classes (found)",
    )
    command.add_argument(
        "--image",
        metavar="NAME",
        help="of tar shards: endings of the pictures, with ; between them; of a table: their column (image); of a "
        "manifest: the column of their paths (path)",
    )
    labels = command.add_mutually_exclusive_group()
    labels.add_argument(
        "--label",
        metavar="NAME",
        help="of tar shards: ending of the labels, such as json:label.id (cls); of a table: their column (label), of a "
        "manifest too (class)",
    )
    labels.add_argument(
        "--no-labels", action="store_true", help="of tar shards, a table or a manifest: read no labels"
    )


def _add_data(command: argparse.ArgumentParser, shared: bool = False) -> None:
    """Add the options of the data; `shared` where other machines need the same seed."""
    _add_source(command, "a store, ")
    command.add_argument("--size", type=_size, metavar="HxW", help="height and width of the images (240x320)")
    command.add_argument(
        "--fit",
        choices=FITS,
        help="how to fit a picture to that size (letterbox where there are boxes, else center)",
    )
    command.add_argument(
        "--seed",
        type=_shared_seed if shared else _seed,
        default=0,
        metavar="N",
        help=f"seed of order and augmentation (0){'' if shared else '; random: a new one each time'}",
    )
    command.add_argument(
        "--no-shuffle", dest="shuffle", action="store_false", help="keep the order of the file names"
    )
    command.add_argument(
        "--on-error",
        choices=("raise", "skip", "replace"),
        default="raise",
        help="for a file that cannot be read: raise an error, skip it, or replace it by another (raise)",
    )
    command.set_defaults(ways_on=("skip", "replace"))


def _add_voc(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--voc", action="store_true", help="DIR is a PASCAL VOC set (JPEGImages, Annotations), with boxes"
    )
    command.add_argument(
        "--split", metavar="NAME", help="with --voc: only the pictures of this list, such as train (all)"
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
    command.add_argument("--no-flip", dest="flip", action="store_false", help="do not flip")
    # Only machines that serve have a shard.
    command.set_defaults(shard=(0, 1))


def _add_network(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--window", type=_window, default=8, metavar="N", help="most batches in flight to a peer (8)"
    )
    _add_secret(command)
    command.add_argument(
        "--drain-timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds to finish the batches in progress after SIGTERM (30)",
    )


def _add_life(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--exit-when-idle",
        type=_seconds,
        metavar="S",
        help="end with exit code 0 after S seconds without a connected machine upstream or downstream (never)",
    )
    command.add_argument(
        "--health",
        type=_health,
        metavar="[HOST:]PORT",
        help="serve /healthz, /readyz and /metrics for Prometheus at this port of HOST (127.0.0.1)",
    )


def _health(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or int(port) > 65535 or (colon and not host):
        raise argparse.ArgumentTypeError(f"{text!r} is not PORT or HOST:PORT, such as 9090 or 0.0.0.0:9090")
    return host or "127.0.0.1", int(port)


def _add_secret(command: argparse.ArgumentParser) -> None:
    secret = command.add_mutually_exclusive_group()
    secret.add_argument(
        "--secret-file",
        type=_path,
        metavar="FILE",
        help="secret file from keygen; needed where other machines can reach the address (the file that "
        "HIGHWAY_SECRET_FILE names)",
    )
    secret.add_argument(
        "--insecure", action="store_true", help="use no secret, on a network where you trust everyone"
    )


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="threads that read and decode (tuned automatically, up to one per usable core)",
    )


def _expanded(text: str) -> str:
    """Expand the ~ of a path; the shell does not for ``--option=~/x``."""
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
            f"{text!r} would draw a different seed on each machine; expected a number, the same on all"
        )
    return _seed(text)


def _seconds(text: str) -> float:
    return _above_zero(text, "seconds")


def _milliseconds(text: str) -> float:
    return _above_zero(text, "milliseconds")


def _above_zero(text: str, unit: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} above 0")
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
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be reached from another process; use tcp:// or ipc://"
        )
    return text


def _shard(text: str) -> tuple[int, int]:
    rank, slash, world = text.partition("/")
    pair = (_natural(rank), _positive(world)) if slash else (1, 0)
    if pair[0] >= pair[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not R/W, such as 0/2 and 1/2 for two machines")
    return pair


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _place(text: str) -> tuple[Path, str]:
    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not FILE.py:NAME")
    return _path(path), name


def _encoding(text: str) -> tuple[str, tuple[int, int] | None]:
    """Return the encoding of packed pictures, and the size of raw ones."""
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
            f"{text!r} is not HEIGHTxWIDTH, such as 240x320, or one number for a square, in pixels, 1 or more"
        )
    return sides[0], sides[-1]
