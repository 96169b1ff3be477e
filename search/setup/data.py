"""The rows a study trains on, validates on and is tested on, from one to three stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from features.rows.feed import EpochPlan, Feed, plan_epoch, plan_fold_epoch
from features.rows.given_parts import GIVEN, part_rows
from features.rows.shared_patients import describe_left_out, without_patients_of
from features.rows.split import Split, fold_rows
from features.runtime.errors import InputError
from features.runtime.memory import resident_budget
from features.runtime.text import counted
from features.store.joined import JoinedStore
from features.store.projected import ProjectedStore
from features.store.reader import FeatureStore
from features.store.relabelled import with_classes
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.files.split_recipe import SplitRecipe
from search.setup.classes import (
    absent_classes,
    describe_absent,
    describe_sat_out,
    knows_class,
    require_trainable,
    require_two_classes,
    require_usable,
)
from search.setup.seeds import batches_seed
from search.setup.split import StudySplit

RowsOf = tuple[FeatureSource, Rows]
"""Rows of a part, and the store that they are of."""


@dataclass(frozen=True)
class SearchData:
    """The three parts of a study's data.

    Attributes:
        train: Rows to train on; with folds, all of their rows.
        validation: Rows that decide between heads; with folds, ``train`` itself.
        folds: Rows of each fold; empty where one validation part decides.
        test: Rows that are touched once, at the end; ``None`` where there are none.
        split: How they were split: all that is noted but the rows themselves.
        recipe: What it takes to split the rows of the first store again.
        remarks: What the user should know about them.
    """

    train: Feed
    validation: Feed
    folds: tuple[Rows, ...]
    test: Feed | None
    split: StudySplit
    recipe: SplitRecipe
    remarks: tuple[str, ...]

    @property
    def store(self) -> FeatureSource:
        """The store that is trained on."""
        return self.train.store

    @property
    def judging(self) -> dict[str, RowsOf]:
        """Store and rows of what decides between heads, by name: ``validation``, or ``fold 1`` and so on."""
        return _judging(self.store, self.folds, (self.validation.store, self.validation.rows))

    @property
    def validation_labels(self) -> npt.NDArray[np.int32]:
        """Labels of the rows that judge; with folds those of all folds, one behind the other."""
        if self.folds:
            return np.concatenate([self.store.labels[rows] for rows in self.folds])
        return self.validation.labels

    @property
    def has_known_class(self) -> npt.NDArray[np.bool_]:
        """For each of ``validation_labels``, whether the heads that judge the row were trained on its class."""
        if not self.folds:
            return np.ones(len(self.validation.rows), bool)
        return np.concatenate([knows_class(self.store, self.train.rows, fold) for fold in self.folds])

    @property
    def parts_but_test(self) -> tuple[str, ...]:
        """Names of the parts that ``all_but_test`` is made of."""
        merges = not self.folds and self.validation.store.header.views == self.store.header.views
        return ("train", "validation") if merges else ("train",)

    @property
    def stores_but_test(self) -> tuple[str, ...]:
        """Fingerprints of the stores that ``all_but_test`` is of."""
        second = self.validation.store
        others = () if second is self.store or "validation" not in self.parts_but_test else (second.fingerprint,)
        return (self.store.fingerprint, *others)

    @property
    def all_but_test(self) -> tuple[FeatureSource, Rows]:
        """The store of the training and the validation rows together, and these rows.

        Validation rows of a store with other views than the first one's are left out.
        """
        first, second = self.store, self.validation.store
        if second is first:
            return first, np.union1d(self.train.rows, self.validation.rows)
        if "validation" not in self.parts_but_test:
            return first, self.train.rows
        return JoinedStore(first, second), np.concatenate([self.train.rows, self.validation.rows + len(first)])

    def class_weights(self, kind: str, labels: npt.NDArray[np.int32] | None = None) -> list[float]:
        """Returns what a row of each class counts in the training loss, 1 on the mean.

        Args:
            kind: ``none`` or ``balanced``.
            labels: Of the rows that are trained on, those of ``train`` among them; None for those alone.
        """
        if kind == "none":
            return [1.0] * len(self.store.classes)
        trained = self.train.labels if labels is None else labels
        counts = np.bincount(trained, minlength=len(self.store.classes))
        return [float(weight) for weight in len(trained) / (len(counts) * counts)]  # none is 0, see load_data

    @property
    def rows(self) -> dict[str, Rows]:
        """Rows of each part in its store, by its name: what ``split.json`` holds."""
        none = self.train.rows[:0]
        validated = none if self.folds else self.validation.rows
        return {
            "train": self.train.rows,
            "validation": validated,
            "test": none if self.test is None else self.test.rows,
        }


def load_data(
    features: Path,
    *,
    validation: Path | None,
    test: Path | None,
    validation_share: float,
    test_share: float,
    folds: int = 0,
    seed: int,
    ignore_parts: bool = False,
    resident: bool = True,
) -> SearchData:
    """Opens the stores and splits their rows by patient.

    A part that has a store of its own is all of that store; the others are split off ``features``. Patients are never
    shared: rows of a patient of the test part are dropped from the other two, of the validation part from training.

    A store that validates or tests may lack classes of the first, or have them in another order. Beside a compressed
    store it may have all channels: they are projected as they are read.

    Args:
        features: Store to train on.
        validation: Store to validate on, or ``None`` to split ``validation_share`` of the rows off.
        test: Store to test on, or ``None`` to split ``test_share`` off.
        validation_share: Share of the rows of ``features``, in [0, 1).
        test_share: Likewise.
        folds: Number of folds to validate on in turn instead of one validation part; 0 for none.
        seed: Decides the split.
        ignore_parts: Whether to split the rows of ``features`` anew where it says in which part each is.
        resident: Whether to hold features in memory where they fit; the fused engine has a copy of its own.

    Raises:
        InputError: A store is unfinished or does not fit the first, there are fewer than two classes, or the rows are
            too few to split.
    """
    store = _open(features)
    require_two_classes(store)
    validation_store = _fitting(store, validation)
    test_store = _fitting(store, test)
    shares = _checked_shares(
        {"validation": validation_share, "test": test_share}, {"validation": validation, "test": test}, folds
    )
    if not ignore_parts:
        _refuse_twice(store, {"validation": validation, "test": test})
    parts = _split_rows(store, validation_store, test_store, shares, folds=folds, seed=seed, ignore_parts=ignore_parts)
    budget = resident_budget() if resident else 0
    _, trained = parts.train
    train = Feed(store, trained, memory_bytes=budget * 4 // 5)
    validation_feed = train if folds else Feed(*parts.validation, memory_bytes=budget // 5)
    rows_of_folds = _fold(store, trained, folds, seed) if folds else ()
    absent = absent_classes(_judging(store, rows_of_folds, parts.validation) | {"test": parts.test})
    return SearchData(
        train=train,
        validation=validation_feed,
        folds=rows_of_folds,
        test=Feed(*parts.test, memory_bytes=0) if len(parts.test[1]) else None,  # stays on the disk until the end
        split=_study_split(parts, shares, folds=folds, seed=seed, absent=absent),
        recipe=SplitRecipe(seed, **shares, identity=parts.identity, parts=GIVEN if parts.given else ""),
        remarks=(*parts.remarks, *describe_absent(absent), *describe_sat_out(store, trained, rows_of_folds)),
    )


def _checked_shares(given: dict[str, float], stores: dict[str, Path | None], folds: int) -> dict[str, float]:
    """The shares of the rows to split off: none for a part with a store of its own, nor to validate beside folds."""
    if folds and stores["validation"]:
        raise InputError("--folds", expected="no --validation STORE beside it", found=folds)
    shares = {name: 0.0 if stores[name] else share for name, share in given.items()}
    if folds:
        shares["validation"] = 0.0
    elif not stores["validation"] and not shares["validation"]:
        raise InputError("--validation-fraction", expected="a share above 0, or --validation STORE", found=0)
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise InputError(f"--{name}-fraction", expected="a number in [0, 1)", found=share)
    if sum(shares.values()) >= 1:
        least, most = sorted(shares, key=lambda name: shares[name])
        found = f"{shares[most]:g}, beside --{least}-fraction {shares[least]:g}"
        raise InputError(f"--{most}-fraction", expected="shares that leave rows to train on", found=found)
    return shares


@dataclass(frozen=True)
class _Parts:
    """The rows of each part.

    Attributes:
        train: To train on; with folds, all of their rows.
        validation: No rows with folds.
        test: No rows where there are none to test on.
        given: Whether they are those that the store itself says.
        identity: Stands for how the rows of the first store were split, patients of others' parts still among them.
        remarks: What the user should know about them.
    """

    train: RowsOf
    validation: RowsOf
    test: RowsOf
    given: bool
    identity: str
    remarks: tuple[str, ...]


def _split_rows(
    store: FeatureStore,
    validation_store: FeatureSource | None,
    test_store: FeatureSource | None,
    shares: Mapping[str, float],
    *,
    folds: int,
    seed: int,
    ignore_parts: bool,
) -> _Parts:
    """Takes all of a part's own store, splits off the others, and keeps the patients of each out of the others."""
    try:
        parted = part_rows(store, **shares, seed=seed, ignore_parts=ignore_parts)
    except InputError as error:
        raise error.within(store.path) from error
    split = parted.split
    require_usable(store)
    tested: RowsOf = (test_store, test_store.usable) if test_store else (store, split.test)
    validated: RowsOf = (validation_store, validation_store.usable) if validation_store else (store, split.validation)
    validated, lost = _without_patients_of([tested], "validation", validated)
    trained, lost_too = _without_patients_of([tested, validated], "training", (store, split.train))
    needed = {"training": trained} | ({} if folds else {"validation": validated})
    for name, (part_store, rows) in needed.items():
        if not len(rows):
            hint = "its patients are all in another part: use stores of different patients"
            raise InputError(part_store.path, field=name, expected="rows to use", found="none left", hint=hint)
    require_trainable(store, trained[1], as_given=bool(parted.given))
    remarks = (*_patient_remarks(store), *parted.remarks(store.path.name), *lost, *lost_too)
    return _Parts(trained, validated, tested, bool(parted.given), split.identity, remarks)


def _without_patients_of(others: Sequence[RowsOf], name: str, part: RowsOf) -> tuple[RowsOf, list[str]]:
    """A part without the rows of patients who are in others, and what there is to say of that."""
    store, rows = part
    kept = without_patients_of(store, rows, others)
    return (store, kept), describe_left_out(store.path.name, {name: len(rows) - len(kept)})


def _fold(store: FeatureStore, rows: Rows, folds: int, seed: int) -> tuple[Rows, ...]:
    try:
        parts = fold_rows(rows, store.labels, store.patients, folds=folds, seed=seed + 2, classes=store.classes)
        return tuple(parts)
    except InputError as error:
        raise error.within(store.path) from error


def _refuse_twice(store: FeatureStore, stores: dict[str, Path | None]) -> None:
    """Refuses a store for a part that the first one has as well."""
    for name, path in stores.items():
        if path is not None and name in store.header.parts:
            hint = f"--ignore-parts takes all rows of {store.path.name} as if they were of no part"
            raise InputError(f"--{name}", expected=f"none, since {store.path} has a {name} part", found=path, hint=hint)


def _open(path: Path) -> FeatureStore:
    store = FeatureStore(path)
    store.require_complete()
    return store


def _fitting(first: FeatureStore, path: Path | None) -> FeatureSource | None:
    """Opens another store of the same kind of features; its labels, and its channels, are those of the first."""
    if path is None:
        return None
    other = _open(path)
    relabelled = with_classes(other, first.classes, known_to=str(first.path))
    projection, theirs = first.header.projection, other.header.projection
    if theirs not in (None, projection):
        expected = "all channels" if projection is None else f"those of {first.path}, {projection!r}, or all channels"
        raise InputError(path, field="projection", expected=expected, found=f"{theirs!r}")
    for name, expected, found in first.header.of_backbone.differences(other.header.of_backbone):
        raise InputError(path, field=name, expected=f"{expected} as in {first.path}", found=found)
    return relabelled if projection == theirs or projection is None else ProjectedStore(relabelled, projection)


def _patient_remarks(store: FeatureStore) -> list[str]:
    unknown = int(np.count_nonzero(store.patients[store.usable] == ""))
    if not unknown:
        return []
    return [
        f"{store.path.name}: the patient of {counted(unknown, 'row')} is unknown: each counts as a patient of its own"
    ]


def _judging(store: FeatureSource, folds: Sequence[Rows], validation: RowsOf) -> dict[str, RowsOf]:
    if folds:
        return {f"fold {number}": (store, rows) for number, rows in enumerate(folds, start=1)}
    return {"validation": validation}


def _study_split(
    parts: _Parts, shares: Mapping[str, float], *, folds: int, seed: int, absent: dict[str, tuple[str, ...]]
) -> StudySplit:
    """What is noted of the rows of the parts, and what the split is known by."""
    classes = len(parts.train[0].classes)
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    labels = {name: store.labels[rows] for name, (store, rows) in named.items()}
    patients = {name: set(store.patients[rows].tolist()) - {""} for name, (store, rows) in named.items()}
    given: dict[str, Literal["given"]] = {"parts": GIVEN} if parts.given else {}
    return StudySplit(
        identity=Split(*(rows for _, rows in named.values())).identity,
        counts={name: len(rows) for name, (_, rows) in named.items()},
        class_counts={name: tuple(np.bincount(of, minlength=classes).tolist()) for name, of in labels.items()},
        patients={name: len(known) for name, known in patients.items()},
        validation=shares["validation"],
        test=shares["test"],
        seed=seed,
        folds=folds,
        **given,
        absent_classes=absent,
    )


def plan_of(data: SearchData, batch_size: int, seed: int, epoch: int) -> tuple[EpochPlan, npt.NDArray[np.int32] | None]:
    """Plans an epoch of the pool: the batches, and with folds the fold of each."""
    batches = batches_seed(seed)
    rows, views = data.train.rows, data.train.views
    if data.folds:
        return plan_fold_epoch(data.folds, batch_size=batch_size, views=views, seed=batches, epoch=epoch)
    return plan_epoch(rows, batch_size=batch_size, views=views, seed=batches, epoch=epoch), None
