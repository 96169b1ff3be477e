"""Heads of somebody's own function as files: ``.hdf5`` where all of their layers are plain ones, else ``.keras``.

A ``.hdf5`` head is read as data, without running anything (``heads.files.plain_layers``); that cannot hold layers that
are somebody's code. Such a head is a ``.keras`` file as Keras saves it, which loads where that code is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import disk_error, replacing
from features.runtime.text import printable, shortened
from features.runtime.unseen import warnings_unseen
from heads.files.checked_write import TOLERANCE
from heads.files.formats import format_of, probabilities_of
from heads.files.head_file import EXPECTED, save_head
from heads.files.keras_archive import opened_archive
from heads.files.metadata import KIND, HeadMetadata, file_attributes, parse_metadata
from heads.files.plain_layers import parse_model

_ROWS = 4


class NotSavedError(BottleneckError):
    """Keras does not save a model, or saves another one; no fault of the disk.

    Args:
        path: The file that was to be written.
        problem: What is wrong, in words.

    Attributes:
        problem: As given.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: expected a model that Keras can save, found {problem}")
        self.problem = problem


def unreadable_layers(model: Any) -> str | None:
    """Returns why a model is none of plain layers only, in a line; None where it is."""
    from heads.model.keras_internals import architecture  # only who has a model has Keras

    try:
        parse_model(Path(model.name), architecture(model))
    except InputError as error:
        return str(error)
    except Exception as error:  # of the user's own get_config
        return shortened(printable(f"{type(error).__name__} ({error})"), 200)
    return None


def save_own_head(path: Path, make: Callable[[], Any], model: Any, metadata: HeadMetadata) -> Path:
    """Writes a head of somebody's own function, and tries what was written.

    Args:
        path: Ends in .hdf5; it becomes .keras where the layers ask for it.
        make: Makes the same model with other weights, to read the file into.
        model: keras.Model from features to class probabilities.
        metadata: Goes into the file.

    Returns:
        The path of the file.

    Raises:
        NotSavedError: Keras cannot save the model, or what was written gives other probabilities.
        BottleneckError: The disk is full or the place cannot be written.
    """
    from heads.model.keras_internals import architecture  # only who has a model has Keras

    if unreadable_layers(model) is None:
        plain = parse_model(path, architecture(model))
        save_head(path, plain.build(plain.weights_of(model)), metadata)
        return path
    path = path.with_suffix(".keras")
    with replacing(path) as temporary:
        problem = _write(temporary, make, model, metadata.feature_shape, file_attributes(metadata, KIND))
        if problem:
            raise NotSavedError(path, problem)
    return path


def why_not_saved(make: Callable[[], Any], model: Any, feature_shape: tuple[int, int, int]) -> str | None:
    """Returns why a model cannot be kept as ``save_own_head`` keeps it, in words; None where it can.

    Args:
        make: Makes the same model with other weights.
        model: keras.Model; it is not compiled any more afterwards.
        feature_shape: (height, width, channels) of what it takes.

    Raises:
        BottleneckError: The folder of temporary files cannot be written.
    """
    if unreadable_layers(model) is None:
        return None
    try:
        with TemporaryDirectory(prefix="head-") as folder:
            return _write(Path(folder) / "head.keras", make, model, feature_shape, {})
    except OSError as error:
        raise disk_error(Path(gettempdir()), error) from error


def _write(
    path: Path,
    make: Callable[[], Any],
    model: Any,
    feature_shape: tuple[int, int, int],
    attributes: dict[str, Any],
) -> str | None:
    """Writes a .keras file and reads it into another model; returns what is wrong with it, in words."""
    model.compiled = False  # an optimizer's state has no place in a head
    rows = np.random.default_rng(0).random((_ROWS, *feature_shape), np.float32)
    try:
        format_of(path).write(path, model, attributes)
        again = make()
        with warnings_unseen():  # of an optimizer's state, which is not asked for
            again.load_weights(path)
        difference = float(np.abs(probabilities_of(again, rows) - probabilities_of(model, rows)).max())
    except (BottleneckError, OSError):
        raise
    except Exception as error:  # of the user's own layers, or of Keras about them
        return f"{type(error).__name__} ({shortened(printable(' '.join(str(error).split())), 200)})"
    return None if difference <= TOLERANCE else f"other probabilities in its file, up to {difference:.2g} apart"


def why_not_plain(path: Path) -> str:
    """Returns which layer of a ``.keras`` file is none that is read as data, in words.

    Raises:
        InputError: It is no such file, or is damaged.
    """
    with opened_archive(path, EXPECTED) as archive:
        try:
            parse_model(path, archive.config)
        except InputError as error:
            return str(error).removeprefix(f"{path}: ")
    return "plain layers only"


def read_own_metadata(path: Path) -> HeadMetadata:
    """Reads what a ``.keras`` file of somebody's own layers says of itself, and nothing of its layers.

    Raises:
        InputError: It is none, or is damaged.
    """
    with opened_archive(path, EXPECTED) as archive:
        return parse_metadata(path, archive.attributes, None)
