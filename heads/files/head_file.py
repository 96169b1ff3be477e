"""Heads as plain Keras ``.hdf5`` files: out, and safely in; ``.keras``: safely in; the metadata that travels in them.

A file is what Keras writes, with attributes beside Keras' own at its root, readable with h5py alone: docs/head-file.md
says which. Other formats have them as JSON, see ``heads.files.metadata_json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from features.hdf5.door import opened
from features.hdf5.values import Attributes, inner_dataset, inside
from features.runtime.errors import InputError
from features.runtime.files import replacing
from features.runtime.text import shortened
from heads.files.keras_archive import KerasArchive, is_keras_archive, opened_archive
from heads.files.metadata import IMAGE_MODEL, KIND, HeadMetadata, file_attributes, parse_metadata
from heads.files.plain_layers import PlainLayer, PlainModel, parse_model

SUFFIXES = (".hdf5", ".h5")
EXPECTED = "a head (.hdf5 or .keras as Keras saves it)"
_INSIDE = "weights in the file itself"


@dataclass(frozen=True)
class Head:
    """A head that was read from a file.

    Attributes:
        model: Uncompiled keras.Model from features (batch, height, width, channels) to probabilities (batch, classes).
        metadata: What the file says of itself.
    """

    model: Any
    metadata: HeadMetadata


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
    save_model(path, model, file_attributes(metadata, KIND))


def save_model(path: Path, model: Any, attributes: dict[str, Any]) -> None:
    """Writes an uncompiled Keras model to HDF5, with attributes at the file's root, complete or not at all.

    Raises:
        InputError: The name ends neither in .hdf5 nor in .h5.
        BottleneckError: The file cannot be written; one that was there before is unchanged.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(path, expected="a name that ends in .hdf5 or .h5", found=path.suffix or "none")
    assert not getattr(model, "compiled", False), "a compiled model's file would not load in other versions of Keras"
    image = file_image(model, attributes)
    with replacing(path, needed=len(image)) as temporary:
        temporary.write_bytes(image)


def file_image(model: Any, attributes: dict[str, Any]) -> bytes:
    """Returns a file's content, made in memory: on a full disk HDF5 crashes the process (a fault in H5Fflush).

    Args:
        model: Uncompiled keras.Model.
        attributes: Go to the file's root.
    """
    from heads.model.keras_internals import write_model  # only who writes needs Keras

    with h5py.File.in_memory() as file:
        write_model(model, file)
        for name, value in attributes.items():
            file.attrs[name] = value
        file.flush()
        return bytes(file.id.get_file_image())


def read_head(path: Path, classes: str | Iterable[str] | None = None) -> Head:
    """Reads a head: one of ours, or a plain Keras file such as the article's, of Keras 2 or 3; .hdf5 or .keras.

    Nothing in the file is executed or deserialised by Keras: see ``heads.files.plain_layers``.

    Args:
        path: The file.
        classes: Names of its classes, where the file has none.

    Raises:
        InputError: It is no head, is damaged, holds other than plain layers, or its weights do not fit them; or the
            names do not.
    """
    path = Path(path)
    with _reading(path) as file:
        plain = parse_model(path, file.config)
        metadata = parse_metadata(path, file.attributes, plain, classes)
        weights = file.weights(plain)
    return Head(plain.build(weights), metadata)


def read_metadata(path: Path, classes: str | Iterable[str] | None = None) -> HeadMetadata:
    """Reads only what a head file says of itself, without starting Keras; ``classes`` as in ``read_head``.

    Raises:
        InputError: As ``read_head``, but for the weights.
    """
    path = Path(path)
    with _reading(path) as file:
        return parse_metadata(path, file.attributes, parse_model(path, file.config), classes)


def read_layers(path: Path) -> PlainModel:
    """Reads only the layers of a head file, without their weights and without starting Keras.

    Raises:
        InputError: As ``read_head``, but for the weights and the metadata.
    """
    with _reading(path) as file:
        return parse_model(path, file.config)


@dataclass(frozen=True)
class _HeadFile:
    """A head's file that is open, whichever format it has.

    Attributes:
        config: The architecture, JSON text.
        attributes: HDF5 file with the metadata as its attributes.
        weights: Reads the weights of each layer, in the order of ``get_weights``.
    """

    config: str
    attributes: Any
    weights: Callable[[PlainModel], list[list[npt.NDArray[np.float32]]]]


@contextmanager
def _reading(path: Path) -> Iterator[_HeadFile]:
    """Opens a head file; whatever HDF5 stumbles over in it, then or later, is said in one line."""
    if is_keras_archive(path, EXPECTED):
        with opened_archive(path, EXPECTED) as archive:
            _check_kind(path, archive.attributes)
            yield _HeadFile(archive.config, archive.attributes, lambda plain: _archived_weights(archive, plain))
        return
    with opened(path, EXPECTED) as file:
        config = _model_config(path, file)
        yield _HeadFile(config, file, lambda plain: [_layer_weights(path, file, layer) for layer in plain.layers])


def _check_kind(path: Path, file: Any) -> None:
    """Makes sure that a file says of itself that it is a head's, or nothing."""
    attributes = Attributes(path, file)
    kind = attributes.text("kind") if "kind" in attributes else KIND
    if kind == IMAGE_MODEL:
        hint = "search.export without --with-backbone writes a head"
        raise InputError(path, field="kind", expected=EXPECTED, found="a model from image to class", hint=hint)
    if kind != KIND:
        raise InputError(path, field="kind", expected=KIND, found=repr(shortened(kind, 60)))


def _model_config(path: Path, file: Any) -> str:
    """Returns the architecture as JSON text, once the file is known to be a head's."""
    _check_kind(path, file)
    attributes = Attributes(path, file)
    if "model_config" in attributes:
        return attributes.text("model_config")
    raise InputError(path, expected=EXPECTED, found=what_is_no_model(file))


def what_is_no_model(file: Any) -> str:
    """Says what an open HDF5 file is that holds no model; '' of one that does."""
    if "model_config" in file.attrs:
        return ""
    if "features" in file or "features-0" in file:
        return "a feature store" if "features" in file else "features in the article's layout"
    return "weights without their model" if "layer_names" in file.attrs else "an HDF5 file without model_config"


def _layer_weights(path: Path, file: Any, layer: PlainLayer) -> list[npt.NDArray[np.float32]]:
    """Reads a layer's weights in the order of ``get_weights``; they are known to be small enough."""
    if not layer.weights:
        return []
    group = inside(path, file, f"model_weights/{layer.name}", expected=_INSIDE)
    attributes = Attributes(path, group)
    listed = np.asarray(attributes.value("weight_names")).ravel().tolist() if "weight_names" in attributes else []
    names = [_decoded(name) for name in listed]
    places = {_leaf(name): name for name in names}
    _check_names(path, layer, map(_leaf, names), layer.weights)
    return [
        _array(path, f"model_weights/{layer.name}/{places[name]}", file, shape) for name, shape in layer.weights.items()
    ]


def _archived_weights(archive: KerasArchive, plain: PlainModel) -> list[list[npt.NDArray[np.float32]]]:
    """Reads the weights of a .keras file, where each layer's are numbered."""
    path = archive.path
    with archive.weights() as (file, groups):
        weights: list[list[npt.NDArray[np.float32]]] = []
        for layer in plain.layers:
            place, shapes = groups.get(layer.name, ""), list(layer.weights.values())
            if shapes:
                found = inside(path, file, place, expected=_INSIDE) if place else ()
                _check_names(path, layer, found, map(str, range(len(shapes))))
            weights.append([_array(path, f"{place}/{number}", file, shape) for number, shape in enumerate(shapes)])
        return weights


def _check_names(path: Path, layer: PlainLayer, found: Iterable[str], wanted: Iterable[str]) -> None:
    names = sorted(found)
    if names != sorted(wanted):
        expected = f"the weights {', '.join(layer.weights)}"
        shown = ", ".join(names) or "none"
        raise InputError(path, field=f"layer {layer.name!r}", expected=expected, found=shortened(shown, 80))


def _decoded(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _leaf(name: str) -> str:
    """``dense_1/kernel:0`` (Keras 2) and ``dense_1/kernel`` (Keras 3) are ``kernel``."""
    return name.rpartition("/")[2].removesuffix(":0")


def _array(path: Path, name: str, file: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    dataset = inner_dataset(path, file, name, expected=_INSIDE)
    if dataset.shape != shape or dataset.dtype.kind != "f":
        found = f"{dataset.dtype} {dataset.shape}"
        raise InputError(path, field=name, expected=f"float32 {shape}", found=found)
    values = np.asarray(dataset[()], np.float32)
    if not np.isfinite(values).all():
        raise InputError(path, field=name, expected="finite weights", found="NaN or infinite ones")
    return values
