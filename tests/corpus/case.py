"""One quirk of real senders as files, and what has to become of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

_NAMESPACE = UUID("6d1f3f5e-4c57-4a0b-9f0e-6f0a4f9f7a11")
_LETTERS = "bcdfghklmnprstvz"

NOT_OFFERED = -1
"""Stands for a status where the receiver accepts no presentation context for the object: it is never sent."""


def corpus_uid(*parts: str) -> str:
    """A UID that is the same in every run: UUID version 5 of the parts (PS3.5 B.2)."""
    return f"2.25.{uuid5(_NAMESPACE, '/'.join(parts)).int}"


@dataclass(frozen=True)
class Patient:
    """A made-up patient, who occurs in one case only: whatever of it turns up elsewhere has leaked.

    Attributes:
        name: (0010,0010), a family name that no language has.
        patient_id: (0010,0020).
        birth_date: (0010,0030).
    """

    name: str
    patient_id: str
    birth_date: str

    @classmethod
    def of(cls, case: str) -> Patient:
        """The patient of a case, always the same one."""
        number = zlib.crc32(case.encode())
        letters = "".join(_LETTERS[number >> shift & 15] for shift in range(0, 32, 4))
        date = f"{1903 + number % 57}{1 + number // 57 % 12:02d}{1 + number // 684 % 28:02d}"
        return cls(f"Quarn{letters}^Osvalda", f"CRP{number:08X}", date)


@dataclass(frozen=True)
class Outcome:
    """What becomes of the files of a case.

    Attributes:
        statuses: Answer of the C-STORE for each file, `NOT_OFFERED` where no presentation context is
            accepted; one for all when there is one.
        results: State and reason code in `v_results` of each SOP instance, in the order of their first files;
            one for all when there is one, none when nothing is stored.
        eyes: What the report says of each eye it names: None for a grade, else the reason it is withheld for.
        report: Whether the study has a report.
        rejection: Reason code in `v_rejections`.
    """

    statuses: tuple[int, ...] = (0x0000,)
    results: tuple[tuple[str, str | None], ...] = ()
    eyes: Mapping[str, str | None] = field(default_factory=dict)
    report: bool = True
    rejection: str | None = None

    def __str__(self) -> str:
        """A cell of the table: the report, in words."""
        if not self.report:
            return "none" if self.results else ""
        stated = [f"{side}: {'grade' if code is None else f'`{code}`'}" for side, code in self.eyes.items()]
        return ", ".join(stated) or "no eye, the image is listed"


def graded(*sides: str) -> Outcome:
    """Read, and a grade stated for these eyes (the right one when none is named)."""
    return Outcome(results=(("ANALYSED", None),), eyes=dict.fromkeys(sides or ("R",)))


def withheld(reason: str, *, eye: str | None = None, state: str = "ANALYSED") -> Outcome:
    """Read, but the right eye's grade withheld: for the image's reason, or for another one of the eye."""
    return Outcome(results=((state, reason),), eyes={"R": eye or reason})


def refused(reason: str, *, eye: str | None = None) -> Outcome:
    """Stored, not analysed, and the right eye withheld: for the image's reason, or another one of the eye."""
    return withheld(reason, eye=eye, state="REFUSED")


def sideless(reason: str) -> Outcome:
    """Read, but of no known side: listed in a report that states no eye."""
    return Outcome(results=(("ANALYSED", reason),))


def turned_away(status: int, reason: str) -> Outcome:
    """Not stored: refused at the door with this status."""
    return Outcome(statuses=(status,), report=False, rejection=reason)


def not_offered() -> Outcome:
    """Not sent: no presentation context is accepted for it."""
    return turned_away(NOT_OFFERED, "CONTEXT_NOT_ACCEPTED")


@dataclass(frozen=True)
class Case:
    """One quirk.

    Attributes:
        name: Name of the file, without suffix; of several, ".1", ".2" … follow.
        quirk: What is odd about it, in one phrase.
        outcome: What becomes of it.
        build: Makes the files, PS3.10, in the order in which they are sent.
        same_colours: Whether what is read must have the colours of the corpus's photograph.
        secrets: Further encodings of the patient's identity that must not turn up anywhere.
        dcmtk: What DCMTK's storescu does with it, where it corrects the odd, or cannot read it; "" elsewhere.
        by_dcmtk: The outcome then; None when it is not sent.
    """

    name: str
    quirk: str
    outcome: Outcome
    build: Callable[[str], Sequence[bytes]]
    same_colours: bool = True
    secrets: tuple[str, ...] = ()
    dcmtk: str = ""
    by_dcmtk: Outcome | None = None

    @property
    def patient(self) -> Patient:
        """Its patient."""
        return Patient.of(self.name)

    def secret_terms(self) -> list[bytes]:
        """What identifies its patient, in every form in which it could be written down."""
        name, _, _ = self.patient.name.partition("^")
        date = self.patient.birth_date
        terms = [name, self.patient.patient_id, date, f"{date[:4]}-{date[4:6]}-{date[6:]}", *self.secrets]
        escaped = [term.encode("ascii", "backslashreplace").decode() for term in terms]
        return [term.encode() for term in dict.fromkeys([*terms, *escaped])]

    def files(self) -> dict[str, bytes]:
        """Its files by name, in the order in which they are sent."""
        contents = list(self.build(self.name))
        if len(contents) == 1:
            return {f"{self.name}.dcm": contents[0]}
        return {f"{self.name}.{number}.dcm": each for number, each in enumerate(contents, start=1)}
