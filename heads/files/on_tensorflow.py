"""The formats that only TensorFlow's own runtimes read: TensorFlow Lite and SavedModel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from features.runtime.unseen import warnings_unseen

BUILT_IN = [tf.lite.OpsSet.TFLITE_BUILTINS]
"""Operators that TensorFlow Lite has everywhere, nothing of TensorFlow's own."""


def run_tflite(path: Path, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Returns the probabilities that a .tflite file gives for rows."""
    with warnings_unseen():  # that a later TensorFlow has its interpreter in a package of its own
        interpreter = tf.lite.Interpreter(model_path=os.fspath(path))
    taken = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(taken, rows.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken, rows)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), np.float32)


def serve_saved_model(path: Path, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Returns the probabilities that a SavedModel gives for rows."""
    loaded = tf.saved_model.load(os.fspath(path))  # its variables live as long as this name
    return np.asarray(loaded.serve(rows), np.float32)
