"""What a head's file says of itself, out of HDF5 attributes that are not believed before they are checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.hdf5.values import Attributes, shown
from features.runtime.errors import InputError
from features.runtime.text import printable
from features.store.class_names import class_names
from features.store.kind import LATER, UNKNOWN, FeatureKind
from features.store.schema import DTYPES, StoreHeader, check_shown
from heads.files.plain_layers import PlainModel
from heads.files.refitted import Refitted
from heads.files.split_recipe import SplitRecipe
from heads.model.spec import HeadSpec

SCHEMA = 1
KIND = "head"
IMAGE_MODEL = "image_model"
JSON_FIELDS = ("spec", "own", "split", "refit", "versions")
"""Kept as JSON text."""
_MADE_OF_JSON: dict[str, Callable[[dict[str, Any]], Any]] = {
    "spec": HeadSpec.from_dict,
    "split": SplitRecipe.from_dict,
    "refit": Refitted.from_dict,
}
"""What is made of some of these; the others stay as they are."""
_LISTS = ("classes", "views")
_COUNTS = ("feature_shape", "trials")
_WHOLE = ("image_size", "trial")
_NUMBERS = ("alpha", "value", "temperature")
TAKEN = ("views", "dtype")
"""How a head takes the features of its kind; what is averaged over other views, or rounded otherwise, is no input of
one file of heads."""
WHERE_ALIKE = ("weights", "store_fingerprint", "study", "split", "projection")
"""What several heads in one file say of themselves only where all of them say the same."""


@dataclass(frozen=True, kw_only=True)
class HeadMetadata(FeatureKind):
    """Where a head comes from and what it takes, beside the kind of features.

    Attributes:
        classes: Class names; the head's outputs are in their order.
        views: Names of the views of each image that it was trained on; predictions are averaged over them.
        dtype: ``float16`` or ``float32``, of the features that it was trained on.
        spec: What was trained, where it was one of ours.
        own: Where it was of somebody's own function: ``function``, as it was named, and the ``params`` it suggested.
        store_fingerprint: Of the store that it was trained on, empty where unknown.
        study: Name of its study, empty where there was none.
        trial: Its number there; None for an ensemble.
        trials: Of an ensemble, the numbers of its members' trials, in the members' order.
        value: The study's recorded validation value: what this very head scored.
        temperature: What calibrates its probabilities (``heads.metrics.calibration``); fitted on validation rows that
            the heads it was fitted by were not trained on.
        refit: How a head was trained again after the search, on training and validation rows together; of an ensemble,
            on what any member was.
        split: How the rows of that store were split; None where that is not known.
        projection: Where it was trained in fewer directions of the channels, which these are
            (``features.store.projection.Projection.digest``); '' where it was trained on all channels. Shape and
            fingerprint are those of the store that was compressed.
        versions: Package versions that made it.
    """

    classes: tuple[str, ...]
    views: tuple[str, ...] = ("identity",)
    dtype: str = "float16"
    spec: HeadSpec | None = None
    own: dict[str, Any] | None = None
    store_fingerprint: str = ""
    study: str = ""
    trial: int | None = None
    trials: tuple[int, ...] = ()
    value: float | None = None
    temperature: float | None = None
    split: SplitRecipe | None = None
    refit: Refitted | None = None
    projection: str = ""
    versions: dict[str, str]

    @classmethod
    def of_store(cls, header: StoreHeader, fingerprint: str, **rest: Any) -> HeadMetadata:
        """Returns the metadata of a head that was trained on a store.

        On a compressed one it takes the channels of the store that was compressed, and is said to be of that.

        Args:
            header: The store's header.
            fingerprint: The store's fingerprint.
            rest: Fields that the store does not know: spec, study, trial, value, split, versions.
        """
        projection, whole = header.projection, header.of_backbone
        if projection is not None:
            fingerprint = projection.compressed_from
        own = {field.name for field in fields(cls)} - {"projection"}
        shared = {field.name: getattr(whole, field.name) for field in fields(whole) if field.name in own}
        shared["projection"] = "" if projection is None else projection.digest
        return cls(**(shared | {"store_fingerprint": fingerprint} | rest))

    def other_features(self, other: HeadMetadata) -> Iterator[tuple[str, Any, Any]]:
        """Yields (field, mine, theirs) where two heads take features of different kinds.

        As ``differences``; but features whose backbone nobody knows are of one kind only where they are of one store.
        """
        yield from self.differences(other)
        if self.backbone == other.backbone == UNKNOWN and self.store_fingerprint != other.store_fingerprint:
            yield "store_fingerprint", self.store_fingerprint, other.store_fingerprint


def shared(members: Sequence[HeadMetadata], names: Iterable[str]) -> dict[str, Any]:
    """Returns those of some fields of which all members say the same."""
    first = members[0]
    return {
        name: getattr(first, name)
        for name in names
        if all(getattr(one, name) == getattr(first, name) for one in members)
    }


def trials_of(members: Sequence[HeadMetadata]) -> tuple[int, ...]:
    """Returns the members' trials; none where one has none."""
    trials = tuple(one.trial for one in members if one.trial is not None)
    return trials if len(trials) == len(members) else ()


def file_attributes(metadata: HeadMetadata, kind: str) -> dict[str, Any]:
    """Returns the HDF5 attributes of a whole file: what it is (``KIND`` or ``IMAGE_MODEL``), and its metadata."""
    return {"kind": kind, "schema": SCHEMA, **metadata_attributes(metadata)}


def metadata_attributes(metadata: HeadMetadata) -> dict[str, Any]:
    """Returns the HDF5 attributes that stand for the metadata; what is unknown is left out."""
    attributes: dict[str, Any] = {}
    for field in fields(metadata):
        value = getattr(metadata, field.name)
        if value is None or (field.name in ("trials", "projection", *LATER) and not value):
            continue
        if isinstance(value, HeadSpec | SplitRecipe | Refitted):
            value = value.to_dict()
        if field.name in JSON_FIELDS:
            value = json.dumps(value, sort_keys=True, allow_nan=False)
        elif field.name in _LISTS:
            value = np.array(value, dtype=h5py.string_dtype("utf-8"))
        elif field.name in _COUNTS:
            value = np.array(value, np.int64)
        attributes[field.name] = value
    return attributes


def parse_metadata(
    path: Path, file: Any, plain: PlainModel | None, classes: str | Iterable[str] | None = None
) -> HeadMetadata:
    """Reads the attributes of an open head file; they must agree with its layers.

    Args:
        path: The file.
        file: Has the attributes.
        plain: Its layers; None where they are somebody's own, and are not looked at.
        classes: Names of the classes, for a file of Keras' own, which has none: else they are the article's four where
            it takes what the article's head does, and ``class-0``, ``class-1``, ... where not.

    Raises:
        InputError: One is missing or wrong, it is named; or classes are told that the file names itself.
    """
    attributes = Attributes(path, file)
    if "kind" not in attributes and plain is not None:
        keras_version = {"keras": attributes.text("keras_version")} if "keras_version" in attributes else {}
        names = class_names(classes, plain.classes, feature_shape=plain.feature_shape)
        return HeadMetadata(classes=names, feature_shape=plain.feature_shape, versions=keras_version)
    if classes is not None:
        told = classes if isinstance(classes, str) else ",".join(map(str, classes))
        raise InputError("--classes", expected=f"none, as {path} names its classes", found=printable(told))
    schema = attributes.value("schema") if "schema" in attributes else None
    if not isinstance(schema, np.integer) or schema != SCHEMA:
        raise attributes.refusal("schema", f"{SCHEMA}", shown(schema))
    values = {field.name: _field(attributes, field.name) for field in fields(HeadMetadata) if field.name in attributes}
    missing = next((name for name in ("classes", "feature_shape", "versions") if name not in values), None)
    if missing:
        raise InputError(path, field=missing, expected="an attribute of that name", found="none")
    metadata = HeadMetadata(**values)
    if plain is not None:
        _check_layers(path, metadata, plain)
    _check_fits(path, metadata)
    return metadata


def _check_layers(path: Path, metadata: HeadMetadata, plain: PlainModel) -> None:
    """The attributes must agree with the layers: a hand-edited file is not believed."""
    if metadata.feature_shape != plain.feature_shape:
        found = metadata.feature_shape
        raise InputError(path, field="feature_shape", expected=f"{plain.feature_shape} as its input layer", found=found)
    names = metadata.classes
    if len(set(names)) != len(names) or len(names) != plain.classes:
        expected = f"{plain.classes} different names, one for each output"
        raise InputError(path, field="classes", expected=expected, found=len(set(names)))
    if metadata.trials and len(metadata.trials) != len(plain.chains):
        expected = f"{len(plain.chains)}, one for each chain of layers"
        raise InputError(path, field="trials", expected=expected, found=len(metadata.trials))


def _check_fits(path: Path, metadata: HeadMetadata) -> None:
    if metadata.dtype not in DTYPES:
        raise InputError(path, field="dtype", expected=" or ".join(DTYPES), found=shown(metadata.dtype))
    if metadata.temperature is not None and not metadata.temperature > 0:
        raise InputError(path, field="temperature", expected="a number above 0", found=metadata.temperature)
    check_shown(path, metadata)
    if not metadata.views:
        raise InputError(path, field="views", expected="at least one name", found="none")


def _field(attributes: Attributes, name: str) -> Any:
    """Reads one attribute as the type of the metadata's field."""
    if name in JSON_FIELDS:
        return attributes.json_object(name, _MADE_OF_JSON.get(name, dict))
    if name in _LISTS:
        return attributes.texts(name)
    if name in _COUNTS:
        return _counts(attributes, name)
    if name in _WHOLE:
        return attributes.whole(name)
    return attributes.number(name) if name in _NUMBERS else attributes.text(name)


def _counts(attributes: Attributes, name: str) -> tuple[int, ...]:
    value = np.asarray(attributes.value(name))
    count = 3 if name == "feature_shape" else value.size
    if value.shape != (count,) or value.dtype.kind != "i":
        raise attributes.refusal(name, f"{count} whole numbers", shown(value))
    return tuple(int(number) for number in value)
