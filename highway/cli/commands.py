"""The functions of the command ``highway``; `highway.cli.options` has its arguments."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from highway.arguments import chosen_seed
from highway.cli.options import FITS, RANDOM, parser
from highway.errors import (
    ArgumentError,
    DecodeError,
    EmptyDatasetError,
    HighwayError,
    IncompleteStoreError,
    ReadError,
    SecurityError,
    StateMismatchError,
)

if TYPE_CHECKING:
    from highway.engine import Module, Stage
    from highway.modules import (
        ImageFileReader,
        LevelDBImageReader,
        LevelDBSource,
        ListReader,
        TableReader,
        TarReader,
        VOCReader,
    )
    from highway.transforms import Normalize, Transform
    from highway.transforms.fit import Fit

    Reader = (
        ImageFileReader
        | VOCReader
        | TarReader
        | TableReader
        | ListReader
        | LevelDBImageReader
        | LevelDBSource
    )

__all__ = ["main"]

_RAW_BYTES = 4 << 20  # of a batch
_IMAGE_SIZE = (240, 320)  # where none is given
# What --on-error does to files that cannot be read.
_DONE = {"raise": "", "skip": "skipped", "replace": "replaced by others"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the name of the program; those of this process by default.

    Returns
    -------
    int
        0; 1 after an error, which is printed as one line to stderr; 130 after Ctrl-C. Invalid arguments exit with 2.
    """
    options = argparse.Namespace()
    try:
        command_line().parse_args(arguments, options)
        if getattr(options, "seed", None) == RANDOM:
            options.seed = chosen_seed("highway", None)
            print(f"The seed is {options.seed}.", file=sys.stderr)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted{''.join(f'; {text}' for text in interrupt.args)}.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has closed it, which is not an error; nothing may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (HighwayError, OSError) as error:
        print(f"highway: {_in_one_line(error)}{_way_on(error, options)}", file=sys.stderr)
        return 1


def _in_one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, HighwayError) and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    # File names may hold line breaks, or bytes that are not UTF-8.
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()


def _way_on(error: Exception, options: argparse.Namespace) -> str:
    if isinstance(error, (DecodeError, ReadError)) and getattr(options, "on_error", None) == "raise":
        return f" (--on-error {' or '.join(options.ways_on)} continues without it)"
    if isinstance(error, IncompleteStoreError):
        return (
            " (here: highway pack with the same arguments resumes, highway store export saves what is there)"
        )
    if isinstance(error, SecurityError) and getattr(options, "secret_file", error) is None:
        return " (here: --secret-file FILE, or --insecure)"
    return ""


# The commands. Each imports what it needs, so that --help is fast.


def _demo(options: argparse.Namespace) -> int:
    from highway.cli import demo

    return demo.run(options.output, epochs=options.epochs, workers=options.workers)


def _info(options: argparse.Namespace) -> int:
    from highway.cli import environment
    from highway.cli.terminal import facts

    if options.data_dir is None:
        facts(environment.describe())
        return 0
    from highway.cli import datasets

    if datasets.is_store(options.data_dir):
        from highway.store import checks

        facts([("kind", "a store"), *checks.describe(options.data_dir)])
    else:
        facts(datasets.describe(options.data_dir))
    return 0


def _classes(options: argparse.Namespace) -> int:
    from highway.cli import classes
    from highway.cli.datasets import is_store, is_voc

    if is_store(options.data_dir):
        _check_no_folder(options, _A_STORE)
        known = classes.of_store(options.data_dir, _given_classes(options).get("classes"))
    else:
        if not options.voc and not _is_listed(options.data_dir):
            named = {name: getattr(options, name) for name in ("images", "annotations")}
            options.voc = is_voc(options.data_dir, **{name: part for name, part in named.items() if part})
        known = classes.of_reader(_file_reader(options, 1, 1, _fit(options)))
    for number, (name, count) in enumerate(known):
        print(classes.line(number, name, count))
    return 0


def _bench(options: argparse.Namespace) -> int:
    from highway.cli.terminal import facts, run_pipeline

    reader, modules = _pipeline(options, options.batch_size, options.epochs)
    facts(
        [
            ("data", f"{_samples(reader)}, in {options.data_dir}"),
            ("job", " -> ".join(map(repr, modules))),
            ("threads", ", ".join(map(_threads, modules, ("read and decode", "augment")))),
        ]
    )
    if options.step_ms is not None:
        return _bench_trainer(options, reader, modules)
    result = run_pipeline(
        modules,
        total=options.epochs and options.epochs * reader.size,
        seconds=None if options.epochs else options.seconds,
    )
    print(f"\n{result}", flush=True)
    _print_bad_files(reader.errors, _how_many(reader), _DONE[reader.on_error])
    if result.interrupted:
        print("Interrupted: the figures cover the time until then.", file=sys.stderr)
        return 130
    return 0


def _bench_trainer(options: argparse.Namespace, reader: Reader, modules: Sequence[Module]) -> int:
    from highway.cli import trainer
    from highway.cli.terminal import facts

    def show(result: trainer.Feeding) -> None:
        facts([(_count(result.cores, "core").ljust(8), str(result))])

    step = options.step_ms / 1e3
    print(flush=True)
    found = trainer.feedings(modules, step, None if options.epochs else options.seconds, show)
    print(f"\n{trainer.report(found, step)}", flush=True)
    _print_bad_files(found[0].errors, _how_many(reader), _DONE[reader.on_error])
    return 0


def _threads(module: Module, work: str) -> str:
    return f"{module.workers or f'up to {module.most_workers()}'} to {work}"


def _preview(options: argparse.Namespace) -> int:
    from highway.engine import Pipeline
    from highway.transforms import Letterbox

    reader, stages = _reader(options, options.count, 1, _fit(options)), _preview_stages(options)
    with Pipeline([reader, *stages]) as pipeline:
        batch = pipeline.dequeue()
    original = None
    if options.original:
        with Pipeline([_reader(options, options.count, 1, Letterbox(fill=255))]) as pipeline:
            original = pipeline.dequeue()
    steps = _steps(stages)
    batch.sheet(
        options.output,
        reader.classes if isinstance(reader.classes, list) else None,
        columns=options.columns,
        title=", then ".join(map(repr, [getattr(reader, "fit", reader), *steps])),
        normalize=_last_normalize(steps),
        original=original,
    )
    _print_bad_files(reader.errors, _how_many(reader), _DONE[reader.on_error])
    print(f"{options.output}: {batch.size} of {_samples(reader)}")
    return 0


def _check_annotated(options: argparse.Namespace) -> None:
    if options.voc and options.masks_dir is not None:
        raise ArgumentError("--masks-dir is for class folders; use --masks for the masks of a VOC set")
    names = ("masks", "split", "images", "annotations")
    given = next((f"--{name}" for name in names if getattr(options, name) not in (None, False)), None)
    if not options.voc and given is not None:
        instead = "; for masks of class folders use --masks-dir DIR" if options.masks else ""
        raise ArgumentError(f"{given} needs --voc: it is for a VOC set{instead}")


def _preview_stages(options: argparse.Namespace) -> list[Stage]:
    from highway.cli import definitions

    if options.transforms is not None:
        path, name = options.transforms
        return definitions.stages_in(path, name, options.seed, options.workers)
    transforms = _transforms(options)
    return definitions.augmentations(transforms, options.seed, options.workers) if transforms else []


def _replay(options: argparse.Namespace) -> int:
    import json

    from highway import replay
    from highway.cli import definitions
    from highway.viz.contact_sheet import captions

    modules = definitions.modules_in(*options.pipeline)
    state = None
    if options.state is not None:
        try:
            state = json.loads(options.state.read_bytes())
        except ValueError as error:
            raise StateMismatchError(
                f"{options.state}: the file is not JSON ({error}); expected the result of state_dict() as JSON"
            ) from None
    batch = replay.batch(
        modules,
        state,
        step=options.step,
        epoch=options.epoch,
        global_step=options.global_step,
        shard=options.shard,
    )
    found = getattr(modules[0], "classes", None)
    classes = found if isinstance(found, list) else None
    rank, world = options.shard or modules[0].shard  # type: ignore[attr-defined]
    title = f"Step {batch.seq} of epoch {batch.epoch}, rank {rank} of {world}"
    print(f"{title}: {_count(batch.size, 'sample')}")
    for row in range(batch.size):
        label, key = captions(batch, row, classes)
        print(*(_in_one_line(HighwayError(text)) for text in (label, key) if text), sep="\t")
    if options.output is not None:
        normalize = _last_normalize(_steps(modules[1:]))
        batch.sheet(options.output, classes, columns=options.columns, title=title, normalize=normalize)
        print(f"{options.output}: the batch as the network got it")
    return 0


def _steps(stages: Sequence[Module]) -> list[Module | Transform]:
    """Return the steps on a batch: the transforms of `images`, and all other stages."""
    from highway.modules import Augmentations

    steps: list[Module | Transform] = []
    for stage in stages:
        steps += stage.transforms if isinstance(stage, Augmentations) and stage.field is None else [stage]
    return steps


def _last_normalize(steps: Sequence[Module | Transform]) -> Normalize | None:
    from highway.transforms import Normalize

    return next((step for step in reversed(steps) if isinstance(step, Normalize)), None)


def _serve(options: argparse.Namespace) -> int:
    from highway.cli import serve
    from highway.modules import ZMQSink

    rank, world = options.shard
    number, count = options.stream
    options.shard = rank * count + number, world * count
    with serve.Ending() as ending:
        reader, _ = _pipeline(options, options.batch_size, options.epochs)
        with serve.brief_warnings():
            sink = ZMQSink(
                options.to,
                bind=not options.connect,
                stream=options.stream,
                drain_timeout=options.drain_timeout,
                **_network(options),
            )
        part = f"part {number} of {count}" + (f" of rank {rank} of {world}" if world > 1 else "")
        title = f"Serving {_samples(reader)}, in {options.data_dir}, {part}"
        code = serve.run([reader, sink], title, ending, options.drain_timeout, **_life(options))
    _print_bad_files(reader.errors, _how_many(reader), _DONE[reader.on_error])
    return code


def _work(options: argparse.Namespace) -> int:
    from highway.cli import definitions, serve
    from highway.modules import ZMQSink, ZMQSource
    from highway.transforms import FlipX

    if options.listen_from and len(options.sources) > 1:
        raise ArgumentError(
            f"--listen-from needs exactly one --from, the address to listen at; found {len(options.sources)}; "
            "data machines connect to it with highway serve --connect"
        )
    if options.pipeline is None and len(options.targets) > 1:
        raise ArgumentError(
            f"--to is given {len(options.targets)} times; expected one training machine, or --pipeline, with which a "
            "worker serves several ranks"
        )
    with serve.Ending() as ending:
        if options.pipeline is not None:
            modules, ordered = _of_pipeline(options)
            return serve.run(
                modules, "Working", ending, options.drain_timeout, ordered=ordered, **_life(options)
            )
        if options.transforms is None:
            stages = definitions.augmentations([FlipX()], options.seed, options.workers)
        else:
            path, name = options.transforms
            stages = definitions.stages_in(path, name, options.seed, options.workers)
        with serve.brief_warnings():
            source = ZMQSource(
                options.sources,
                bind=options.listen_from,
                timeout=options.timeout,
                **_network(options),
            )
            sink = ZMQSink(
                options.targets[0],
                bind=options.listen_to,
                drain_timeout=options.drain_timeout,
                **_network(options),
            )
        return serve.run([source, *stages, sink], "Working", ending, options.drain_timeout, **_life(options))


def _life(options: argparse.Namespace) -> dict[str, Any]:
    """Return how long a machine lives, and where it can be seen."""
    return {"exit_when_idle": options.exit_when_idle, "health": options.health}


def _status(options: argparse.Namespace) -> int:
    from highway.cli import serve, status

    with serve.brief_warnings():
        found = status.ask(
            options.address, secret=options.secret_file, insecure=options.insecure, timeout=options.timeout
        )
    print(status.as_json(found) if options.json else status.as_table(found))
    return 0


def _of_pipeline(options: argparse.Namespace) -> tuple[list[Module], bool]:
    """Return the modules of a worker of pipelines with ``on=Remote(...)``, and whether batches keep their order."""
    from highway.cli import definitions, serve
    from highway.network.pool import pool_modules
    from highway.network.remote import worker_modules

    refused = {
        "--transforms": options.transforms is not None,
        "--seed": options.seed is not None,
        "--listen-from": options.listen_from,
        "--listen-to": options.listen_to,
        f"--from {len(options.sources)} times, --to {len(options.targets)} times": (
            len(options.sources) != len(options.targets)
        ),
    }
    for name, given in refused.items():
        if given:
            raise ArgumentError(
                f"{name} is given with --pipeline; expected --from and --to, the addresses of Remote(...) of the "
                "training, a pair for each rank: the pipeline has the transforms and their seeds"
            )
    modules = definitions.modules_in(*options.pipeline)
    common = {
        "workers": options.workers,
        "drain_timeout": options.drain_timeout,
        "timeout": options.timeout,
        **_network(options),
    }
    with serve.brief_warnings():
        if len(options.sources) == 1:
            return worker_modules(modules, options.sources[0], options.targets[0], **common), True
        ranks = list(zip(options.sources, options.targets, strict=True))
        return pool_modules(modules, ranks, **common), False


def _network(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that sources and sinks share."""
    return {"secret": options.secret_file, "insecure": options.insecure, "window": options.window}


def _keygen(options: argparse.Namespace) -> int:
    from highway.network.zmq import security

    keys = security.new_secret_file(options.file)
    path = shlex.quote(os.fspath(options.file.absolute()))
    print(
        f"{options.file}: a new secret (fingerprint {keys.fingerprint}), readable by this user only.\n"
        "Copy it to every machine that takes part, with a program that encrypts and keeps the file mode:\n"
        f"  scp -p {path} MACHINE:\n"
        "On every machine, set its path in the environment:\n"
        f"  export {security.SECRET_FILE}={path}"
    )
    return 0


def _pack(options: argparse.Namespace) -> int:
    from highway.cli.pack import pack

    encoding, size = options.encoding
    if size is None and options.fit is not None:
        raise ArgumentError(f"--fit is for --encoding raw:SIZE; {encoding} keeps whole pictures")
    # Raw arrays do not keep the pictures that they were made from.
    options.placement = size is not None
    # Where pictures are encoded, the size of the images does not matter.
    options.size = size or (1, 1)
    batch_size = max(1, min(64, _RAW_BYTES // (3 * options.size[0] * options.size[1])))
    reader = _file_reader(options, batch_size, 1, _fit(options))
    start = time.perf_counter()
    try:
        shard_bytes = None if options.shard_size is None else options.shard_size << 20
        before, after, errors = pack(reader, options.store, encoding, shard_bytes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the packed samples are kept; run the same command to resume") from None
    seconds = time.perf_counter() - start
    done = f"{_count(after - before, 'sample')} in {seconds:.1f} s ({(after - before) / seconds:,.0f}/s)"
    there = f", {before} were there already" if before else ""
    print(f"{options.store}: {done}{there}; {_count(after, 'sample')} of {_how_many(reader)}")
    _print_bad_files(errors, _how_many(reader), "skipped")
    return 0


def _store_export(options: argparse.Namespace) -> int:
    from highway.cli.export import export

    try:
        samples, complete = export(options.path, options.folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"remove {options.folder}, which is incomplete") from None
    print(f"{options.folder}: {_count(samples, 'sample')} of {options.path}{_unfinished(complete)}")
    return 0


def _store_info(options: argparse.Namespace) -> int:
    from highway.cli.terminal import facts
    from highway.store import checks

    facts(checks.describe(options.path))
    return 0


def _store_verify(options: argparse.Namespace) -> int:
    from highway.cli.terminal import progress
    from highway.store import checks

    def bad(first: int, last: int, reason: str) -> None:
        which = f"record {first} is" if first == last else f"records {first} to {last} are"
        print(f"{which} damaged: {_in_one_line(HighwayError(reason))}", flush=True)

    damaged, size, complete = checks.verify(options.path, bad, progress)
    print(
        f"{options.path}: {_count(size, 'record')}, {damaged or 'none'} of them damaged"
        f"{_unfinished(complete)}{' (highway store repair saves the others)' if damaged else ''}"
    )
    return 1 if damaged or not complete else 0


def _store_repair(options: argparse.Namespace) -> int:
    from highway.cli.terminal import progress
    from highway.store import checks

    try:
        kept, gone, complete = checks.repair(options.path, options.target, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"remove {options.target}, which is incomplete") from None
    lost = "the number of lost records is unknown" if gone is None else f"{gone or 'none'} lost"
    unfinished = _unfinished(complete or gone is None)
    print(f"{options.target}: {_count(kept, 'record')} of {options.path}; {lost}{unfinished}")
    return 0


def _index(options: argparse.Namespace) -> int:
    from highway.cli.terminal import status_line
    from highway.storage import urls
    from highway.storage.bucket_index import indexed, path_in_cache
    from highway.storage.opening import open_store

    if not urls.is_url(options.url):
        raise ArgumentError(
            f"URL is {options.url!r}; expected one of a bucket or a folder in it, such as s3://BUCKET/FOLDER"
        )
    root, prefix = urls.split(options.url, "index")
    store = open_store(root, "index", dict(options.storage_options))
    path = options.output or path_in_cache(options.cache, store, prefix)
    there = os.path.lexists(path) and not options.refresh
    start = time.perf_counter()
    with status_line() as show:
        index = indexed(
            store, prefix, path, refresh=options.refresh, told=lambda count: show(f"{count:,} objects")
        )
    if not len(index):
        os.remove(path)
        raise EmptyDatasetError(f"index: {options.url!r} has no objects; check the bucket and the folder")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(index.made))
    how = f"of {when} (--refresh lists again)" if there else f"listed in {time.perf_counter() - start:.1f} s"
    print(f"{path}: {_count(len(index), 'object')}, {int(index.sizes.sum()):,} bytes, {how}")
    return 0


def _cache_info(options: argparse.Namespace) -> int:
    from highway.cli.terminal import facts
    from highway.storage.cache import checks

    facts(checks.describe(options.directory))
    return 0


def _cache_verify(options: argparse.Namespace) -> int:
    from highway.storage.cache import checks

    def bad(path: str) -> None:
        print(f"{_in_one_line(HighwayError(path))} was damaged, and is removed", flush=True)

    entries, damaged = checks.verify(options.directory, bad)
    print(f"{options.directory}: {_entries(entries)}, {damaged or 'none'} of them damaged")
    return 1 if damaged else 0


def _cache_clear(options: argparse.Namespace) -> int:
    from highway.storage.cache import checks

    entries, size = checks.clear(options.directory)
    print(f"{options.directory}: removed {_entries(entries)}, {size:,} bytes")
    return 0


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def _unfinished(complete: bool) -> str:
    return "" if complete else "; its writing was interrupted, so samples may be missing"


def _how_many(reader: Reader) -> str:
    """Return the number of files, records, samples in tars, or rows, as text."""
    from highway.modules import LevelDBSource

    return _count(reader.size, "record" if isinstance(reader, LevelDBSource) else reader.samples.noun)


def _samples(reader: Reader) -> str:
    """Return the number of samples and of classes, as text."""
    classes = reader.classes if isinstance(reader.classes, int) else len(reader.classes or ())
    return f"{_how_many(reader)} in {_count(classes, 'class')}" if classes else _how_many(reader)


def _pipeline(
    options: argparse.Namespace, batch_size: int, epochs: int | None
) -> tuple[Reader, list[Module]]:
    """Return the reader of the options, and all modules."""
    from highway.modules import Augmentations

    reader = _reader(options, batch_size, epochs, _fit(options))
    transforms = _transforms(options)
    if not transforms:
        return reader, [reader]
    return reader, [reader, Augmentations(transforms, seed=options.seed)]


def _fit(options: argparse.Namespace) -> Fit | None:
    """Return the requested fit; None for the default of the reader, which depends on boxes."""
    from highway.transforms import CenterFit, Letterbox, RandomResizedCrop, Stretch

    kinds: tuple[type[Fit], ...] = (CenterFit, RandomResizedCrop, Letterbox, Stretch)
    return None if options.fit is None else kinds[FITS.index(options.fit)]()


def _reader(options: argparse.Namespace, batch_size: int, epochs: int | None, fit: Fit | None) -> Reader:
    from highway.cli.datasets import is_store

    if is_store(options.data_dir):
        return _store_reader(options, batch_size, epochs, fit)
    return _file_reader(options, batch_size, epochs, fit)


def _is_listed(path: str) -> bool:
    """Whether a path names tar shards, a table or a manifest."""
    from highway.cli.datasets import is_manifest, is_tar
    from highway.modules.readers.tables.endings import is_table

    return is_tar(path) or is_table(path) or is_manifest(path)


def _file_reader(
    options: argparse.Namespace, batch_size: int, epochs: int | None, fit: Fit | None
) -> ImageFileReader | VOCReader | TarReader | TableReader | ListReader:
    if _is_listed(options.data_dir):
        return _shard_reader(options, batch_size, epochs, fit)
    return _folder_reader(options, batch_size, epochs, fit)


def _passes(options: argparse.Namespace, epochs: int | None) -> dict[str, Any]:
    """Return the arguments that all readers share."""
    return {
        "shuffle": options.shuffle,
        "seed": options.seed or 0,
        "epochs": epochs,
        "shard": options.shard,
        "on_error": options.on_error,
        "workers": options.workers,
        **_given_classes(options),
    }


def _given_classes(options: argparse.Namespace) -> dict[str, Any]:
    """Return the argument `classes`, where it is given."""
    from highway.cli import classes

    return {} if options.classes is None else {"classes": classes.read_file(options.classes)}


_A_STORE = "is a store, which contains its boxes and masks"


def _check_no_folder(options: argparse.Namespace, what: str) -> None:
    for name in ("voc", "split", "images", "annotations", "masks", "masks_dir"):
        if getattr(options, name, None):
            raise ArgumentError(f"--{name.replace('_', '-')} is for folders; {options.data_dir!r} {what}")


def _check_no_shards(options: argparse.Namespace) -> None:
    for name in ("image", "label", "no_labels"):
        if getattr(options, name, None):
            raise ArgumentError(
                f"--{name.replace('_', '-')} is for tar shards, tables and manifests; {options.data_dir!r} is none of "
                "them"
            )


def _shard_reader(
    options: argparse.Namespace, batch_size: int, epochs: int | None, fit: Fit | None
) -> TarReader | TableReader | ListReader:
    from highway.cli.datasets import is_manifest, is_tar, manifest_reader
    from highway.modules import TableReader, TarReader

    path, size = options.data_dir, options.size or _IMAGE_SIZE
    kinds = {"tar shards": is_tar(path), "a manifest": is_manifest(path), "a table": True}
    kind = next(kind for kind, found in kinds.items() if found)
    _check_no_folder(options, f"names {kind}")
    arguments = _passes(options, epochs)
    if options.image is not None:
        arguments["image"] = options.image
    if options.label is not None or options.no_labels:
        arguments["label"] = options.label
    for name in ("max_pixels", "placement"):
        if getattr(options, name, None):
            arguments[name] = getattr(options, name)
    if kind == "a manifest":
        return manifest_reader(path, batch_size, size, fit=fit, **arguments)
    reader = TarReader if kind == "tar shards" else TableReader
    return reader(path, batch_size, size, fit=fit, **arguments)


def _store_reader(
    options: argparse.Namespace, batch_size: int, epochs: int | None, fit: Fit | None
) -> LevelDBImageReader | LevelDBSource:
    from highway.modules import LevelDBImageReader, LevelDBSource
    from highway.store.reading import StoreReader

    path = options.data_dir
    _check_no_folder(options, _A_STORE)
    _check_no_shards(options)
    store = StoreReader(path, LevelDBSource.__name__)
    try:
        columns = store.mark.schema.columns if store.mark.schema is not None else ()
    finally:
        store.close()
    arguments = _passes(options, epochs)
    if any(column.name == "images" and column.encoded for column in columns):
        return LevelDBImageReader(path, batch_size, options.size or _IMAGE_SIZE, fit=fit, **arguments)
    for name in ("size", "fit", "original"):
        if getattr(options, name, None):
            raise ArgumentError(
                f"--{name} is for pictures; the store {path!r} holds arrays, which are read unchanged"
            )
    return LevelDBSource(path, batch_size, **arguments)


def _folder_reader(
    options: argparse.Namespace, batch_size: int, epochs: int | None, fit: Fit | None
) -> ImageFileReader | VOCReader:
    _check_no_shards(options)
    if hasattr(options, "voc"):
        _check_annotated(options)
    size, arguments = options.size or _IMAGE_SIZE, _passes(options, epochs)
    if getattr(options, "max_pixels", None) is not None:
        arguments["max_pixels"] = options.max_pixels
    if getattr(options, "voc", False):
        from highway.modules import VOCReader

        if options.masks:
            arguments["masks"] = True
        if getattr(options, "placement", False):
            arguments["placement"] = True
        for name in ("images", "annotations"):
            if getattr(options, name) is not None:
                arguments[name] = getattr(options, name)
        return VOCReader(options.data_dir, batch_size, size, fit=fit, split=options.split, **arguments)
    from highway.modules import ImageFileReader

    if getattr(options, "masks_dir", None) is not None:
        arguments["masks_dir"] = options.masks_dir
    return ImageFileReader(options.data_dir, batch_size, size, fit=fit, **arguments)


def _transforms(options: argparse.Namespace) -> list[Transform]:
    from highway.transforms import FlipX, Normalize

    flip: list[Transform] = [FlipX()] if options.flip else []
    return [*flip, Normalize()] if options.normalize else flip


def _print_bad_files(errors: Sequence[tuple[str, str]], size: str, done: str) -> None:
    if errors:
        print(f"{size}, of which {len(errors)} could not be read; {done}:", file=sys.stderr)
        for _, reason in errors[:10]:
            print(f"  {_in_one_line(HighwayError(reason))}", file=sys.stderr)
        if len(errors) > 10:
            print(f"  and {len(errors) - 10} more", file=sys.stderr)


def _count(number: int, noun: str) -> str:
    plural = noun if number == 1 else noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {plural}"


def command_line() -> argparse.ArgumentParser:
    return parser(
        {
            "demo": _demo,
            "info": _info,
            "classes": _classes,
            "bench": _bench,
            "preview": _preview,
            "replay": _replay,
            "serve": _serve,
            "work": _work,
            "status": _status,
            "keygen": _keygen,
            "pack": _pack,
            "index": _index,
            "cache info": _cache_info,
            "cache verify": _cache_verify,
            "cache clear": _cache_clear,
            "store export": _store_export,
            "store info": _store_info,
            "store verify": _store_verify,
            "store repair": _store_repair,
        }
    )
