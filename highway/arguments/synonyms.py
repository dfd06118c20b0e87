"""Arguments of other libraries: what they are called here, or what to use instead; and the most similar names."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["elsewhere", "meant", "nearest", "synonym"]


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


# Names of the same argument in different libraries, in lower case and without underscores.
SAME = [
    names.split()
    for names in (
        "workers numworkers numthreads numparallelcalls nworkers njobs numproc",
        "queuesize prefetch prefetchfactor prefetchqueuedepth buffer",
        "batchsize batch bs samplespergpu",
        "shape size imagesize imgsize resolution targetsize outputsize cropsize height width",
        "datadir paths table root path folder directory fileroot rootdir filenames files urls",
        "images x",
        "labels targets y labelmode",
        "classes classnames categories numclasses",
        "split imageset",
        "weights sampleweights probabilities probs",
        "maxsamples numsamples",
        "seed generator randomstate rng",
        "shuffle randomshuffle",
        "epochs numepochs nepochs repeat",
        "shard rank world worldsize numshards shardid numreplicas nodesplitter",
        "droplast dropremainder partial",
        "onerror handler",
        "ordered inorder",
        "modules dataset datasets stages",
        "color colormode outputtype",
        "addr address url endpoint",
        # Of transforms
        "transforms transform augmentations ops layers",
        "p prob probability",
        "degrees angle limit rotate rotatelimit",
        "translate shiftlimit translatepercent",
        "scale scalelimit zoomrange",
        "brightness brightnesslimit brightnessrange",
        "contrast contrastlimit contrastrange",
        "saturation satshiftlimit saturationrange",
        "hue hueshiftlimit huerange",
        "gamma gammalimit",
        "factor sharpnessfactor",
        "kernelsize blurlimit ksize",
        "sigma sigmalimit std stdrange",
        "bits numbits",
        "threshold thresholdrange",
        "fill value fillvalue cval bordervalue fillmask padvalue paddingvalue",
        "minvisible minvisibility",
        "interpolation resample filter",
        "layout dataformat outputlayout",
        "fn lambd func function",
        # Of data sets in Python, tables and samples of differing length
        "collate collatefn",
        "startmethod multiprocessingcontext",
        "fields columns",
        "delimiter sep",
        "stop stoppingstrategy",
        "length maxlength maxlen to",
        "shardsamples maxcount",
        "maxsize maxsizehw longestside",
    )
]

_NOT_NEEDED = "no counterpart is needed: readers make the batches, and workers are threads"

# Arguments, spelled in the same way, that other libraries pass to this class, and Highway to another or to none.
ELSEWHERE = {
    **dict.fromkeys(
        ("transform", "transforms", "augmentations"),
        "transforms go into Augmentations([...]), the next module",
    ),
    "targettransform": "labels are arrays of a batch; change them in a Stage of your own",
    **{
        _plain(name): f"{name} is an argument of the reader, the first module"
        for name in ("batch_size", "shuffle", "drop_last", "epochs", "shard")
    },
    **{
        _plain(name): f"{name} is an argument of readers of pictures, such as ImageFileReader"
        for name in ("data_dir", "shape", "color", "on_error")
    },
    "workers": "workers is an argument of readers, Augmentations and other modules",
    "queuesize": "queue_size is an argument of readers, Augmentations and other modules",
    "seed": "seed is an argument of the reader and of Augmentations([...])",
    "ordered": "ordered is an argument of Pipeline([...])",
    "modules": "modules go into Pipeline([...])",
    "normalize": "Normalize(mean, std) goes into Augmentations([...])",
    **dict.fromkeys(
        ("collatefn", "workerinitfn", "persistentworkers", "multiprocessingcontext", "multiprocessing"),
        _NOT_NEEDED,
    ),
    **dict.fromkeys(
        ("pinmemory", "pinmemorydevice"),
        "highway.torch.Loader(pipeline, device=...) yields tensors, from page-locked memory on CUDA",
    ),
    **dict.fromkeys(
        ("sampler", "batchsampler"),
        "readers have shuffle, seed, shard, subset, weights and repeats; for another order, write a Source",
    ),
    **dict.fromkeys(
        ("shufflebuffer", "shufflebuffersize", "buffersize", "initialfill", "shardshuffle"),
        "shuffle=True shuffles all samples; there is no buffer",
    ),
    **dict.fromkeys(
        ("brightness", "contrast", "saturation", "hue"),
        "ColorJitter(brightness, contrast, saturation, hue) goes into Augmentations([...])",
    ),
    **dict.fromkeys(("mean", "std"), "Normalize(mean, std) goes into Augmentations([...])"),
    "batched": "per_sample says whether the function is called for each sample or for each batch",
    "pairs": "columns of several pictures are image=('image', 'target'); a ListReader of paths has pairs",
    "quality": "the encoding has it, as in 'jpeg:512:90'",
    "interpolation": "fits and warps have interpolation, as in fit=CenterFit(interpolation='bicubic')",
    "antialias": "fits always filter, unless interpolation is 'nearest'",
    **dict.fromkeys(("paddingmode", "bordermode"), "borders have a constant value, fill"),
    **dict.fromkeys(("expand", "center"), "images turn about their center and keep their size"),
    "padifneeded": "padding adds the border, before the crop",
    "inplace": "a transform overwrites its input where nothing else has it",
    "alwaysapply": "p=1 applies it to every sample",
    "p": "RandomApply([...], p) applies transforms with a probability",
    "numoutputchannels": "Grayscale keeps the number of channels; readers have color='gray'",
    "loader": "readers decode JPEG, PNG, WebP, BMP, GIF and TIFF themselves",
    **dict.fromkeys(
        ("isvalidfile", "extensions"),
        "ListReader reads just the files that you name; others are skipped and counted",
    ),
    "download": "Highway downloads nothing",
    "year": "the folder of the year is the root, as in VOCReader('VOCdevkit/VOC2012', ...)",
    "validationsplit": "readers have split: ('train', 0.9) in one, ('validation', 0.9) in the other",
    **dict.fromkeys(
        ("device", "deviceid"),
        "readers and transforms work on the CPU; highway.torch.Loader(pipeline, device=...) copies batches to a device",
    ),
}


def meant(word: str, words: Collection[str]) -> str | None:
    """Return the one of `words` that is a synonym of `word`, or else the most similar; None if none is similar."""
    return synonym(word, words) or nearest(word, words)


def synonym(word: str, words: Collection[str]) -> str | None:
    """Return the one of `words` that is a synonym of `word`; None if none is."""
    plain = {_plain(other): other for other in words}
    return next((plain[name] for name in (_plain(word), *_synonyms(word)) if name in plain), None)


def elsewhere(word: str) -> str | None:
    """Return what to use instead of an argument that another library has; None if it is unknown."""
    return next((ELSEWHERE[name] for name in (_plain(word), *_synonyms(word)) if name in ELSEWHERE), None)


def _synonyms(word: str) -> list[str]:
    return [name for same in SAME if _plain(word) in same for name in same]


def nearest(word: str, words: Collection[str]) -> str | None:
    """Return the one of `words` that is most similar to `word`; None if none is similar."""
    # Late: needed only for errors.
    from difflib import get_close_matches

    plain = {_plain(other): other for other in words}
    found = get_close_matches(_plain(word), plain, n=1)
    return plain[found[0]] if found else None
