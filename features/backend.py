"""Which Keras backend a process uses: chosen once, before the first ``import keras``."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from features.errors import InputError

BACKENDS = ("tensorflow", "jax")


def use_backend(name: str | None = None) -> str:
    """Sets the Keras backend of this process and quietens TensorFlow's start-up log.

    Args:
        name: ``tensorflow``, ``jax``, or ``None`` for: the environment's ``KERAS_BACKEND``, else TensorFlow
            where it is installed, else JAX.

    Returns:
        The name of the backend in force.

    Raises:
        InputError: The backend is unknown, is not installed, or Keras was imported with another one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = name or os.environ.get("KERAS_BACKEND")
    chosen = given or next((b for b in BACKENDS if find_spec(b)), BACKENDS[0])
    if chosen not in BACKENDS:
        raise InputError("--backend", expected=" or ".join(BACKENDS), found=chosen)
    if not find_spec(chosen):
        raise InputError("--backend", expected=f"{chosen} to be installed", found="no such package")
    if "keras" in sys.modules:
        import keras  # noqa: PLC0415  importing it before the choice would make the choice

        if keras.backend.backend() != chosen:
            raise InputError("--backend", expected=f"{keras.backend.backend()}, already in use", found=chosen)
    os.environ["KERAS_BACKEND"] = chosen
    return chosen
