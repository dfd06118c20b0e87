"""Makes untrusted text, such as names of files and classes, safe for one line of a terminal or log."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str | bytes, most: int | None = None) -> str:
    r"""Return text or a file name on one line, with everything escaped that a terminal would not print.

    Parameters
    ----------
    text : str or bytes
        Bytes are taken as UTF-8.
    most : int, optional
        Most bytes of the result, 3 or more; a truncated text ends in "...".

    Returns
    -------
    str
        Unprintable characters are escaped, and backslashes are doubled.

    Examples
    --------
    >>> print(printable(b"all well\r\n\x1b[2Jroot: \xff"))
    all well\r\n\x1b[2Jroot: \xff
    """
    # A character has at least one byte, so later characters are always cut off.
    beginning = text if most is None else text[: most + 1]
    if isinstance(beginning, bytes):
        beginning = beginning.decode("utf-8", "surrogateescape")
    if most is None and beginning.isprintable() and "\\" not in beginning:
        return beginning
    parts = [_escaped(character) for character in beginning]
    if most is not None and sum(len(part.encode()) for part in parts) > most:
        room = most - 3
        for number, part in enumerate(parts):
            room -= len(part.encode())
            if room < 0:
                return "".join(parts[:number]) + "..."
    return "".join(parts)


def _escaped(character: str) -> str:
    if character != "\\" and character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        # A byte that is not UTF-8, in the form of surrogateescape.
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
