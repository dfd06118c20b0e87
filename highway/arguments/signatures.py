"""Errors for calls with wrong arguments: they name the class and the most similar argument."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from highway.arguments.synonyms import elsewhere, nearest, synonym
from highway.errors import SignatureError

__all__ = [
    "bound",
    "check_options",
    "explain_init",
    "explain_new",
    "explained",
    "given",
    "has_own_state",
    "refuse_unknown",
    "remade",
    "same",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Tuple = TypeVar("_Tuple", bound=tuple[Any, ...])


def explained(name: str | None = None) -> Callable[[_Function], _Function]:
    """Decorate a function: a call that does not fit its signature raises `SignatureError`.

    A valid call is only passed through: the signature is inspected after a TypeError.

    Parameters
    ----------
    name : str, optional
        Name of the function in the error; by default it is a method, and the error names the class of its object.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            try:
                return function(*arguments, **keywords)
            except TypeError:
                wrong = _misfit(function, name, arguments, keywords)
                if wrong is None:
                    raise
            raise SignatureError(wrong)

        # `wraps` does not copy these, and tools read them.
        call.__kwdefaults__ = getattr(function, "__kwdefaults__", None)  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def explain_init(cls: type) -> None:
    """Decorate the `__init__` that a class defines: it records its arguments for `given`.

    Errors name the class of the object, which may be derived.
    """
    init = vars(cls).get("__init__")
    if inspect.isfunction(init):
        type.__setattr__(cls, "__init__", explained()(_recording(init)))


def _recording(init: _Function) -> _Function:
    """Decorate an `__init__`: the outermost call records its arguments in the object."""

    @functools.wraps(init)
    def call(*arguments: Any, **keywords: Any) -> None:
        attributes = vars(arguments[0]) if arguments else {}
        if _GIVEN not in attributes:
            attributes[_GIVEN] = (
                tuple(map(_kept, arguments[1:])),
                {name: _kept(value) for name, value in keywords.items()},
            )
        init(*arguments, **keywords)

    call.__kwdefaults__ = getattr(init, "__kwdefaults__", None)  # type: ignore[attr-defined]
    call.records = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


_GIVEN = "_given_arguments"


def _kept(value: Any) -> Any:
    """Copy a list or dict, which the caller may change later."""
    return value.copy() if type(value) in (list, dict) else value


def given(made: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that an object was made with: by position, and by name.

    A dataclass gets its `__init__` too late to record them: they are its fields.
    """
    if is_dataclass(made) and not hasattr(type(made).__init__, "records"):
        return (), {field.name: getattr(made, field.name) for field in fields(made) if field.init}
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = vars(made).get(_GIVEN, ((), {}))
    return arguments


def bound(made: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `given` in one form: those that have a name by name, with the defaults of the others."""
    arguments, keywords = given(made)
    try:
        signature = inspect.signature(type(made))
        found = signature.bind(*arguments, **keywords)
    except (TypeError, ValueError):
        return arguments, {**keywords}
    found.apply_defaults()
    kinds = inspect.Parameter
    places: list[Any] = []
    names: dict[str, Any] = {}
    for name, value in found.arguments.items():
        kind = signature.parameters[name].kind
        if kind is kinds.VAR_KEYWORD:
            names.update(value)
        elif kind is kinds.KEYWORD_ONLY or (kind is kinds.POSITIONAL_OR_KEYWORD and not _has_rest(signature)):
            names[name] = value
        elif kind is kinds.VAR_POSITIONAL:
            places.extend(value)
        else:
            places.append(value)
    return tuple(places), names


def _has_rest(signature: inspect.Signature) -> bool:
    """Whether there is an argument such as ``*rest``: those before it go by position."""
    return any(one.kind is one.VAR_POSITIONAL for one in signature.parameters.values())


def has_own_state(cls: type) -> bool:
    """Whether a class defines how its objects are pickled."""
    plain = getattr(object, "__getstate__", None)
    return getattr(cls, "__getstate__", plain) is not plain


def remade(cls: type, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Make an object of the class with these arguments."""
    return cls(*arguments, **keywords)


def same(one: Any, other: Any) -> bool:
    """Whether two arguments are equal; arrays are, if their dtypes and values are."""
    if one is other:
        return True
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    equal = one == other
    # Such as a table: whose comparison is a table.
    return equal if isinstance(equal, bool) else bool(np.all(equal))


def explain_new(cls: type[_Tuple]) -> type[_Tuple]:
    """Decorate the `__new__` of a NamedTuple as `explain_init` does `__init__`."""
    type.__setattr__(cls, "__new__", staticmethod(explained()(cls.__new__)))
    return cls


def refuse_unknown(owner: object, unknown: Sequence[str], missing: Sequence[str] = ()) -> None:
    """Raise SignatureError for arguments that an `__init__` takes by any name, but that cannot be meant.

    Parameters
    ----------
    owner : object
        It has recorded its arguments; see `explain_init`.
    unknown, missing : sequence of str
        Those, and required arguments that were not given.
    """
    parameters = list(inspect.signature(type(owner)).parameters.values())
    named = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
    arguments, keywords = given(owner)
    free = [word for word in named[len(arguments) :] if word not in keywords]
    wrong = [_unknown(word, free, named) for word in unknown]
    # A misspelled argument is missing too: report it once.
    if not wrong:
        wrong = [f"{word!r} is missing" for word in missing]
    plain = inspect.Signature([one.replace(annotation=one.empty) for one in parameters])
    raise SignatureError(f"{type(owner).__name__}: {'; '.join(wrong)}; the arguments are {plain}")


def _unknown(word: str, free: Sequence[str], named: Sequence[str]) -> str:
    """Return what is wrong with an unknown argument: `free` are those not given, of all those `named`."""
    other, taken = synonym(word, free), synonym(word, named)
    if not other and taken:
        way = f"{taken!r} is given already"
    elif not other and (advice := elsewhere(word)):
        way = advice
    else:
        other = other or nearest(word, free)
        way = f"did you mean {other!r}?" if other else ""
        if other == "workers" and "processes" in free:
            way = "did you mean 'workers', which are threads, or 'processes'?"
    return f"unknown argument {word!r}" + (f": {way}" if way else "")


def check_options(
    name: str, function: Callable[..., Any], cls: type, options: Mapping[str, Any], own: Collection[str]
) -> None:
    """Check what a function passes on to a class as ``**options``, before it does anything else.

    Parameters
    ----------
    name : str
        Name of the function in the error.
    function : callable
    cls : type
        Its arguments by name, except those of the function and `own`, are allowed.
    options : mapping
    own : collection of str
        Arguments of the class that the function makes itself.

    Raises
    ------
    SignatureError
        One is not allowed; the error lists the arguments of the function with those that are.
    """
    signature = inspect.signature(function)
    stated = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    further = [
        one
        for one in inspect.signature(cls).parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.name not in {*own, *(each.name for each in stated)}
    ]
    if {one.name for one in further}.issuperset(options):
        return

    def whole() -> None:
        return None

    whole.__signature__ = signature.replace(parameters=[*stated, *further])  # type: ignore[attr-defined]
    places = [one for one in stated if one.default is one.empty]
    raise SignatureError(_misfit(whole, name, places, options) or name)


def _misfit(
    function: Callable[..., Any], name: str | None, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> str | None:
    """Return a description of the mistake in a call; None if the arguments fit the signature."""
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:
        pass
    else:
        # Python 3.13.0 binds a positional-only argument that is given by its name to `**more`.
        needed = [one for one in signature.parameters.values() if one.default is one.empty]
        if len(arguments) >= sum(one.kind is one.POSITIONAL_ONLY for one in needed):
            return None
    parameters = list(signature.parameters.values())
    if name is None:
        if not arguments:
            # Called without an object.
            return None
        owner = arguments[0] if isinstance(arguments[0], type) else type(arguments[0])
        name, arguments, parameters = owner.__name__, arguments[1:], parameters[1:]
    kinds = inspect.Parameter
    nameless = [one.name for one in parameters if one.kind is kinds.POSITIONAL_ONLY]
    places = nameless + [one.name for one in parameters if one.kind is kinds.POSITIONAL_OR_KEYWORD]
    named = [one.name for one in parameters if one.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    by_place = places[: len(arguments)]
    free = [word for word in named if word not in by_place and word not in keywords]
    wrong = []
    unknown, misnamed = [], []
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        misnamed = [word for word in keywords if word in nameless]
        unknown = [word for word in keywords if word not in named and word not in nameless]
    wrong += [f"{word!r} is positional-only, but was passed by name" for word in misnamed]
    wrong += [_unknown(word, free, named) for word in unknown]
    wrong += [
        f"{word!r} is passed twice, by position and by name"
        for word in keywords
        if word in by_place and word in named
    ]
    if len(arguments) > len(places) and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        most = f"at most {len(places)}" if places else "none"
        if len(places) == 1 and str(parameters[0].annotation).startswith("Sequence["):
            most, instead = "one list", f": {name}([...])"
        else:
            instead = f", and the others by name, such as {free[0]}=" if free else ""
        wrong.append(f"{len(arguments)} positional arguments; expected {most}{instead}")
    required = [one.name for one in parameters if one.default is one.empty and one.name in {*places, *named}]
    given = {*by_place, *misnamed, *(word for word in keywords if word in named)}
    missing = [repr(word) for word in required if word not in given]
    # A misspelled argument is missing too: report it once.
    if missing and not unknown:
        wrong.append(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    plain = inspect.Signature([one.replace(annotation=one.empty) for one in parameters])
    return f"{name}: {'; '.join(wrong)}; the arguments are {plain}"
