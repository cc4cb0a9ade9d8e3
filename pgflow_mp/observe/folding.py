"""Which errors are alike: the lines of their texts with all that varies from item to item folded.

Numbers, addresses, ids, times, paths, URLs and quoted texts become ``*``; lists of these one ``*``. What
names the code rather than an item stays: types, attributes, arguments, codecs, signals, errno, status codes.
"""

from __future__ import annotations

import re
from typing import Final, Literal

FailureKind = Literal["error", "timed out", "crashed"]
"""How an item failed: by what its handler raised, at its time limit, or with its process."""

LONGEST: Final = 400
"""Characters of a line that are looked at."""
ANYTHING: Final = "*"

# Words, and quoted texts, of which the end may have been cut off; no apostrophe in a word is a quote.
_PIECES: Final = re.compile(
    r"""(?P<word>[^\s'"`\u201c\u2018\xab]+)"""
    r"""|(?:(?<!\w)|(?<=\W[bBrRuU]))(?:'(?:[^'\\]|\\.)*+'(?!\w)|"(?:[^"\\]|\\.)*+"(?!\w)"""
    r"""|'[^'\s][^']{20,}+$|"[^"\s][^"]{20,}+$)"""
    r"""|`[^`]*+`|\u201c[^\u201d]*+\u201d|\u2018[^\u2019]*+\u2019|\xab[^\xbb]*+\xbb"""
)
_VARIES: Final = re.compile(r"[0-9/\\@.]").search
_HEX: Final = "[0-9a-fA-F]"
_FILES: Final = (
    "gz|bz2|xz|zst|zip|tar|csv|tsv|jsonl?|ndjson|txt|log|xml|html?|ya?ml|toml|ini|parquet|arrow|feather|avro|orc|"
    "xlsx?|docx?|pptx?|pdf|png|jpe?g|gif|webp|tiff?|bmp|svg|mp[34]|wav|flac|ogg|avi|mov|mkv|npy|npz|pkl|h5|db|"
    "sqlite|dat|bin|py|sql|md"
)
_PARTS: Final = re.compile(
    r"(?P<kept>\b(?:utf-?(?:8|16|32)|u?int(?:8|16|32|64)|float(?:16|32|64)|latin-?1|cp\d{3,4}|sha\d{1,3}|md5|base64"
    r"|x86_64|ipv[46])\b)"
    r"|[A-Za-z][\w+.-]*://[^<>)\]}]*"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w/\\])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^:;,()\[\]{}<>|]*[^:;,()\[\]{}<>|.]"
    r"|(?<![\w.-])[\w.-]+/(?:(?=[\w./@%+=-]*[\d.])|[\w@%+=-]+/)[\w./@%+=-]*\w"
    rf"|(?<![\w.-])[\w.-]*\w\.(?:{_FILES})\b"
    rf"|\b{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}\b|\b0x{_HEX}+\b"
    rf"|\b(?=[a-f]*\d)(?=\d*[a-f])(?:{_HEX}{{2}}){{4,}}\b"
    r"|[-+]?\d(?:[\d_.,:TZ+-]*[\dZ])?(?:e[-+]?\d+)?%?",
    re.IGNORECASE,
)
_CODE_FOLLOWS: Final = (
    "has no attribute ", "keyword argument ", "argument: ", "module named ", "import name ", "variable "
)  # fmt: skip
_CODE_BEFORE: Final = (" object", " is not defined")
"""What Python says around names of the code."""
_CODE: Final = re.compile(r"[A-Za-z_][\w.]*")
_TYPES: Final = frozenset(
    (
        "int",
        "float",
        "complex",
        "str",
        "bytes",
        "bytearray",
        "bool",
        "list",
        "tuple",
        "dict",
        "set",
        "NoneType",
    )
)
_CODES: Final = (
    "Errno ", "WinError ", "exit code ", "signal ", "HTTP ", "HTTP Error ", "tatus ", "tatus code "
)  # fmt: skip
"""Words before a number that says what happened."""
_VALUE: Final = r"(?:b?'\*'|\*|\[\*\]|\(\*\)|\{\*\}|None|True|False|null|true|false|nan|NaN)"
_PAIR: Final = re.compile(rf"(?:(?<=\{{)|(?<=, ))b?(?:'\*'|\*): {_VALUE}")
_SEVERAL: Final = re.compile(rf"{_VALUE}(?:(?: ?[,;=/x|-] ?| ){_VALUE})+")
_BRACKETS: Final = re.compile(rf"([\[({{]){_VALUE},?([\])}}])")
_ROUNDS: Final = 4

_OURS: Final = re.compile(
    r"(?:quarantined\b|(?:Crashed|(?P<limit>TimeoutError)|MemoryError): "
    r"(?:step \".*?\" task \d+|its process|used |exceeded its timeout of )).*(?:process|quarantined|worker)"
)
_TYPE: Final = re.compile(r"([A-Za-z_][\w.]*): ")


def fold(line: str) -> str:
    """The pattern of an error's line: what all errors have in common that differ only in their values."""
    line = line[:LONGEST]
    named = _TYPE.match(line)
    start = named.end() if named else 0
    text = line[:start] + _PIECES.sub(_folded, line[start:])
    if text.count("*") < 2 and "[" not in text and "(" not in text:
        return text
    for _ in range(_ROUNDS):
        shorter = _PAIR.sub(ANYTHING, text) if "{" in text else text
        shorter = _BRACKETS.sub(r"\1*\2", _SEVERAL.sub(ANYTHING, shorter))
        if shorter == text:
            break
        text = shorter
    return text


def _folded(match: re.Match[str]) -> str:
    found: str | None = match["word"]
    if found is None:
        return _quoted(match)
    if not _VARIES(found):
        return found
    if found[0].isdigit() and match.string[: match.start()].endswith(_CODES):
        return found
    return ANYTHING if found.isdigit() else _PARTS.sub(_part, found)


def _quoted(match: re.Match[str]) -> str:
    found, line = match[0], match.string
    inside = found[1:-1]
    if inside in _TYPES or line.startswith(" codec", match.end()):
        return found
    if found[0] == "`" and inside.startswith("$"):  # where in a value
        return _PARTS.sub(_part, found)
    if _CODE.fullmatch(inside) and (
        line.startswith(_CODE_BEFORE, match.end()) or line[: match.start()].endswith(_CODE_FOLLOWS)
    ):
        return found
    return "'*'"


def _part(match: re.Match[str]) -> str:
    return match[0] if match["kept"] is not None else ANYTHING


def kind_of(line: str) -> FailureKind:
    """How an item failed by its error's line, which is ours where it was not the handler that raised it."""
    found = _OURS.match(line)
    if found is None:
        return "error"
    return "timed out" if found["limit"] else "crashed"


def coarse(line: str) -> str:
    """The same for errors of which there are too many patterns: the type alone."""
    found = _TYPE.match(line)
    return f"{found[1]}: {ANYTHING}" if found else ANYTHING
