"""Which columns of a table say path, class, patient and part, and what its rows say, before any file is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from features.images.label_file import names_of, shown, texts_of
from features.runtime.errors import InputError
from features.runtime.text import composed, listed, printable
from features.store.class_names import why_no_names
from features.store.limits import why_not_kept
from features.store.parts import KNOWN_AS, part_named
from features.store.patient_names import as_one_spelling, without_point

if TYPE_CHECKING:
    import pandas as pd

USUAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "path": ("path", "filename", "image"),
        "label": ("label", "class", "target"),
        "patient": ("patient", "patient_id", "group"),
        "part": ("split", "part", "fold"),
    }
)
"""Names that a column is known by where no option says another one, in whatever case."""
_NAMED = 8
_YES, _NO = ("1", "true"), ("0", "false")


@dataclass(frozen=True, kw_only=True)
class ColumnChoice:
    """What a user told of a table's columns.

    Attributes:
        path: Name of the column with the image's path; one of ``USUAL`` where None, as for the next three.
        label: Of the column with the class.
        patient: Of the column with the patient; '' for none.
        part: Of the column with the part; '' for none.
        one_hot: Columns that say yes (1) for one class each, instead of a column with the class; none of them: ().
        classes: Names of the classes, in the order of the labels; a table may say their numbers, from 0, instead of
            the names, but not where one of these is a whole number itself.
    """

    path: str | None = None
    label: str | None = None
    patient: str | None = None
    part: str | None = None
    one_hot: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, names in (("--classes", self.classes), ("--label-columns", self.one_hot)):
            if names and (unfit := why_no_names(names)):
                raise InputError(option, expected=unfit[0], found=unfit[1])
        if self.one_hot and (self.label or self.classes):
            option = "--label-column" if self.label else "--classes"
            raise InputError(option, expected="none beside --label-columns", found=self.label or ",".join(self.classes))


@dataclass(frozen=True)
class LabelRow:
    """A row of a table.

    Attributes:
        number: Which one, from 1; the line with the columns' names is none.
        path: As it is written there.
        label: Name of the class.
        patient: '' where the table says none.
        part: ``train``, ``validation`` or ``test``; '' in a table without parts.
    """

    number: int
    path: str
    label: str
    patient: str
    part: str


@dataclass(frozen=True)
class LabelTable:
    """What a table of labels says.

    Attributes:
        name: Of the table, for messages.
        rows: In their order.
        classes: Names of the classes, in the order of the labels; there may be no row of one.
        patient_column: Name of the column with the patients; '' where there is none.
        has_parts: Whether each row says its part.
    """

    name: str
    rows: tuple[LabelRow, ...]
    classes: tuple[str, ...]
    patient_column: str
    has_parts: bool

    def refusal(self, row: LabelRow, expected: str, found: str, hint: str | None = None) -> InputError:
        """Returns the refusal of a row."""
        return InputError(self.name, field=f"row {row.number}", expected=expected, found=found, hint=hint)


def read_labels(frame: pd.DataFrame, name: str, choice: ColumnChoice) -> LabelTable:
    """Reads a table of labels.

    Args:
        frame: The table, one row per image.
        name: What it is called in messages.
        choice: What the user told of its columns.

    Raises:
        InputError: There is no row, a column is missing or may be one of two, or a row says no path, no class, several
            classes, a class or a part that there is not, or what no store can keep; the column or the row is named.
    """
    if not len(frame):
        raise InputError(name, expected="a table with a row for each image", found="none")
    table = _Columns(name, frame)
    paths = table.texts(table.need("path", choice.path))
    labels, classes = table.one_hot(choice.one_hot) if choice.one_hot else table.labels(choice)
    patient = table.find("patient", choice.patient)
    part = table.find("part", choice.part)
    patients = as_one_spelling(table.texts(patient)) if patient else [""] * len(frame)
    parts = table.parts(part) if part else [""] * len(frame)
    rows = tuple(map(LabelRow, range(1, len(frame) + 1), paths, labels, patients, parts))
    found = LabelTable(name, rows, classes, patient or "", part is not None)
    for row in rows:
        if not row.path or "\0" in row.path:
            raise found.refusal(row, "a path", shown(row.path) if row.path else "none")
        for said, text in (("class", row.label), ("patient", row.patient)):
            if unfit := why_not_kept(text):
                raise found.refusal(row, f"a {said} that is {unfit[0]}", unfit[1])
    return found


class _Columns:
    """The columns of a table by their names."""

    def __init__(self, name: str, frame: pd.DataFrame) -> None:
        self._name = name
        self._frame = frame
        self._names = names_of(frame)

    def need(self, role: str, told: str | None) -> str:
        """The column that says something which every row has to say."""
        found = self.find(role, told)
        if found is not None:
            return found
        usual = " or ".join(USUAL[role])
        raise InputError(
            self._name,
            expected=f"a column {usual}, or another one with --{role}-column",
            found=self._listed(),
        )

    def find(self, role: str, told: str | None) -> str | None:
        """The column that the user named, or that has a usual name; None where there is none."""
        if told == "":
            return None
        if told is not None:
            return self._of_name(told, f"--{role}-column")
        usual = [name for name in self._names if name.casefold() in USUAL[role]]
        if len(usual) > 1:
            raise InputError(
                self._name,
                expected=f"one column with the {role}",
                found=" and ".join(map(printable, usual)),
                hint=f"say which with --{role}-column" if len(set(usual)) > 1 else "call one of them something else",
            )
        return usual[0] if usual else None

    def _of_name(self, told: str, option: str) -> str:
        wanted = composed(told).strip()
        exact = [name for name in self._names if name == wanted]
        found = exact or [name for name in self._names if name.casefold() == wanted.casefold()]
        if len(found) != 1:
            told = self._listed() if not found else f"{len(found)} of them"
            raise InputError(self._name, expected=f"a column {printable(wanted)!r}, as {option} says", found=told)
        return found[0]

    def _listed(self) -> str:
        return f"columns {listed(map(printable, self._names), _NAMED)}"

    def texts(self, column: str) -> list[str]:
        return texts_of(self._frame.iloc[:, self._names.index(column)])

    def _refused(self, row: int, expected: str, found: str, hint: str | None = None) -> InputError:
        return InputError(self._name, field=f"row {row + 1}", expected=expected, found=found, hint=hint)

    def labels(self, choice: ColumnChoice) -> tuple[list[str], tuple[str, ...]]:
        """The class of each row, and all classes."""
        column = self.need("label", choice.label)
        labels = self.texts(column)
        if "" in labels:
            raise self._refused(labels.index(""), f"a class in column {printable(column)}", "none")
        named = set(choice.classes)
        known = named or set(labels)
        labels = [
            whole if label not in named and (whole := without_point(label)) in known else label for label in labels
        ]
        if not named:
            return labels, _in_order(set(labels))
        strange = [row for row, label in enumerate(labels) if label not in named]
        # beside names that are numbers, a strange number may be a class that --classes lacks: it is no index
        by_name = any(_whole(name) is not None for name in choice.classes)
        if strange and not by_name and all(_whole(label) is not None for label in labels):
            labels = [self._numbered(row, label, choice.classes) for row, label in enumerate(labels)]
        elif strange:
            expected = f"one of {listed(map(printable, choice.classes), _NAMED)}, as --classes says"
            raise self._refused(strange[0], expected, shown(labels[strange[0]]))
        return labels, choice.classes

    def _numbered(self, row: int, label: str, classes: tuple[str, ...]) -> str:
        number = _whole(label)
        if number is None or not 0 <= number < len(classes):
            expected = f"a number from 0 to {len(classes) - 1} for the {len(classes)} --classes"
            raise self._refused(row, expected, shown(label))
        return classes[number]

    def one_hot(self, told: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
        """The class of each row, whose column says yes; and all classes."""
        columns = [self._of_name(name, "--label-columns") for name in told]
        said = [[self._is_yes(row, column, text) for row, text in enumerate(self.texts(column))] for column in columns]
        labels = []
        for row, answers in enumerate(zip(*said, strict=True)):
            of = [column for column, yes in zip(columns, answers, strict=True) if yes]
            if len(of) > 1:
                hint = "images of several classes (multi-label) are not for these heads"
                raise self._refused(row, "1 in one of the label columns", " and ".join(map(printable, of)), hint)
            if not of:
                raise self._refused(row, "1 in one of the label columns", "none of them")
            labels += of
        return labels, tuple(columns)

    def _is_yes(self, row: int, column: str, text: str) -> bool:
        number = "1" if _whole(text) == 1 else "0" if _whole(text) == 0 else text.casefold()
        if number not in (*_YES, *_NO):
            raise self._refused(row, f"0 or 1 in column {printable(column)}", shown(text))
        return number in _YES

    def parts(self, column: str) -> list[str]:
        """The part of each row."""
        found = []
        for row, text in enumerate(self.texts(column)):
            part = part_named(text)
            if part is None:
                expected = f"one of {', '.join(KNOWN_AS)} in column {printable(column)}"
                hint = "--part-column '' leaves the column aside"
                raise self._refused(row, expected, shown(text) if text else "none", hint)
            found.append(part)
        return found


def _whole(text: str) -> int | None:
    """The whole number that a text is; ``1.0`` is one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """Classes sorted by name; numbers by their value."""
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))
