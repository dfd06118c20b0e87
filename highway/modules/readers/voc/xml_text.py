"""Decodes an XML file in any encoding that Python knows; the XML parser itself knows few."""

from __future__ import annotations

import codecs
import re

from highway.errors import DecodeError

__all__ = ["xml_text"]

# A byte order mark overrides the declaration. The mark of UTF-32 (LE) begins with that of UTF-16, so it is first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# First bytes of files without a mark: XML 1.0, appendix F. The last is EBCDIC; its variants agree on the declaration.
_STARTS = (
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
    (b"\x4c\x6f\xa7\x94", "cp037"),
)
_DECLARED = re.compile(r"\s*<\?xml\s[^>]*?\bencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_DECLARATION_BYTES = 400
# Supersets that files in these encodings often really use; a superset reads all of the encoding.
_SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_jp": "euc_jis_2004",
    "euc_kr": "cp949",
    "big5": "cp950",
    "ascii": "utf-8",
}
# Codecs that are not encodings of files.
_NO_ENCODINGS = frozenset(("idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"))
_WIDE = ("utf-16", "utf-32")


def xml_text(contents: bytes) -> str:
    """Decode an XML file; returns its text without byte order mark.

    The encoding is that of the byte order mark, otherwise the declared one, otherwise UTF-8.

    Raises
    ------
    DecodeError
        The encoding is unknown, or the file is not in it; the text continues the name of the file.
    """
    encoding = _encoding(contents)
    for name in (encoding, _SUPERSETS.get(encoding)):
        if name is None:
            continue
        try:
            return contents.decode(name).removeprefix("\ufeff")
        except (UnicodeError, ValueError) as error:
            reason = error
    raise DecodeError(f"is not XML in the encoding that it declares: {reason}")


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
            f"is not XML in the encoding that it declares, {found[1]!r}: no such encoding is known; expected one that "
            "Python has, such as 'utf-8'"
        )
    # The declaration was readable as single bytes, so the file is not UTF-16: some programs declare it wrongly.
    return "utf-8" if name.replace("_", "-").startswith(_WIDE) else name
