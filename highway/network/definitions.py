"""Definitions: what a machine does to make a batch, which all machines of a kind must have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from highway._core.installation import version
from highway.engine import Module, Source, Stage
from highway.sampling.digests import digest

__all__ = ["Definition", "definition_of"]

# Arguments that change the speed only: each machine has its own.
_OF_THE_MACHINE = ("workers", "queue_size")
# Most characters of the text.
MOST_TEXT = 1000

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Definition(NamedTuple):
    """What a machine does to make a batch.

    Attributes
    ----------
    digest : str
        16 hexadecimal digits, of the data, the modules with their arguments, and the version of Highway.
    text : str
        The modules, for people.
    """

    digest: str
    text: str


def definition_of(source: Source, stages: Sequence[Stage]) -> Definition:
    """Return the definition of a source that has entered its run, and of the stages after it.

    A source that passes on the batches of other machines has none of its own.
    """
    texts = [version()]
    if not source.follows_delivery:
        texts += [source.name, source.samples_fingerprint()]
    for stage in stages:
        texts.append(_ADDRESS.sub("", repr((stage.name, _arguments(stage)))))
        reader = getattr(stage, "reader", None)
        if isinstance(reader, Source):
            texts.append(reader.samples_fingerprint())
    parts = [text.encode("utf-8", "surrogateescape") for text in texts]
    modules: list[Module] = [*([] if source.follows_delivery else [source]), *stages]
    return Definition(digest(*parts)[:16], f"[{', '.join(map(repr, modules))}]"[:MOST_TEXT])


def _arguments(stage: Stage) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arguments, keywords = stage._specification()
    return arguments, {name: value for name, value in keywords.items() if name not in _OF_THE_MACHINE}
