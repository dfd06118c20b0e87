"""Text of an XML file, in any encoding that Python knows: the parser itself knows few."""

from __future__ import annotations

import codecs
import re

from highway.errors import DecodeError

__all__ = ["xml_text"]

# A byte order mark says more than the declaration. That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# How files without a mark begin: XML 1.0, appendix F. The last is EBCDIC, whose variants agree on the declaration.
_STARTS = (
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
    (b"\x4c\x6f\xa7\x94", "cp037"),
)
_DECLARED = re.compile(r"\s*<\?xml\s[^>]*?\bencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_DECLARATION_BYTES = 400
# What files in these encodings often are instead: a superset, which reads everything that the encoding has.
_SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_jp": "euc_jis_2004",
    "euc_kr": "cp949",
    "big5": "cp950",
    "ascii": "utf-8",
}
# Codecs that are no encodings of files.
_NO_ENCODINGS = frozenset(("idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"))
_WIDE = ("utf-16", "utf-32")


def xml_text(contents: bytes) -> str:
    """Text of an XML file, without byte order mark.

    The encoding is that of the byte order mark, or else the declared one, or else UTF-8.

    Raises
    ------
    DecodeError
        Text that follows the name of the file: the encoding is unknown, or the file is not in it.
    """
    encoding = _encoding(contents)
    for name in (encoding, _SUPERSETS.get(encoding)):
        if name is None:
            continue
        try:
            return contents.decode(name).removeprefix("\ufeff")
        except (UnicodeError, ValueError) as error:
            reason = error
    raise DecodeError(f"is no XML in the encoding that it declares: {reason}")


def _encoding(contents: bytes) -> str:
    marked = next((name for mark, name in _MARKS if contents.startswith(mark)), None)
    if marked is not None:
        return marked
    family = next((name for start, name in _STARTS if contents.startswith(start)), None)
    if family is not None and family != "cp037":
        return family
    begin = contents[:_DECLARATION_BYTES].decode(family or "latin-1")
    found = _DECLARED.match(begin)
    if found is None:
        return family or "utf-8"
    try:
        name = codecs.lookup(found[1]).name.replace("-", "_")
        "".encode(name)
    except (LookupError, UnicodeError):
        name = ""
    if not name or name in _NO_ENCODINGS:
        raise DecodeError(
            f"is no XML in the encoding that it declares, {found[1]!r}: no such encoding is known; expected one that "
            "Python has, such as 'utf-8'"
        )
    # Whoever could read the declaration as bytes has no UTF-16: programs write the name without doing so.
    return "utf-8" if name.replace("_", "-").startswith(_WIDE) else name
