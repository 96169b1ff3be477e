"""Which classes a study's parts have, and what that rules out: said before any time is spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.runtime.text import counted, listed, printable
from features.store.schema import Rows
from features.store.source import FeatureSource

_NAMED = 4
"""Classes that a line names."""


def require_two_classes(store: FeatureSource) -> None:
    """Refuses a store to train on that has usable rows of fewer than two classes.

    Raises:
        InputError: Naming the class and how many images it has.
    """
    usable = np.bincount(store.labels[store.usable], minlength=len(store.classes))
    if np.count_nonzero(usable) >= 2:
        return
    only = int(usable.argmax())
    found = f"one class, {printable(store.classes[only])} ({counted(int(usable[only]), 'image')})"
    empty = store.lacking(store.usable)
    if empty:
        found += f", and none of {_without_usable(store, empty)}"
    hint = "a head tells classes apart: extract a folder with a sub-folder of images for each of them"
    raise InputError(
        store.path, field="classes", expected="usable images of at least two classes", found=found, hint=hint
    )


def require_usable(store: FeatureSource) -> None:
    """Refuses a store to train on that has a class without a usable row.

    Raises:
        InputError: Naming the classes, and why they have none.
    """
    empty = store.lacking(store.usable)
    if empty:
        found = f"none of {_without_usable(store, empty)}"
        hint = "mend or add such images, or leave the folder out, and extract again"
        raise InputError(store.path, field="classes", expected="usable images of every class", found=found, hint=hint)


def _without_usable(store: FeatureSource, names: Sequence[str]) -> str:
    counts = dict(zip(store.classes, np.bincount(store.labels, minlength=len(store.classes)).tolist(), strict=True))
    return listed((f"{printable(name)} ({_why_none(counts[name])})" for name in names), _NAMED)


def _why_none(images: int) -> str:
    return f"{counted(images, 'image')} that could not be decoded" if images else "no image"


def require_trainable(store: FeatureSource, rows: Rows, *, as_given: bool) -> None:
    """Refuses training rows that lack a class of their store: its images have all gone into other parts.

    Args:
        store: The rows.
        rows: To train on.
        as_given: Whether they are those that the store gives, and no split of all.

    Raises:
        InputError: Naming the classes, their images and patients.
    """
    missing = store.lacking(rows)
    if not missing:
        return
    elsewhere = {name: _given_elsewhere(store, name) if as_given else "" for name in missing}
    told = (_size(store, name) + (f", given as {elsewhere[name]}" if elsewhere[name] else "") for name in missing)
    found = f"none of {listed(told, _NAMED)}"
    if all(elsewhere.values()):
        hint = "call a class's folder the same in each part; or --ignore-parts splits all rows anew"
    else:
        hint = (
            "patients of the test and the validation rows are not trained on: add patients of the class, see whether"
            " --group-pattern of features.extract takes a patient's id from the names, or use --test-fraction 0 or"
            " another --seed"
        )
    raise InputError(store.path, field="labels", expected="training rows of every class", found=found, hint=hint)


def _given_elsewhere(store: FeatureSource, name: str) -> str:
    """The parts that all usable images of a class are given for; '' where some are to train on."""
    own = store.usable[store.labels[store.usable] == store.classes.index(name)]
    parts = {store.header.parts[row] for row in own}
    return "" if parts - {"validation", "test"} else " and ".join(sorted(parts))


def _size(store: FeatureSource, name: str) -> str:
    """A class with how many usable images and patients it has."""
    own = store.usable[store.labels[store.usable] == store.classes.index(name)]
    return f"{printable(name)}, {counted(len(own), 'image')}{_of_known(store, own)}"


def _of_known(store: FeatureSource, rows: Rows) -> str:
    known = set(store.patients[rows].tolist()) - {""}
    return f" of {counted(len(known), 'patient')}" if known else ""


def require_area(parts: Mapping[str, tuple[FeatureSource, Rows]]) -> None:
    """Refuses rows of one class to rank heads on by AUC, which such rows do not have.

    Args:
        parts: What heads are ranked on, by name: the validation rows, or each fold.

    Raises:
        InputError: Naming the part and its class.
    """
    for name, (store, rows) in parts.items():
        present = np.unique(store.labels[rows])
        if len(present) == 1:
            found = f"only {printable(store.classes[present[0]])} in {name}"
            hint = "use --objective accuracy or loss, or other validation rows"
            expected = "rows of at least two classes to rank by auc"
            raise InputError("--objective", expected=expected, found=found, hint=hint)


def describe_sat_out(store: FeatureSource, trained: Rows, folds: Sequence[Rows]) -> Iterator[str]:
    """Yields a line for each fold that has all training rows of some classes: its heads are trained without them."""
    for number, fold in enumerate(folds, start=1):
        for name in _sat_out(store, trained, fold):
            own = fold[store.labels[fold] == store.classes.index(name)]
            yield (
                f"fold {number} has all {counted(len(own), 'training row')} of class {printable(name)}"
                f"{_of_known(store, own)}: heads are judged on it that were trained without that class;"
                f" {'it calibrates' if len(own) == 1 else 'they calibrate'} nothing"
            )


def knows_class(store: FeatureSource, trained: Rows, fold: Rows) -> npt.NDArray[np.bool_]:
    """Returns, for each row of a fold, whether there are rows of its class to train on outside of the fold."""
    unknown = [store.classes.index(name) for name in _sat_out(store, trained, fold)]
    return ~np.isin(store.labels[fold], unknown)


def _sat_out(store: FeatureSource, trained: Rows, fold: Rows) -> tuple[str, ...]:
    """The classes of which a fold has all training rows."""
    return store.lacking(np.setdiff1d(trained, fold))


def absent_classes(parts: Mapping[str, tuple[FeatureSource, Rows]]) -> dict[str, tuple[str, ...]]:
    """Returns, for each part that lacks classes, their names."""
    lacking = {name: store.lacking(rows) for name, (store, rows) in parts.items() if len(rows)}
    return {name: classes for name, classes in lacking.items() if classes}


def describe_absent(absent: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields a line for each part that lacks classes: ``test has no image of class B``."""
    for name, classes in absent.items():
        kind = "class" if len(classes) == 1 else f"{len(classes):,} classes:"
        yield f"{name} has no image of {kind} {listed(map(printable, classes), _NAMED)}"
