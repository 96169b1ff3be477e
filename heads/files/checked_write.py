"""A model is written, and stays only where its file gives what the model in memory gives."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np

from features.hdf5.door import opened, reading
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import disk_error, no_temporary_folder, replacing, replacing_folder
from features.runtime.jax_devices import exact_products
from features.runtime.lock import WriterLock
from features.runtime.portable import DISK_FULL
from features.runtime.text import abridged
from features.runtime.unseen import logs_unseen, stderr_unseen, warnings_unseen
from heads.files.formats import Format, Inputs, probabilities_of
from heads.files.head_file import what_is_no_model
from heads.files.keras_archive import is_keras_archive, opened_archive
from heads.metrics.scoring import Probabilities

TOLERANCE = 1e-4
"""Of probabilities in [0, 1], between one runtime's float32 and another's."""
_OF_A_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}
_TFLITE = b"TFL3"
"""What stands in a file of TensorFlow Lite behind the first four bytes."""
_ONNX = b"\x08"
"""How a file of ONNX starts: with the version of its kind. It says nothing more of itself."""
_OF_A_FUNCTION = re.compile(r"\{\{function_node [^}]*\}\}")
"""What TensorFlow writes before what went wrong: where in its own program that was."""
_NEW_FILE = "a new file, or a model's to replace"


def check_place(out: Path, form: Format) -> None:
    """Makes sure that a file or folder can be written, and that only another model would be lost for it.

    Raises:
        InputError: It cannot; nothing was written.
    """
    if not out.absolute().parent.is_dir() or (out.is_dir() and not form.is_folder):
        found = "a folder" if out.is_dir() else "none"
        raise InputError(out, expected=f"a {_kind(form)} in a folder that exists", found=found)
    if not form.is_folder and out.exists() and (other := _other_than_model(out)):
        raise InputError(out, expected=_NEW_FILE, found=other, hint="it stays as it is")
    if form.is_folder and out.exists():
        others = out.is_file() or out.is_symlink() or {path.name for path in out.iterdir()} - _OF_A_SAVED_MODEL
        if others:
            found = "a file" if out.is_file() else "a link" if out.is_symlink() else "a folder of other things"
            raise InputError(out, expected="a new folder, or a SavedModel to replace", found=found)


def write_checked(out: Path, form: Format, model: Any, attributes: dict[str, Any], rows: Inputs) -> float:
    """Writes a model, and lets rows go through what was written before it takes its place.

    Another runtime computes with other instructions, so probabilities may differ by ``TOLERANCE``; the class is then
    the same wherever the two likeliest are further apart than twice that.

    Args:
        out: The file, or the folder; replaced if it exists.
        form: Its format.
        model: Uncompiled keras.Model from rows to class probabilities.
        attributes: What is said of it, see ``heads.files.metadata.file_attributes``.
        rows: A few, as it takes them.

    Returns:
        The largest difference between two probabilities, that in memory and that of the file.

    Raises:
        BottleneckError: It cannot be written so, gives other probabilities, or another process is writing there; there
            is no room there, or for temporary files. What was there before is unchanged.
    """
    in_place = replacing_folder if form.is_folder else replacing
    with exact_products(), WriterLock(out), in_place(out) as temporary:
        try:
            with stderr_unseen(), warnings_unseen(), logs_unseen():  # which converters have a lot for
                expected = probabilities_of(model, rows)
                form.write(temporary, model, attributes)
                found = form.predict(temporary, rows)
        except BottleneckError:
            raise
        except Exception as error:  # whatever a converter stumbles over
            if lacking := _lacking(error, out, temporary):
                raise lacking from error
            if isinstance(error, OSError):
                raise
            reason = next(iter(_OF_A_FUNCTION.sub("", str(error)).strip().splitlines()), type(error).__name__)
            raise BottleneckError(f"{out}: cannot be written as {form.title}: {abridged(reason, 200)}") from error
        return _difference(out, expected, found)


def _lacking(error: Exception, out: Path, temporary: Path) -> BottleneckError | None:
    """What there is no room in, which may be the folder of temporary files: a converter takes a detour through it."""
    if isinstance(error, OSError) and (lacking := no_temporary_folder(error)):
        return lacking
    said, number = str(error), getattr(error, "errno", None)
    full = next((one for one in DISK_FULL if one == number or os.strerror(one) in said), None)
    if full is None:  # TensorFlow's own kinds of error have no number
        return None
    detour = gettempdir() in said and str(temporary) not in said
    return disk_error(Path(gettempdir()) if detour else out, OSError(full, os.strerror(full)))


def _difference(out: Path, expected: Probabilities, found: Probabilities) -> float:
    same = expected.shape == found.shape
    difference = float(np.abs(expected - found).max()) if same else float("nan")
    if not difference <= TOLERANCE:  # NaN is none
        apart = f"{difference:.2g} apart, {TOLERANCE:g} is allowed" if same else f"{found.shape}, not {expected.shape}"
        raise BottleneckError(
            f"{out}: what was written does not give the model's probabilities (up to {apart}); nothing was kept of it"
        )
    return difference


def _other_than_model(path: Path) -> str:
    """What a file is that none of the formats would write; '' for a model's, and for an empty one."""
    if not path.is_file():
        return "no regular file"
    with reading(path, _NEW_FILE), path.open("rb") as raw:
        start = raw.read(8)
    if not start or start[4:] == _TFLITE or (path.suffix == ".onnx" and start.startswith(_ONNX)):
        return ""
    if is_keras_archive(path, _NEW_FILE):
        with opened_archive(path, _NEW_FILE):
            return ""
    with opened(path, _NEW_FILE) as file:
        return what_is_no_model(file)


def _kind(form: Format) -> str:
    return "folder" if form.is_folder else "file"
