"""Options: keyword arguments that several classes have, stated once, as a TypedDict.

Each item of the TypedDict is ``name: Annotated[type, default]``; its docstring ends with the section "Parameters".
A class with these options ends the arguments of its `__init__` with ``**options: Unpack[Options]``, which is for type
checkers, and is decorated with ``@takes(Options)``, which is for `help`, `inspect.signature` and Sphinx.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

__all__ = ["completed", "documents", "split", "takes"]

_Class = TypeVar("_Class", bound=type)
_Options = TypeVar("_Options")


def completed(options: type[_Options], given: _Options) -> _Options:
    """Return all options: those given, and the defaults of the others. Call it first in `__init__`.

    Raises
    ------
    TypeError
        One of those given is not an option. `explained` turns this into a `SignatureError`.
    """
    values: Any = {name: default for name, (_, default) in _stated(cast(Any, options)).items()}
    count = len(values)
    values.update(given)
    if len(values) > count:
        raise TypeError(f"unexpected keyword arguments: {', '.join([*values][count:])}")
    return cast(_Options, values)


def split(options: type[_Options], given: Mapping[str, Any]) -> tuple[_Options, dict[str, Any]]:
    """Return all options, as `completed`, and the arguments that are not options."""
    names = _stated(cast(Any, options))
    stated: Any = {name: value for name, value in given.items() if name in names}
    return completed(options, stated), {name: value for name, value in given.items() if name not in names}


def takes(options: type, more: str | None = None) -> Callable[[_Class], _Class]:
    """Decorate a class that takes options: its signature and its docstring then have each of them.

    In the docstring, their documentation replaces the entry whose text is "See `Options`." An argument of the class
    itself takes the place of an option with the same name.

    Parameters
    ----------
    options : type
    more : str, optional
        Name of the arguments with other names, which the class takes as well.
    """

    def decorate(cls: _Class) -> _Class:
        init: Any = vars(cls)["__init__"]
        signature = inspect.signature(init)
        *own, packed = signature.parameters.values()
        stated = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=kind,
            )
            for name, (kind, default) in _stated(options).items()
            if name not in signature.parameters
        ]
        if more is not None:
            stated.append(inspect.Parameter(more, inspect.Parameter.VAR_KEYWORD, annotation=Any))
        init.__annotations__ = {
            **{name: kind for name, kind in init.__annotations__.items() if name != packed.name},
            **{one.name: one.annotation for one in stated},
        }
        init.__kwdefaults__ = {
            one.name: one.default for one in (*own, *stated) if one.kind is one.KEYWORD_ONLY
        }
        # `explained` inspects the function inside its decorators.
        init.__signature__ = inspect.unwrap(init).__signature__ = signature.replace(
            parameters=[*own, *stated]
        )
        return documents(options, {one.name for one in own})(cls)

    return decorate


def documents(options: type, without: Iterable[str] = ()) -> Callable[[_Class], _Class]:
    """Decorate a class: its docstring then documents each option, in place of the entry "See `Options`.".

    Options with the names `without` are documented by the class itself.
    """

    def decorate(cls: _Class) -> _Class:
        # Python -OO has no docstrings.
        if cls.__doc__ and options.__doc__:
            entry = re.compile(rf"^( *)[a-z][^\n]*\n\1 +See `{options.__name__}`\.\n", re.MULTILINE)
            documentation = inspect.cleandoc(options.__doc__).partition("Parameters\n----------\n")[2] + "\n"
            for name in without:
                documentation = re.sub(rf"^{name} :.*\n(?: .*\n)+", "", documentation, flags=re.MULTILINE)
            cls.__doc__ = entry.sub(lambda found: textwrap.indent(documentation, found[1]), cls.__doc__, 1)
        return cls

    return decorate


@functools.cache
def _stated(options: Any) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option."""
    stated = {}
    for name, hint in get_type_hints(options, include_extras=True).items():
        assert get_origin(hint) is Annotated, f"{options.__name__}: {name} has no default"
        kind, default = get_args(hint)
        stated[name] = kind, default
    return stated
