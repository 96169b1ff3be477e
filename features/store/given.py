"""Arrays as they are given, in memory or in a file, and what describes the rows of features: checked, each by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.runtime.text import composed, counted, listed, printable, shortened
from features.store.array_files import OBJECTS
from features.store.class_names import numbered_classes, why_no_names
from features.store.limits import MOST_CLASSES, why_not_kept
from features.store.parts import KNOWN_AS, part_named
from features.store.patient_names import as_one_spelling

_FLOATS = ("float16", "float32", "float64")
_NAMED = 8


class Given(Protocol):
    """An array as it was given: in memory, or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""

    def blocks(self, step: int) -> Iterator[npt.NDArray[Any]]:
        """Yields successive rows, at most ``step`` at once."""

    def refusal(self, expected: str, found: object, hint: str | None = None) -> InputError:
        """Returns the error that names the array."""


class HeldArray:
    """An array that Python holds, or maps: what can be sliced by rows is read so.

    Args:
        name: What it is called in a refusal.
        values: A NumPy array, a memory map, a dataset of h5py, or what ``np.asarray`` takes.

    Raises:
        InputError: It is none of these.
    """

    def __init__(self, name: str, values: Any) -> None:
        self._name = name
        if hasattr(values, "toarray") and not hasattr(values, "__array__"):  # SciPy's: it has shape and rows
            hint = f"{name}.toarray() makes it one"
            raise InputError(name, expected="a dense array", found=f"a sparse {type(values).__name__}", hint=hint)
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):  # pandas' have masks of their own
            hint = f"leave out its rows, or say what stands there: {name}.filled(VALUE)"
            found = counted(int(np.ma.getmaskarray(values).sum()), "masked one")
            raise InputError(name, expected="values everywhere", found=found, hint=hint)
        sliced = isinstance(getattr(values, "dtype", None), np.dtype) and hasattr(values, "shape")
        self._values: Any = values if sliced else _as_array(name, values)
        self.dtype: np.dtype[Any] = self._values.dtype
        self.shape = tuple(int(side) for side in self._values.shape)

    def blocks(self, step: int) -> Iterator[npt.NDArray[Any]]:
        """Yields successive rows, at most ``step`` at once."""
        for start in range(0, self.shape[0], step):
            yield np.asarray(self._values[start : start + step])

    def refusal(self, expected: str, found: object, hint: str | None = None) -> InputError:
        """Returns the error that names the array."""
        return InputError(self._name, expected=expected, found=found, hint=hint)


def _as_array(name: str, values: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except Exception as error:  # a tensor's own errors, on another device for one, are of any type
        found = shortened(printable(" ".join(f"{error}".split())), 80)
        raise InputError(name, expected="an array, or what NumPy makes one of", found=found) from error


def count_rows(features: Given) -> int:
    """Returns the number of rows of an array of features, once its shape and dtype are known to be those of one.

    Raises:
        InputError: They are not.
    """
    if features.dtype.name not in _FLOATS:
        found = OBJECTS if features.dtype.hasobject else features.dtype
        raise features.refusal("float16, float32 or float64", found, 'X.astype("float32") makes it so')
    if len(features.shape) not in (2, 4):
        hint = "average the tokens, or make a square of them" if len(features.shape) == 3 else None
        raise features.refusal("shape (rows, channels) or (rows, height, width, channels)", features.shape, hint)
    if not all(features.shape):
        raise features.refusal("at least one row, place and channel", f"shape {features.shape}")
    if len(features.shape) == 4 and features.shape[2] == features.shape[3] != features.shape[1]:
        height, width = features.shape[1:3]
        hint = (
            f"where {height} is the channels, X.transpose(0, 2, 3, 1) puts them there; where these are maps of {height}"
            f" x {width}, X.transpose(0, 2, 1, 3) is taken, of {width} x {height}"
        )
        found = f"shape {features.shape}, which looks like (rows, channels, height, width)"
        raise features.refusal("channels on the last axis", found, hint)
    return features.shape[0]


def labelled(labels: Given, rows: int, classes: tuple[str, ...] | None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Returns the class index of each row, and the class names.

    Args:
        labels: Class names, or class indices from 0.
        rows: How many there are.
        classes: Class names in label order, where they are told.

    Raises:
        InputError: A label is out of range, or a class has no row.
    """
    if len(labels.shape) == 2 and labels.shape[0] == rows:
        one = labels.shape[1] == 1
        hint = "y.ravel() makes it so" if one else "y.argmax(axis=1) makes it of one column per class"
        raise labels.refusal(f"shape ({rows},)", labels.shape, hint)
    if labels.dtype.kind == "b":
        raise labels.refusal("class indices or names", "truth values", "y.astype(int) makes them 0 and 1")
    values = _values(labels, rows)
    if isinstance(values, list):
        return _named(labels, values, classes)
    least, most = int(values.min()), int(values.max())
    count = most + 1 if classes is None else len(classes)
    if least < 0 or most >= min(count, MOST_CLASSES):
        fits = classes or most >= MOST_CLASSES
        expected = f"0 to {min(count, MOST_CLASSES) - 1}" if fits else "0 and above"
        expected += ", an index into the classes"
        wrong = int(values.argmin() if least < 0 else values.argmax())
        raise labels.refusal(expected, f"{values[wrong]} in row {wrong}")
    names = classes or numbered_classes(count)
    if classes is None:
        hint = (
            "to train on these rows, number the classes without a gap; to test a head or a search of more classes on"
            f" them, give y as class names, such as {names[most]}"
        )
    else:
        hint = "leave their names out of classes, and give y as names: the numbers of the others would change"
    _check_every_class(labels, names, np.bincount(values.astype(np.int64), minlength=count), hint)
    return tuple(values.tolist()), names


def _named(
    labels: Given, values: list[str], classes: tuple[str, ...] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    values = [composed(value) for value in _storable(labels, values)]
    if "" in values:
        raise labels.refusal("a class name in every row", f"none in row {values.index('')}")
    names = classes or tuple(sorted(set(values)))
    if len(names) > MOST_CLASSES:
        raise labels.refusal(f"at most {MOST_CLASSES:,} classes", f"{len(names):,}")
    places = {name: index for index, name in enumerate(names)}
    for row, value in enumerate(values):
        if value not in places:
            expected = f"one of {listed(map(printable, names), _NAMED)}"
            raise labels.refusal(expected, f"{shortened(printable(value), 40)} in row {row}")
    indices = tuple(places[value] for value in values)
    hint = "leave their names out of classes"
    _check_every_class(labels, names, np.bincount(indices, minlength=len(names)), hint)
    return indices, names


def _check_every_class(labels: Given, names: Sequence[str], counts: npt.NDArray[np.int64], hint: str) -> None:
    without = [printable(name) for name, count in zip(names, counts, strict=True) if not count]
    if without:
        raise labels.refusal(f"rows of each of the {len(names):,} classes", f"none of {listed(without, _NAMED)}", hint)


def class_names(classes: Given) -> tuple[str, ...]:
    """Returns different names, composed.

    Raises:
        InputError: They are not different, or too many.
    """
    names = tuple(composed(name) for name in texts_of(classes, None))
    if unfit := why_no_names(names):
        raise classes.refusal(*unfit)
    if len(names) > MOST_CLASSES:
        raise classes.refusal(f"at most {MOST_CLASSES:,} names", f"{len(names):,}")
    return names


def path_names(paths: Given, rows: int) -> tuple[str, ...]:
    """Returns a different name for each row.

    Raises:
        InputError: Two rows have one name, or one has none.
    """
    texts, seen = texts_of(paths, rows), dict[str, int]()
    for row, text in enumerate(texts):
        if not text:
            raise paths.refusal("a name for every row", f"none in row {row}")
        if text in seen:
            found = f"{shortened(printable(text), 80)} in rows {seen[text]} and {row}"
            raise paths.refusal("a different name for every row", found)
        seen[text] = row
    return texts


def part_names(parts: Given, rows: int) -> tuple[str, ...]:
    """Returns the part of each row, one of ``PARTS``, or '' where none is said.

    Raises:
        InputError: A row says something else.
    """
    found = []
    for row, text in enumerate(texts_of(parts, rows)):
        part = part_named(text) if text else ""
        if part is None:
            raise parts.refusal(f"one of {', '.join(KNOWN_AS)}", f"{shortened(printable(text), 40)} in row {row}")
        found.append(part)
    return tuple(found)


def patient_names(patients: Given, rows: int) -> tuple[str, ...]:
    """Returns the patient of each row, '' where unknown, of texts or whole numbers.

    Raises:
        InputError: It is of another kind or length, or a text is too long.
    """
    values = _values(patients, rows, hint="make them text, with '' where the patient is unknown")
    if not isinstance(values, list):
        return tuple(map(str, values.tolist()))
    return tuple(as_one_spelling(_storable(patients, values)))


def texts_of(given: Given, rows: int | None) -> tuple[str, ...]:
    """Returns texts that a store can keep, one for each row.

    Args:
        given: The array.
        rows: How many there have to be; None where that is free.

    Raises:
        InputError: It is of another kind or length, or a text is too long.
    """
    values = _values(given, rows)
    if not isinstance(values, list):
        raise given.refusal("text", given.dtype)
    return tuple(_storable(given, values))


def _storable(given: Given, texts: list[str]) -> list[str]:
    """Returns the texts, once each is known to be one that a store can keep."""
    for row, text in enumerate(texts):
        if unfit := why_not_kept(text):
            expected, found = unfit
            raise given.refusal(expected, f"{found} in row {row}")
    return texts


def _values(given: Given, rows: int | None, hint: str | None = None) -> npt.NDArray[np.int64] | list[str]:
    """Reads what stands for rows: whole numbers as an array, texts as a list."""
    shape = given.shape
    if len(shape) != 1 or (rows is not None and shape[0] != rows):
        expected = "one axis" if rows is None else f"shape ({rows},), as X has {counted(rows, 'row')}"
        raise given.refusal(expected, shape)
    if given.dtype.kind not in "iuUSOT":
        raise given.refusal("whole numbers or text", given.dtype, hint)
    values = next(given.blocks(max(1, shape[0])), np.zeros(0, given.dtype))
    if given.dtype.kind in "iu":
        return values
    try:
        listed_values = [text.decode() if isinstance(text, bytes) else text for text in values.tolist()]
    except (ValueError, SystemError) as error:  # bytes that are no UTF-8; numbers beyond Unicode
        raise given.refusal("text in Unicode", "other bytes") from error
    if all(isinstance(value, str) for value in listed_values):
        return listed_values
    if all(isinstance(value, int) and not isinstance(value, bool) for value in listed_values):
        return _as_whole(given, [int(value) for value in listed_values])
    strange = next((value for value in listed_values if not isinstance(value, str | int)), listed_values[0])
    raise given.refusal("whole numbers or text", f"{type(strange).__name__} among them", hint)


def _as_whole(given: Given, values: list[int]) -> npt.NDArray[np.int64]:
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise given.refusal("whole numbers of 64 bits", "larger ones") from error
