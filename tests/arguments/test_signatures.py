"""Calls with arguments that there are not: errors name the public class, the nearest argument, and all there are."""

import copy
import inspect
import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import pytest

import highway
from highway import Batch, Pipeline, Sink, Source, Stage, modules, transforms
from highway.arguments.synonyms import ELSEWHERE, SAME, nearest
from highway.errors import ArgumentError, HighwayError, SignatureError
from highway.modules import (
    ArrayReader,
    Augmentations,
    DatasetReader,
    Filter,
    ImageFileReader,
    ListReader,
    Mix,
    PadRagged,
    TableReader,
    VOCReader,
    ZMQSink,
)
from highway.transforms import CenterCrop, ColorJitter, FlipX, Normalize, Rotate, Sharpness, Transform

PUBLIC = [
    *(getattr(modules, name) for name in modules.__all__),
    *(getattr(transforms, name) for name in transforms.__all__ if name != "Transform"),
    Pipeline,
    Batch,
]


def test_error_is_what_readers_of_python_expect():
    assert issubclass(SignatureError, (TypeError,)) and issubclass(SignatureError, ArgumentError)
    assert issubclass(SignatureError, HighwayError)


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_misspelt_argument_names_the_class_the_nearest_and_all(cls):
    names = list(inspect.signature(cls).parameters)
    longest = max(names, key=len)
    # The required ones are given or not: the misspelt one is what counts.
    with pytest.raises(SignatureError) as caught:
        cls(**{longest + "x": 1})
    text = str(caught.value)
    assert text.startswith(f"{cls.__name__}: unknown argument '{longest}x': did you mean '{longest}'?; ")
    for name in names:
        assert name in text.partition("the arguments are (")[2]
    assert "missing" not in text and "__init__" not in text and "self" not in text
    assert caught.value.__context__ is None


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_too_many_places_and_missing_arguments_name_the_class(cls):
    parameters = inspect.signature(cls).parameters.values()
    with pytest.raises(SignatureError, match=rf"^{cls.__name__}: 50 positional arguments; expected"):
        cls(*range(50))
    required = [
        one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    ]
    if required:
        with pytest.raises(SignatureError) as caught:
            cls()
        named = " and ".join(map(repr, required))
        assert str(caught.value).startswith(
            f"{cls.__name__}: {named} {'is' if len(required) == 1 else 'are'} missing;"
        )


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: ImageFileReader("x", 1, 2, num_workers=3), "'num_workers': did you mean 'workers'?"),
        (lambda: ImageFileReader("x", 1, image_size=3), "'image_size': did you mean 'shape'?"),
        (lambda: ImageFileReader("x", 1, 2, rank=3), "'rank': did you mean 'shard'?"),
        (lambda: ImageFileReader("x", batchsize=1), "'batchsize': did you mean 'batch_size'?"),
        (lambda: ImageFileReader("x", BatchSize=1), "'BatchSize': did you mean 'batch_size'?"),
        (lambda: ImageFileReader(root="x"), "'root': did you mean 'data_dir'?"),
        (
            lambda: ImageFileReader("x", 1, 2, transform=3),
            "'transform': transforms go into Augmentations([...]),",
        ),
        (lambda: Augmentations(transform=[]), "'transform': did you mean 'transforms'?"),
        (lambda: Augmentations(FlipX(), FlipX()), "expected one list: Augmentations([...]); the"),
        (
            lambda: Pipeline(1, 2, 3),
            "Pipeline: 3 positional arguments; expected one list: Pipeline([...])",
        ),
        (lambda: ZMQSink("x", 1, 2, 3), "4 positional arguments; expected at most"),
        (lambda: VOCReader("x", 1, 2, image_set="val"), "'image_set': did you mean 'split'?"),
        (lambda: ImageFileReader("x", 1, 2, class_names=3), "'class_names': did you mean 'classes'?"),
        (lambda: Augmentations([], determinstic=True), "did you mean 'deterministic'?"),
        (
            lambda: FlipX(prob=1),
            "FlipX: unknown argument 'prob': did you mean 'p'?; the arguments are (p=0.5)",
        ),
        (lambda: FlipX(zzz=1), "FlipX: unknown argument 'zzz'; the arguments are (p=0.5)"),
        (lambda: FlipX(0.5, p=1), "FlipX: 'p' is passed twice, by position and by name"),
        (lambda: Batch({}).sheet(colums=3), "sheet: unknown argument 'colums': did you mean 'columns'?"),
        (lambda: ImageFileReader("x", batch=1), "'batch': did you mean 'batch_size'?"),
        (lambda: ImageFileReader("x", 1, target_size=3), "'target_size': did you mean 'shape'?"),
        (lambda: ImageFileReader("x", 1, 2, color_mode="gray"), "'color_mode': did you mean 'color'?"),
        (lambda: ImageFileReader("x", 1, 2, label_mode="int"), "'label_mode': did you mean 'labels'?"),
        (lambda: ImageFileReader("x", 1, 2, generator=1), "'generator': did you mean 'seed'?"),
        (
            lambda: ImageFileReader("x", 1, 2, prefetch_factor=1),
            "'prefetch_factor': did you mean 'queue_size'?",
        ),
        (lambda: ImageFileReader("x", 1, 2, handler=1), "'handler': did you mean 'on_error'?"),
        (
            lambda: ArrayReader(x=1, y=2),
            "'x': did you mean 'images'?; unknown argument 'y': did you mean 'labels'?",
        ),
        (lambda: DatasetReader([], 1, collate_fn=list), "'collate_fn': did you mean 'collate'?"),
        (
            lambda: DatasetReader([], 1, num_workers=2),
            "did you mean 'workers', which are threads, or 'processes'?",
        ),
        (lambda: TableReader("x", 1, 2, columns=["a"]), "'columns': did you mean 'fields'?"),
        (lambda: ListReader.from_csv("x", 1, 2, sep=";"), "'sep': did you mean 'delimiter'?"),
        (
            lambda: ListReader.from_csv("x", 1, 2, pairs={}),
            "'pairs': columns of several pictures are image=(",
        ),
        (lambda: Mix([], probabilities=(3, 1)), "'probabilities': did you mean 'weights'?"),
        (lambda: PadRagged("x", max_length=3), "'max_length': did you mean 'to'?"),
        (lambda: PadRagged("x", padding_value=3), "'padding_value': did you mean 'value'?"),
        (
            lambda: Filter(len, batched=True),
            "'batched': per_sample says whether the function is called for each",
        ),
        (lambda: Pipeline(dataset=[]), "'dataset': did you mean 'modules'?"),
        (lambda: Pipeline([], in_order=True), "'in_order': did you mean 'ordered'?"),
        (lambda: CenterCrop(height=2, width=2), "'height': did you mean 'size'?"),
        (lambda: Rotate(limit=2), "'limit': did you mean 'degrees'?"),
        (lambda: Rotate(2, value=2), "'value': did you mean 'fill'?"),
        (lambda: ColorJitter(brightness_limit=0.2), "'brightness_limit': did you mean 'brightness'?"),
        (lambda: Sharpness(sharpness_factor=2), "'sharpness_factor': did you mean 'factor'?"),
        (lambda: Normalize(data_format="NHWC"), "'data_format': did you mean 'layout'?"),
        # An argument of another module, or of none.
        (
            lambda: Pipeline([], num_workers=4),
            "'num_workers': workers is an argument of readers, Augmentations",
        ),
        (lambda: Pipeline([], batch_size=4), "'batch_size': batch_size is an argument of the reader,"),
        (lambda: Pipeline([], shuffle=True), "'shuffle': shuffle is an argument of the reader,"),
        (lambda: FlipX(seed=1), "'seed': seed is an argument of the reader and of Augmentations([...])"),
        (
            lambda: ArrayReader(1, 2, 3, image_size=4),
            "'image_size': shape is an argument of readers of pictures,",
        ),
        (
            lambda: ImageFileReader("x", 1, 2, brightness=0.2),
            "'brightness': ColorJitter(brightness, contrast,",
        ),
        (
            lambda: ImageFileReader("x", 1, 2, target_transform=0),
            "'target_transform': labels are arrays of a batch;",
        ),
        (
            lambda: ImageFileReader("x", 1, 2, collate_fn=0),
            "'collate_fn': no counterpart is needed: readers make",
        ),
        (lambda: Pipeline([], pin_memory=True), "'pin_memory': highway.torch.Loader(pipeline, device="),
        (
            lambda: Pipeline([], sampler=0),
            "'sampler': readers have shuffle, seed, shard, subset, weights and repeats;",
        ),
        (lambda: Pipeline([], persistent_workers=True), "'persistent_workers': no counterpart is needed"),
        (lambda: Pipeline([], transform=0), "'transform': transforms go into Augmentations([...]),"),
        (lambda: Rotate(2, expand=True), "'expand': images turn about their center"),
        # Before what is only similar.
        (
            lambda: ImageFileReader("x", 1, 2, shuffle_buffer=99),
            "'shuffle_buffer': shuffle=True shuffles all",
        ),
        (lambda: ImageFileReader("x", 1, 2, BatchSize=3), "'BatchSize': 'batch_size' is given already"),
        # What is given already is not meant.
        (lambda: ImageFileReader("x", 1, 2, shuffle=1, shufle=2), "unknown argument 'shufle'; "),
    ],
)
def test_what_somebody_meant(call, text):
    with pytest.raises(SignatureError) as caught:
        call()
    assert text in str(caught.value)


def test_arguments_that_are_elsewhere_are_spelled_as_they_are_compared():
    for name in ELSEWHERE:
        assert name == name.lower().replace("_", "").replace("-", "")
    for names in SAME:
        assert len({*names}) == len(names)
        assert all(name == name.lower().replace("_", "") for name in names)


def test_names_of_other_libraries_are_not_taken_for_an_argument_that_has_another_meaning():
    """Each group of synonyms names at most one argument of each class, but for sizes and folders."""
    found = set()
    for cls in PUBLIC:
        plain = [name.replace("_", "") for name in inspect.signature(cls).parameters]
        found |= {names[0] for names in SAME if sum(name in names for name in plain) > 1}
    assert found <= {"shape", "datadir"}


def test_nearest():
    assert nearest("--batchsize", ["--seed", "--batch-size"]) == "--batch-size"
    assert nearest("xyz", ["--seed"]) is None
    assert nearest("a", []) is None


# Classes of users


class Limited(Stage):
    def __init__(self, most, **arguments):
        super().__init__(**arguments)
        self.most = most


class Derived(FlipX):
    """Without an `__init__` of its own."""


class Placed(Stage):
    def __init__(self, first, /, *more, last):
        super().__init__()


class Open(Stage):
    def __init__(self, first, /, last, **more):
        super().__init__()
        self.more = more


class Raising(Stage):
    def __init__(self, value):
        raise TypeError(f"own: {value}")


class Mistaken(Source):
    def __init__(self):
        super().__init__(worker=1)


class Abstract(Sink, ABC):
    @abstractmethod
    def name_of(self): ...


@dataclass
class Darken(Transform):
    most: float = 0.5


class Foreign:
    def __init__(self, *, workers=None, queue_size=4, color=None):
        self.color = color


def test_classes_of_users_are_named_too():
    for call, text in [
        (lambda: Limited(1, worker=2), "Limited: unknown argument 'worker': did you mean 'workers'?"),
        (lambda: Limited(), "Limited: 'most' is missing; the arguments are (most, **arguments)"),
        (lambda: Derived(q=1), "Derived: unknown argument 'q'"),
        (
            lambda: Placed(),
            "Placed: 'first' and 'last' are missing; the arguments are (first, /, *more, last)",
        ),
        (lambda: Placed(1, 2, 3), "Placed: 'last' is missing"),
        (lambda: Placed(first=1, last=2), "Placed: 'first' is positional-only, but was passed by name"),
        (
            lambda: Open(first=1, last=2),
            "Open: 'first' is missing; the arguments are (first, /, last, **more)",
        ),
        (lambda: Mistaken(), "Mistaken: unknown argument 'worker': did you mean 'workers'?"),
    ]:
        with pytest.raises(SignatureError) as caught:
            call()
        assert str(caught.value).startswith(text)


def test_classes_of_users_work_as_before():
    assert Limited(3, workers=2).workers == 2
    assert Darken(most=0.25).most == 0.25 and repr(Darken(0.25)) == "Darken(most=0.25)"
    with pytest.raises(TypeError, match=r"^own: 3$") as caught:
        Raising(3)
    assert type(caught.value) is TypeError
    with pytest.raises(TypeError, match="abstract"):
        Abstract()
    assert Open(1, 2, first=3).more == {"first": 3}
    with pytest.raises(TypeError, match=r"missing 2 required positional arguments: .self. and .most."):
        Limited.__init__()
    assert inspect.signature(Limited.__init__).parameters["most"].default is inspect.Parameter.empty


def test_signatures_documents_and_pickles_stay(capsys):
    assert list(inspect.signature(ImageFileReader).parameters)[:3] == ["data_dir", "batch_size", "shape"]
    assert inspect.signature(Pipeline).parameters["ordered"].default is True
    assert Pipeline.__init__.__kwdefaults__["ordered"] is True
    assert FlipX.__init__.__name__ == "__init__"
    help(FlipX)
    assert "FlipX(p: 'float' = 0.5)" in capsys.readouterr().out
    assert repr(pickle.loads(pickle.dumps(FlipX(0.25)))) == "FlipX(p=0.25)"
    assert repr(pickle.loads(pickle.dumps(Derived(0.25)))) == "Derived(p=0.25)"


@dataclass(unsafe_hash=True)
class Every(Stage):
    """A dataclass, whose `__init__` is not written by anybody."""

    step: int = 2
    names: tuple = ()
    left: int = field(default=0, init=False)

    def __post_init__(self):
        super().__init__(workers=self.step)


def test_dataclasses_pickle_and_copy_as_their_fields():
    for made in (Darken(0.25), Every(3, names=("a",))):
        for same in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
            assert same == made and repr(same) == repr(made)
    assert pickle.loads(pickle.dumps(Every(3))).workers == 3
    assert Every(3) != Every(2)


def test_error_inside_of_a_call_that_fits_is_the_own():
    """Something of a wrong type, deep inside: no word about the signature."""
    with pytest.raises(TypeError) as caught:
        Batch({}, ragged=5)
    assert not isinstance(caught.value, SignatureError)
    with pytest.raises(TypeError) as caught:
        Batch({"images": np.zeros((1, 2, 2, 3), np.uint8)}, keys=5)
    assert not isinstance(caught.value, SignatureError)


def test_package_offers_what_is_tested():
    assert {highway.Pipeline, highway.Batch} < set(PUBLIC)
