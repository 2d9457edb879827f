"""Patients' names in the character sets of PS3.3 C.12.1.1.2, declared rightly, wrongly and not at all."""

from __future__ import annotations

from corpus.case import Case, graded
from corpus.photograph import Odd, make, written

_JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
_CHINESE = "Wang^XiaoDong=王^小东"
_KOREAN = "Hong^Gildong=洪^吉洞=홍^길동"
_GREEK = "Διονυσιος^Χαρης"


def _named(case: str, declared: bytes | None, name: bytes) -> list[bytes]:
    ds = make(case)
    del ds.SpecificCharacterSet
    odd: list[Odd] = [("PatientName", b"PN", name)]
    if declared is not None:
        odd.append(("SpecificCharacterSet", b"CS", declared))
    return [written(ds, *odd)]


def _escaped_japanese() -> bytes:
    """ISO 2022 IR 87, with the return to ASCII before each delimiter (PS3.5 H.3.1)."""

    def kanji(text: str) -> bytes:
        return text.encode("iso2022_jp")

    ideographic = kanji("山田") + b"^" + kanji("太郎")
    return b"Yamada^Tarou=" + ideographic + b"=" + kanji("やまだ") + b"^" + kanji("たろう")


def _escaped_korean() -> bytes:
    """ISO 2022 IR 149 (PS3.5 I.2): one escape sequence before each group that uses it."""
    escape = b"\x1b$)C"
    groups = ["洪^吉洞", "홍^길동"]
    parts = [b"^".join(escape + part.encode("euc_kr") for part in group.split("^")) for group in groups]
    return b"Hong^Gildong=" + b"=".join(parts)


CASES = (
    Case(
        "charset-latin-1",
        "ISO_IR 100 (Latin 1)",
        graded(),
        lambda c: _named(c, b"ISO_IR 100", "Bücklerström^Åsa".encode("latin_1")),
        secrets=("Bücklerström", "B\\xfccklerstr", "cklerstr"),
    ),
    Case(
        "charset-greek",
        "ISO_IR 126 (Greek)",
        graded(),
        lambda c: _named(c, b"ISO_IR 126", _GREEK.encode("iso8859_7")),
        secrets=("Διονυσιος",),
    ),
    Case(
        "charset-utf-8",
        "ISO_IR 192 (UTF-8), ideographic and phonetic groups",
        graded(),
        lambda c: _named(c, b"ISO_IR 192", _JAPANESE.encode()),
        secrets=("Yamada", "山田", "やまだ"),
    ),
    Case(
        "charset-gb18030",
        "GB18030",
        graded(),
        lambda c: _named(c, b"GB18030", _CHINESE.encode("gb18030")),
        secrets=("XiaoDong", "小东"),
    ),
    Case(
        "charset-gbk",
        "GBK",
        graded(),
        lambda c: _named(c, b"GBK", _CHINESE.encode("gbk")),
        secrets=("XiaoDong", "小东"),
    ),
    Case(
        "charset-iso-2022-japanese",
        "ISO 2022 IR 87 with escape sequences",
        graded(),
        lambda c: _named(c, b"\\ISO 2022 IR 87", _escaped_japanese()),
        secrets=("Yamada", "山田"),
    ),
    Case(
        "charset-iso-2022-korean",
        "ISO 2022 IR 149 with escape sequences",
        graded(),
        lambda c: _named(c, b"\\ISO 2022 IR 149", _escaped_korean()),
        secrets=("Gildong", "길동"),
    ),
    Case(
        "charset-escape-undeclared",
        "escape sequences that the declaration does not announce",
        graded(),
        lambda c: _named(c, b"ISO_IR 100", _escaped_japanese()),
        secrets=("Yamada", "山田"),
    ),
    Case(
        "charset-declared-utf-8",
        "Latin 1 declared as UTF-8",
        graded(),
        lambda c: _named(c, b"ISO_IR 192", "Bücklerström^Åsa".encode("latin_1")),
        secrets=("cklerstr",),
    ),
    Case(
        "charset-declared-latin-1",
        "UTF-8 declared as Latin 1",
        graded(),
        lambda c: _named(c, b"ISO_IR 100", "Bücklerström^Åsa".encode()),
        secrets=("cklerstr",),
    ),
    Case(
        "charset-undeclared",
        "letters beyond ASCII without a declaration",
        graded(),
        lambda c: _named(c, None, "Bücklerström^Åsa".encode("latin_1")),
        secrets=("cklerstr",),
    ),
    Case(
        "charset-unknown",
        "a character set that does not exist",
        graded(),
        lambda c: _named(c, b"ISO_IR 999", "Bücklerström^Åsa".encode("latin_1")),
        secrets=("cklerstr",),
    ),
)
