"""Heads as plain Keras ``.hdf5`` files: out, and safely in; and the metadata that travels in them.

A file is what Keras writes, with attributes beside Keras' own at its root, readable with h5py alone:

| attribute | type | meaning |
|---|---|---|
| ``kind`` | text | ``head``; ``image_model`` for a model from image to class, which is no head |
| ``schema`` | int | 1 |
| ``classes``, ``views`` | texts | class names in label order; views of the features that it was trained on |
| ``feature_shape`` | 3 ints | height, width, channels |
| ``backbone``, ``weights``, ``weights_sha256``, ``preprocessing``, ``dtype`` | text | as in the feature store |
| ``image_size``, ``alpha`` | int, float | as in the feature store; ``alpha`` is absent where the backbone has none |
| ``store_fingerprint``, ``study`` | text | where it was trained; empty where unknown |
| ``trial``, ``value`` | int, float | the study's trial and its recorded validation value; absent where there is none |
| ``trials`` | ints | of an ensemble, the trials whose heads it averages; absent where there are none |
| ``temperature`` | float | calibrates its probabilities (``heads.calibration``); absent where none was fitted |
| ``spec``, ``split`` | JSON | HeadSpec, and how the rows were split; absent where unknown |
| ``refit`` | JSON | on what it was trained after the search, and its repeats' scores; absent for a trial's own head |
| ``versions`` | JSON | package versions that made it |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from features.atomic import replacing
from features.convert import class_names
from features.errors import InputError
from features.store import DTYPES, StoreHeader
from heads.layers import PlainLayer, PlainModel, parse_model
from heads.spec import HeadSpec

SCHEMA = 1
KIND = "head"
IMAGE_MODEL = "image_model"
SUFFIXES = (".hdf5", ".h5")
_JSON = ("spec", "split", "refit", "versions")
_LISTS = ("classes", "views")
_COUNTS = ("feature_shape", "trials")
_WHOLE = ("image_size", "trial")
_NUMBERS = ("alpha", "value", "temperature")
EXPECTED = "a head (.hdf5 as Keras saves it)"


@dataclass(frozen=True, kw_only=True)
class HeadMetadata:
    """Where a head comes from and what it takes.

    Attributes:
        classes: Class names; the head's outputs are in their order.
        feature_shape: (height, width, channels) of one bottleneck.
        views: Names of the views of each image that it was trained on; predictions are averaged over them.
        backbone: Name in keras.applications, or ``unknown``.
        alpha: Width multiplier of the backbone, where it has one.
        weights: ``imagenet``, ``random:SEED`` or the file's name.
        weights_sha256: Hash of the backbone's weight arrays, empty where unknown.
        image_size: Side in pixels of the square that the backbone is shown; 0 where unknown.
        preprocessing: ``backbone`` or ``unit``; ``unknown`` where unknown.
        dtype: ``float16`` or ``float32``, of the features that it was trained on.
        spec: What was trained, where it was one of ours.
        store_fingerprint: Of the store that it was trained on, empty where unknown.
        study: Name of its study, empty where there was none.
        trial: Its number there; None for an ensemble.
        trials: Of an ensemble, the numbers of its members' trials, in the members' order.
        value: The study's recorded validation value: what this very head scored.
        temperature: What calibrates its probabilities (``heads.calibration``); fitted on validation rows that the heads
            it was fitted by were not trained on.
        refit: For a head that was trained again after the search, on training and validation rows together: ``parts``,
            ``rows`` and ``epochs``, and ``repeats``, ``mean`` and ``sd`` of the values of heads like it.
        split: How the rows of that store were split: ``seed``, the shares ``validation`` and ``test``, and ``identity``
            of ``split_rows(store.usable, store.labels, store.patients, ...)``; None where parts came from stores of
            their own.
        versions: Package versions that made it.
    """

    classes: tuple[str, ...]
    feature_shape: tuple[int, int, int]
    views: tuple[str, ...] = ("identity",)
    backbone: str = "unknown"
    alpha: float | None = None
    weights: str = "unknown"
    weights_sha256: str = ""
    image_size: int = 0
    preprocessing: str = "unknown"
    dtype: str = "float16"
    spec: HeadSpec | None = None
    store_fingerprint: str = ""
    study: str = ""
    trial: int | None = None
    trials: tuple[int, ...] = ()
    value: float | None = None
    temperature: float | None = None
    split: dict[str, Any] | None = None
    refit: dict[str, Any] | None = None
    versions: dict[str, str]

    @classmethod
    def of_store(cls, header: StoreHeader, fingerprint: str, **rest: Any) -> HeadMetadata:
        """Returns the metadata of a head that was trained on a store.

        Args:
            header: The store's header.
            fingerprint: The store's fingerprint.
            rest: Fields that the store does not know: spec, study, trial, value, split, versions.
        """
        own = {field.name for field in fields(cls)}
        shared = {field.name: getattr(header, field.name) for field in fields(header) if field.name in own}
        return cls(**(shared | {"store_fingerprint": fingerprint} | rest))


@dataclass(frozen=True)
class Head:
    """A head that was read from a file.

    Attributes:
        model: Uncompiled keras.Model from features (batch, height, width, channels) to probabilities (batch, classes).
        metadata: What the file says of itself.
    """

    model: Any
    metadata: HeadMetadata

    @cached_property
    def members(self) -> tuple[Any, ...]:
        """The chains of layers that the model averages, each a keras.Model with its very weights; else the model."""
        from heads.ensemble import members_of  # noqa: PLC0415  beside Keras

        return members_of(self.model)


def save_head(path: Path, model: Any, metadata: HeadMetadata) -> None:
    """Writes a head, without its optimizer, so that ``keras.models.load_model`` needs nothing of ours to read it.

    Args:
        path: Ends in .hdf5 or .h5; replaced atomically if it exists.
        model: keras.Model of built-in layers from features to class probabilities.
        metadata: Goes into the file's attributes, see above.

    Raises:
        InputError: The name has another ending.
        BottleneckError: The file cannot be written; one that was there before is unchanged.
    """
    path = Path(path)
    assert tuple(model.input_shape[1:]) == metadata.feature_shape, f"{model.input_shape=} {metadata.feature_shape=}"
    assert model.output_shape[1:] == (len(metadata.classes),), f"{model.output_shape=} {metadata.classes=}"
    save_model(path, model, {"kind": KIND, "schema": SCHEMA, **metadata_attributes(metadata)})


def save_model(path: Path, model: Any, attributes: dict[str, Any]) -> None:
    """Writes an uncompiled Keras model to HDF5, with attributes at the file's root, complete or not at all.

    Raises:
        InputError: The name ends neither in .hdf5 nor in .h5.
        BottleneckError: The file cannot be written; one that was there before is unchanged.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(path, expected="a name that ends in .hdf5 or .h5", found=path.suffix or "none")
    assert not getattr(model, "compiled", False), "a compiled model's file would not load in other versions of Keras"
    image = _file_image(model, attributes)
    with replacing(path, needed=len(image)) as temporary:
        temporary.write_bytes(image)


def _file_image(model: Any, attributes: dict[str, Any]) -> bytes:
    """The file's content, made in memory: on a full disk HDF5 crashes the process (a fault in H5Fflush)."""
    # ``model.save`` takes names only; this is what it calls for .hdf5
    from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5  # noqa: PLC0415

    with h5py.File("head.hdf5", "w", driver="core", backing_store=False) as file:
        save_model_to_hdf5(model, file, include_optimizer=False)
        for name, value in attributes.items():
            file.attrs[name] = value
        file.flush()
        return bytes(file.id.get_file_image())


def metadata_attributes(metadata: HeadMetadata) -> dict[str, Any]:
    """Returns the HDF5 attributes that stand for the metadata; what is unknown is left out."""
    attributes: dict[str, Any] = {}
    for field in fields(metadata):
        value = getattr(metadata, field.name)
        if value is None or (field.name == "trials" and not value):
            continue
        if isinstance(value, HeadSpec):
            value = value.to_dict()
        if field.name in _JSON:
            value = json.dumps(value, sort_keys=True, allow_nan=False)
        elif field.name in _LISTS:
            value = np.array(value, dtype=h5py.string_dtype("utf-8"))
        elif field.name in _COUNTS:
            value = np.array(value, np.int64)
        attributes[field.name] = value
    return attributes


def load_head(path: Path) -> Head:
    """Reads a head: one of ours, or a plain Keras file such as the article's, of Keras 2 or 3.

    Nothing in the file is executed or deserialised by Keras: see ``heads.layers``.

    Raises:
        InputError: It is no head, is damaged, holds other than plain layers, or its weights do not fit them.
    """
    path = Path(path)
    with _reading(path) as file:
        plain = parse_model(path, _model_config(path, file))
        metadata = _metadata(path, file, plain)
        weights = [_layer_weights(path, file, layer) for layer in plain.layers]
    model = plain.build()
    for layer, arrays in zip(plain.layers, weights, strict=True):
        model.get_layer(layer.name).set_weights(arrays)
    return Head(model, metadata)


def read_metadata(path: Path) -> HeadMetadata:
    """Reads only what a head file says of itself, without starting Keras.

    Raises:
        InputError: As ``load_head``, but for the weights.
    """
    path = Path(path)
    with _reading(path) as file:
        return _metadata(path, file, parse_model(path, _model_config(path, file)))


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Opens a head file; whatever HDF5 stumbles over in it, then or later, is said in one line."""
    if not path.exists():
        raise InputError(path, expected=EXPECTED, found="no such file")
    if not path.is_file():
        raise InputError(path, expected=EXPECTED, found="a folder" if path.is_dir() else "no regular file")
    try:
        _check_start(path)
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except PermissionError as error:
        raise InputError(path, expected=EXPECTED, found="no permission to read it") from error
    except InputError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file makes it stumble over
        reason = str(error).strip("'\"")
        raise InputError(path, expected=EXPECTED, found=f"a damaged file ({_shown(reason)})") from error


def _check_start(path: Path) -> None:
    with path.open("rb") as raw:
        start = raw.read(4)
    if start == b"PK\3\4":
        hint = "save it as .hdf5: keras.models.load_model(FILE, compile=False).save(NAME.hdf5)"
        raise InputError(path, expected=EXPECTED, found="a .keras archive", hint=hint)
    if not h5py.is_hdf5(path):
        raise InputError(path, expected=EXPECTED, found="no HDF5" if start else "an empty file")


def _model_config(path: Path, file: Any) -> str:
    """Returns the architecture as JSON text, once the file is known to be a head's."""
    kind = _text(path, file, "kind") if "kind" in file.attrs else KIND
    if kind == IMAGE_MODEL:
        hint = "search.export without --with-backbone writes a head"
        raise InputError(path, field="kind", expected=EXPECTED, found="a model from image to class", hint=hint)
    if kind != KIND:
        raise InputError(path, field="kind", expected=KIND, found=repr(kind[:60]))
    if "model_config" in file.attrs:
        return _text(path, file, "model_config")
    if "features" in file or "features-0" in file:
        found = "a feature store" if "features" in file else "features in the article's layout"
        raise InputError(path, expected=EXPECTED, found=found)
    found = "weights without their model" if "layer_names" in file.attrs else "no such attribute"
    raise InputError(path, field="model_config", expected=EXPECTED, found=found)


def _metadata(path: Path, file: Any, plain: PlainModel) -> HeadMetadata:
    attributes = file.attrs
    if "kind" not in attributes:
        keras_version = {"keras": _text(path, file, "keras_version")} if "keras_version" in attributes else {}
        names = class_names(None, plain.classes)
        return HeadMetadata(classes=names, feature_shape=plain.feature_shape, versions=keras_version)
    schema = attributes.get("schema")
    if not isinstance(schema, np.integer) or schema != SCHEMA:
        raise InputError(path, field="schema", expected=f"{SCHEMA}", found=_shown(schema))
    values = {field.name: _field(path, file, field.name) for field in fields(HeadMetadata) if field.name in attributes}
    missing = next((name for name in ("classes", "feature_shape", "versions") if name not in values), None)
    if missing:
        raise InputError(path, field=missing, expected="an attribute of that name", found="none")
    metadata = HeadMetadata(**values)
    _check_fits(path, metadata, plain)
    return metadata


def _check_fits(path: Path, metadata: HeadMetadata, plain: PlainModel) -> None:
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
    if metadata.dtype not in DTYPES:
        raise InputError(path, field="dtype", expected=" or ".join(DTYPES), found=_shown(metadata.dtype))
    if metadata.temperature is not None and not metadata.temperature > 0:
        raise InputError(path, field="temperature", expected="a number above 0", found=metadata.temperature)
    if not metadata.views:
        raise InputError(path, field="views", expected="at least one name", found="none")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


def _text(path: Path, file: Any, name: str) -> str:
    value = file.attrs[name]
    if not isinstance(value, str | bytes) or not _is_text(value):
        raise InputError(path, field=name, expected="a text", found=_shown(value))
    return value.decode() if isinstance(value, bytes) else value


def _is_text(value: Any) -> bool:
    """Whether a value is text that can be printed and written: h5py hands on what is no UTF-8 as surrogates."""
    try:
        return bool(value.decode() if isinstance(value, bytes) else value.encode()) or not value
    except (UnicodeError, AttributeError):
        return False


def _field(path: Path, file: Any, name: str) -> Any:
    """Reads one attribute as the type of the metadata's field."""
    if name in _JSON:
        return _json_field(path, file, name)
    if name in _LISTS or name in _COUNTS:
        return _list_field(path, file, name)
    if name not in _WHOLE and name not in _NUMBERS:
        return _text(path, file, name)
    value = file.attrs[name]
    kinds = (np.integer,) if name in _WHOLE else (np.integer, np.floating)
    if not isinstance(value, kinds) or not math.isfinite(value):
        expected = "a whole number" if name in _WHOLE else "a number"
        raise InputError(path, field=name, expected=expected, found=_shown(value))
    return int(value) if name in _WHOLE else float(value)


def _list_field(path: Path, file: Any, name: str) -> tuple[Any, ...]:
    value = np.asarray(file.attrs[name])
    if name in _COUNTS:
        count = 3 if name == "feature_shape" else value.size
        if value.shape != (count,) or value.dtype.kind != "i":
            raise InputError(path, field=name, expected=f"{count} whole numbers", found=_shown(value))
        return tuple(int(number) for number in value)
    if value.ndim != 1 or not all(isinstance(text, str) and _is_text(text) for text in value):
        raise InputError(path, field=name, expected="texts", found=_shown(value))
    return tuple(value.tolist())


def _json_field(path: Path, file: Any, name: str) -> Any:
    text = _text(path, file, name)
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"found {_shown(data)}")
        return HeadSpec.from_dict(data) if name == "spec" else data
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(path, field=name, expected="a JSON object that fits", found=f"another ({error})") from error


def _layer_weights(path: Path, file: Any, layer: PlainLayer) -> list[npt.NDArray[np.float32]]:
    """Reads a layer's weights in the order of ``get_weights``; they are known to be small enough."""
    if not layer.weights:
        return []
    group = _inside(path, file, f"model_weights/{layer.name}")
    listed = np.asarray(group.attrs.get("weight_names", ())).tolist() if isinstance(group, h5py.Group) else []
    places = {_leaf(name): name for name in (_decoded(name) for name in listed)}
    if len(places) != len(listed) or set(places) != set(layer.weights):
        expected = f"the weights {', '.join(layer.weights)}"
        found = ", ".join(sorted(places)) or "none"
        raise InputError(path, field=f"layer {layer.name!r}", expected=expected, found=found[:80])
    return [
        _array(path, f"model_weights/{layer.name}/{places[name]}", file, shape) for name, shape in layer.weights.items()
    ]


def _decoded(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _leaf(name: str) -> str:
    """``dense_1/kernel:0`` (Keras 2) and ``dense_1/kernel`` (Keras 3) are ``kernel``."""
    return name.rpartition("/")[2].removesuffix(":0")


def _inside(path: Path, file: Any, name: str) -> Any:
    """Follows a path of hard links: others may lead into another file."""
    node = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) and part else None
        if not isinstance(link, h5py.HardLink):
            raise InputError(path, field=name[:120], expected="weights in the file itself", found="none")
        node = node[part]
    return node


def _array(path: Path, name: str, file: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    dataset = _inside(path, file, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise InputError(path, field=name, expected="weights in the file itself", found="another object")
    if dataset.shape != shape or dataset.dtype.kind != "f":
        found = f"{dataset.dtype} {dataset.shape}"
        raise InputError(path, field=name, expected=f"float32 {shape}", found=found)
    values = np.asarray(dataset[()], np.float32)
    if not np.isfinite(values).all():
        raise InputError(path, field=name, expected="finite weights", found="NaN or infinite ones")
    return values
