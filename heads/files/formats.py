"""The formats that a model leaves in, by the ending of a name: how each is written, and asked for probabilities again.

Keras writes all of them. What reads them here is what others will read them with, so that a file can be tried.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.runtime.extras import extra_hint
from features.runtime.keras_settings import nothing_drawn
from features.runtime.options import A_PATH, NO_PATH
from heads.files.head_file import file_image
from heads.files.metadata_json import NAME, to_json
from heads.metrics.scoring import Probabilities

Inputs = npt.NDArray[np.float32]
"""(rows, height, width, channels): features or images."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format.

    Attributes:
        title: What it is called in messages.
        suffixes: Endings of names; none for a folder.
        write: Writes a keras.Model and a file's attributes to a place where nothing is.
        predict: Returns the probabilities that what was written gives for rows.
        packages: What has to be installed; TensorFlow, where it is among them, has to be the backend.
        extra: Which extra of this project brings them; '' where that is no extra.
    """

    title: str
    suffixes: tuple[str, ...]
    write: Callable[[Path, Any, dict[str, Any]], None]
    predict: Callable[[Path, Inputs], Probabilities]
    packages: tuple[str, ...] = ()
    extra: str = ""

    @property
    def tensorflow(self) -> bool:
        """Whether TensorFlow has to be the backend."""
        return "tensorflow" in self.packages

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder and no file."""
        return not self.suffixes

    def require_packages(self) -> None:
        """Makes sure that it can be written here.

        Raises:
            InputError: A package is missing; what brings it is named.
        """
        missing = [name for name in self.packages if not find_spec(name)]
        if missing:
            expected = f"{', '.join(self.packages)} to be installed"
            hint = extra_hint(self.extra) if self.extra else f"pip install {' '.join(missing)}"
            raise InputError(self.title, expected=expected, found=_none(missing), hint=hint)


def format_of(out: str | os.PathLike[str]) -> Format:
    """Returns the format that a name asks for: by its ending; a folder's has none, or a slash behind it.

    Raises:
        InputError: The ending is not known; those that are known are named.
    """
    text = os.fspath(out)
    name = Path(text)
    if not text:
        raise InputError("OUT", expected=A_PATH, found=NO_PATH)
    if text.endswith(("/", os.sep)) or not name.suffix:
        return _SAVED_MODEL
    found = next((one for one in FORMATS if name.suffix in one.suffixes), None)
    if found is None:
        known = ", ".join(suffix for one in FORMATS for suffix in one.suffixes)
        expected = f"a name that ends in one of {known}, or a folder's, with a slash at its end, for a SavedModel"
        raise InputError("OUT", expected=expected, found=name.name)
    return found


def _none(missing: list[str]) -> str:
    return f"no {' and no '.join(missing)}"


def _write_hdf5(path: Path, model: Any, attributes: dict[str, Any]) -> None:
    path.write_bytes(file_image(model, attributes))


def _write_keras(path: Path, model: Any, attributes: dict[str, Any]) -> None:
    from heads.model.keras_internals import without_tensorflow

    with without_tensorflow():
        model.save(path)
    _add_member(path, attributes)


def _add_member(path: Path, attributes: dict[str, Any]) -> None:
    """Adds the metadata to a ZIP archive, or behind a file of another kind, as TensorFlow Lite keeps such files."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAME, to_json(attributes))


def _load(path: Path, rows: Inputs) -> Probabilities:
    import keras

    from heads.model.keras_internals import without_tensorflow

    with without_tensorflow(), nothing_drawn():
        model = keras.saving.load_model(path, compile=False)
    return probabilities_of(model, rows)


def probabilities_of(model: Any, rows: Inputs) -> Probabilities:
    """Returns what a keras.Model in memory gives for rows."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(model(rows, training=False)), np.float32)


def _write_onnx(path: Path, model: Any, attributes: dict[str, Any]) -> None:
    import onnx  # an extra

    model.export(path, format="onnx", verbose=False)
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {NAME: to_json(attributes)})
    onnx.save(written, path)


def _run_onnx(path: Path, rows: Inputs) -> Probabilities:
    import onnxruntime  # an extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: rows})[0], np.float32)


def _write_tflite(path: Path, model: Any, attributes: dict[str, Any]) -> None:
    from heads.files.on_tensorflow import BUILT_IN

    model.export(path, format="litert", verbose=False, target_spec={"supported_ops": BUILT_IN})
    _add_member(path, attributes)


def _run_tflite(path: Path, rows: Inputs) -> Probabilities:
    from heads.files.on_tensorflow import run_tflite

    return run_tflite(path, rows)


def _write_saved_model(path: Path, model: Any, attributes: dict[str, Any]) -> None:
    model.export(path, format="tf_saved_model", verbose=False)
    extra = path / "assets.extra"  # TensorFlow's own place for what others add
    extra.mkdir()
    (extra / NAME).write_text(to_json(attributes) + "\n", encoding="utf-8")


def _serve_saved_model(path: Path, rows: Inputs) -> Probabilities:
    from heads.files.on_tensorflow import serve_saved_model

    return serve_saved_model(path, rows)


_SAVED_MODEL = Format(
    title="a SavedModel", suffixes=(), write=_write_saved_model, predict=_serve_saved_model, packages=("tensorflow",)
)
FORMATS = (
    Format(title=".hdf5", suffixes=(".hdf5", ".h5"), write=_write_hdf5, predict=_load),
    Format(title=".keras", suffixes=(".keras",), write=_write_keras, predict=_load),
    Format(
        title=".onnx",
        suffixes=(".onnx",),
        write=_write_onnx,
        predict=_run_onnx,
        packages=("tensorflow", "onnx", "onnxruntime", "tf2onnx"),
        extra="onnx",
    ),
    Format(title=".tflite", suffixes=(".tflite",), write=_write_tflite, predict=_run_tflite, packages=("tensorflow",)),
    _SAVED_MODEL,
)
