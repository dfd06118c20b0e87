"""Options that several classes have: signature, defaults and documentation are as if each class stated them."""

import inspect
import os
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypedDict

import pytest
from numpy.typing import ArrayLike

from highway import modules, transforms
from highway._core.pixels import resample
from highway.arguments.options import completed, documents, takes
from highway.engine import Stage
from highway.errors import ArgumentError, SignatureError
from highway.modules import (
    ImageFileReader,
    ImageSaver,
    LevelDBImageReader,
    ListReader,
    Noise,
    VOCReader,
    ZMQSource,
)
from highway.modules.readers.options import MAX_PIXELS, PREFETCH_BYTES, OnError, PictureFileOptions
from highway.transforms import Normalize, Resize, Rotate
from highway.transforms.warps import INTERPOLATIONS

SOURCE = {
    "shuffle": (bool, True),
    "seed": (int | None, 0),
    "epochs": (int | None, None),
    "shard": (object, "auto"),
    "drop_last": (bool, False),
    "subset": (ArrayLike | Callable[[Any, Any], object] | None, None),
    "split": (tuple[str, float | Mapping[str, float]] | None, None),
    "stratify": (bool, False),
    "split_seed": (int, 0),
    "weights": (Literal["balanced"] | ArrayLike | Callable[[int], ArrayLike] | None, None),
    "repeats": (int, 1),
    "max_samples": (int | None, None),
    "workers": (int | None, None),
    "queue_size": (int | None, None),
}
PICTURE = SOURCE | {
    "color": (Literal["rgb", "gray"], "rgb"),
    "dtype": (Literal["uint8", "uint16"], "uint8"),
    "on_error": (OnError, "raise"),
    "max_errors": (int | float | None, None),
    "exact": (bool, False),
    "max_pixels": (int, MAX_PIXELS),
    "sizes": (ArrayLike | None, None),
}
REMOTE = {
    "storage_options": (Mapping[str, Any] | None, None),
    "prefetch_bytes": (int, PREFETCH_BYTES),
    "cache": (str | os.PathLike[str] | None, None),
    "cache_bytes": (int | float | None, None),
}
FILE = PICTURE | REMOTE | {"exif": (bool, True)}
FITS = ("CenterFit", "Fit", "Letterbox", "RandomResizedCrop", "Resize", "Stretch")
WARPS = ("Affine", "Perspective", "RandAugment", "Rotate", "TrivialAugmentWide", "Warp", "Zoom")
READERS = {
    "ImageFileReader": FILE,
    # Its own `split` may also be the name of a list.
    "VOCReader": FILE | {"split": ("str | tuple[str, float | Mapping[str, float]] | None", "train")},
    "ListReader": FILE,
    "TableReader": FILE,
    "LevelDBImageReader": PICTURE,
    "ArrayReader": SOURCE,
    "LevelDBSource": SOURCE,
    "Noise": SOURCE,
}


@pytest.mark.parametrize("name", READERS)
def test_signature_of_a_reader_has_every_option(name):
    reader = getattr(modules, name)
    parameters = inspect.signature(reader).parameters
    options = {name: one for name, one in parameters.items() if name in READERS[reader.__name__]}
    assert {name: (one.annotation, one.default) for name, one in options.items()} == READERS[name]
    assert all(one.kind is one.KEYWORD_ONLY for one in options.values())
    any_name = [one.name for one in parameters.values() if one.kind is one.VAR_KEYWORD]
    assert any_name == (["arrays"] if name == "ArrayReader" else [])
    assert ("exif" in parameters) == ("exif" in READERS[name])
    assert list(inspect.signature(reader.__init__).parameters) == ["self", *parameters]
    assert {*typing.get_type_hints(reader.__init__)} == {*parameters, "return"}
    assert (
        reader.__init__.__kwdefaults__.items() >= {name: one.default for name, one in options.items()}.items()
    )


@pytest.mark.parametrize("name", READERS)
def test_docstring_of_a_reader_documents_each_argument_once(name):
    reader = getattr(modules, name)
    section = re.search(r"Parameters\n-{10}\n(.*?)\n\n", inspect.getdoc(reader), re.DOTALL)[1]
    documented = [
        argument
        for line in re.findall(r"^(?:\*\*)?([a-z][^\n:]*?)(?: :.*)?$", section, re.MULTILINE)
        for argument in line.split(", ")
    ]
    assert sorted(documented) == sorted(inspect.signature(reader).parameters)
    assert "Options`" not in reader.__doc__


CHOICES = [
    ("ImageFileReader", "labels", ("index", "one_hot")),
    ("ImageFileReader", "color", ("rgb", "gray")),
    ("ImageFileReader", "on_error", ("raise", "skip", "replace")),
    ("VOCReader", "other_classes", ("error", "drop")),
    ("LevelDBSource", "on_error", ("raise", "skip", "replace")),
    ("ImageSaver", "format", ("png", "jpeg", "jpg", "webp")),
    ("ZMQSource", "delivery", ("exactly-once", "at-most-once", "msgpack-numpy")),
    ("ZMQSource", "on_error", ("raise", "skip")),
    ("ZMQSink", "delivery", ("exactly-once", "at-most-once", "msgpack-numpy")),
    *((name, "interpolation", resample.FILTERS) for name in FITS),
    *((name, "interpolation", (*INTERPOLATIONS,)) for name in WARPS),
    *((name, "layout", ("NCHW", "NHWC")) for name in ("Normalize", "Rescale", "ToFloat")),
]


@pytest.mark.parametrize("name, argument, allowed", CHOICES)
def test_choices_are_literals_that_editors_complete(name, argument, allowed):
    cls = getattr(modules, name, None) or getattr(transforms, name)
    hint = typing.get_type_hints(cls.__init__)[argument]
    assert typing.get_origin(hint) is Literal
    assert {*typing.get_args(hint)} == {*allowed}
    assert inspect.signature(cls).parameters[argument].default in allowed


def test_other_choices_are_not_accepted_when_the_program_runs():
    for call in (
        lambda: ZMQSource("tcp://localhost:5", delivery="twice"),
        lambda: ZMQSource("tcp://localhost:5", on_error="replace"),
        lambda: ImageSaver("x", "gif"),
        lambda: Rotate(5, interpolation="bicubic"),
        lambda: Resize(5, interpolation="cubic"),
        lambda: Normalize(layout="NWHC"),
        lambda: Normalize(dtype="float64"),
        lambda: Noise(1, 2, on_error="skip"),
    ):
        with pytest.raises(ArgumentError):
            call()


def test_defaults_that_differ_stay():
    for reader in (ImageFileReader, VOCReader, ListReader, LevelDBImageReader):
        assert inspect.signature(reader).parameters["fit"].default is None
    assert inspect.signature(Noise).parameters["size"].default == 1024


def test_completed():
    given: PictureFileOptions = {"seed": 7, "exif": False}
    assert (
        completed(PictureFileOptions, given) == {name: default for name, (_, default) in FILE.items()} | given
    )
    assert given == {"seed": 7, "exif": False}
    with pytest.raises(TypeError, match=r"^unexpected keyword arguments: shufle, q$"):
        completed(PictureFileOptions, {"seed": 7, "shufle": True, "q": 1})


# Options of users


class Base(TypedDict, total=False):
    """Options of all.

    Parameters
    ----------
    gain : float
        Factor.

        More about it.
    """

    gain: Annotated[float, 1.0]


@documents(Base)
class More(Base, total=False):
    """Options of some.

    Parameters
    ----------
    gain
        See `Base`.
    names : tuple of str
        Names.
    """

    names: Annotated[tuple[str, ...], ()]


@takes(More)
class Amplify(Stage):
    """Amplifies.

    Parameters
    ----------
    first : int
    gain, names
        See `More`.

    Notes
    -----
    None.
    """

    def __init__(self, first, **options):
        self.options = completed(More, options)
        super().__init__()


class Louder(Amplify):
    def __init__(self, **more):
        super().__init__(1, gain=2.0, **more)


def test_options_of_users():
    assert str(inspect.signature(Amplify)) == "(first, *, gain: float = 1.0, names: tuple[str, ...] = ())"
    assert inspect.getdoc(Amplify).splitlines() == [
        *("Amplifies.", "", "Parameters", "----------", "first : int", "gain : float", "    Factor.", ""),
        *("    More about it.", "names : tuple of str", "    Names.", "", "Notes", "-----", "None."),
    ]
    assert Louder(names=("a",)).options == {"gain": 2.0, "names": ("a",)}
    assert Amplify(1).options == {"gain": 1.0, "names": ()}
    for call, text in [
        (
            lambda: Amplify(1, gian=2),
            "Amplify: unknown argument 'gian': did you mean 'gain'?; the arguments are",
        ),
        (lambda: Amplify(gain=2), "Amplify: 'first' is missing; the arguments are"),
        (
            lambda: Louder(naems=2),
            "Louder: unknown argument 'naems': did you mean 'names'?; the arguments are",
        ),
    ]:
        with pytest.raises(SignatureError) as caught:
            call()
        assert str(caught.value).startswith(text)


def test_class_without_docstring():
    @takes(More)
    class Silent(Stage):
        def __init__(self, **options):
            self.options = completed(More, options)

    assert Silent.__doc__ is None
    assert list(inspect.signature(Silent).parameters) == ["gain", "names"]


def test_an_argument_of_the_class_takes_the_place_of_an_option():
    class Options(TypedDict, total=False):
        """Options.

        Parameters
        ----------
        first : int
            One,
            on two lines.
        second : int
            Two.
        """

        first: Annotated[int, 1]
        second: Annotated[int, 2]

    @takes(Options)
    class Own:
        """Has its own.

        Parameters
        ----------
        first : str
            Own.
        first, second
            See `Options`.
        """

        def __init__(self, *, first: str = "", **options: Any) -> None: ...

    assert [*inspect.signature(Own).parameters] == ["first", "second"]
    assert inspect.signature(Own).parameters["first"].default == ""
    assert inspect.getdoc(Own).endswith("first : str\n    Own.\nsecond : int\n    Two.")
