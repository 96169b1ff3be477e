"""Keras as it comes: what a user's ``keras.json``, variables or notebook set for other programs decides nothing here.

Keras reads ``keras.json`` of its folder once, while it is imported, and writes one where there is none: with
``channels_first`` a head would be built the wrong way round, with another ``floatx`` or ``epsilon`` the same seed gives
other numbers, and a file that is wrong ends the import. So it is imported from where there is no such file, and what
can be set afterwards is set as the numbers of this project were made with. The folder itself stays Keras' cache for
weights; its name is private to Keras, ``tests/features/runtime/test_keras_settings.py`` watches it.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from tempfile import gettempdir
from typing import Any

import numpy as np

from features.runtime.unseen import Together

_VARIABLES = ("KERAS_NNX_ENABLED", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
"""Variables of the environment that Keras reads beside its folder's: another kind of layers, and limits of ``fit``."""
_STATE = "keras.src.backend.common.global_state"
_COUNT = "object_name_uids"
_DRAWN = ("global_random_seed", "global_seed_generator")
_INITIALIZERS = "keras.src.initializers.random_initializers"
_DRAWS = ("normal", "truncated_normal", "uniform")
_NOWHERE = os.devnull
"""A folder in which nothing is, and nothing can be made."""


@contextmanager
def without_settings() -> Iterator[None]:
    """Within it, the first ``import keras`` finds neither a ``keras.json`` nor variables that set it otherwise."""
    if "keras" in sys.modules:
        yield
        return
    folder = _keras_folder()
    before = {name: os.environ.pop(name, None) for name in ("KERAS_HOME", *_VARIABLES)}
    os.environ["KERAS_HOME"] = _NOWHERE
    try:
        yield
        sys.modules["keras.src.backend.config"]._KERAS_DIR = folder  # type: ignore[attr-defined]  # weights go there
    finally:
        del os.environ["KERAS_HOME"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def pin_settings() -> list[str]:
    """Sets Keras, which has been imported, as this project needs it.

    Returns:
        What had been set otherwise in this process, such as ``floatx float16 instead of float32``.
    """
    import keras

    config = keras.config
    settings = {
        "image_data_format": (config.image_data_format(), "channels_last", config.set_image_data_format),
        "floatx": (config.floatx(), "float32", config.set_floatx),
        "epsilon": (config.epsilon(), 1e-7, config.set_epsilon),
        "dtype_policy": (config.dtype_policy().name, "float32", config.set_dtype_policy),
        "max_epochs": (config.max_epochs(), None, config.set_max_epochs),
        "max_steps_per_epoch": (config.max_steps_per_epoch(), None, config.set_max_steps_per_epoch),
    }
    changed = [(name, found, wanted, put) for name, (found, wanted, put) in settings.items() if found != wanted]
    for _, _, wanted, put in changed:
        put(wanted)
    told = [f"{name} {found} instead of {wanted}" for name, found, wanted, _ in changed]
    if config.backend() == "jax":
        import jax

        if jax.config.jax_enable_x64:  # the same program in float64: other numbers, at half the speed
            jax.config.update("jax_enable_x64", False)
            told.append("jax_enable_x64 True instead of False")
    if config.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.functions_run_eagerly():  # nothing is compiled: other last digits, at a fraction of the speed
            tf.config.run_functions_eagerly(False)
            told.append("run_functions_eagerly True instead of False")
    return told


@contextmanager
def layer_names_from_zero() -> Iterator[None]:
    """Within it, layers without a name get those that they get in a new process: ``conv2d``, ``conv2d_1``.

    Keras counts on from network to network, so a layer of the second one would not be called as it is in the first.
    Where the count is kept is private to Keras; ``tests/features/runtime/test_keras_settings.py`` watches it.
    """
    state = import_module(_STATE)
    before = state.get_global_attribute(_COUNT)
    state.set_global_attribute(_COUNT, defaultdict(int))
    try:
        yield
    finally:
        state.set_global_attribute(_COUNT, before)


@contextmanager
def separate_keras_session() -> Iterator[None]:
    """Within it this thread has a session of Keras' that is new, and after it the one that it had before.

    Keras' state keeps every model of a study alive. ``clear_session`` lets go of them, but also of what is not the
    study's: a notebook's seed, whether Keras shows bars, how far the names of layers have been counted.
    """
    before = dict(_session())
    _session().clear()
    try:
        yield
    finally:
        _session().clear()  # which is another one where somebody's own function has cleared it
        _session().update(before)
        gc.collect()


@contextmanager
def keras_seed_restored() -> Iterator[None]:
    """After it, what Keras draws at random follows from the seed that was set before, if there was one."""
    state = import_module(_STATE)
    before = {name: state.get_global_attribute(name) for name in _DRAWN}
    try:
        yield
    finally:
        for name, value in before.items():
            state.set_global_attribute(name, value)


@contextmanager
def numpy_random_restored() -> Iterator[None]:
    """After it, NumPy draws what it would have drawn: what Keras imports draws from it, or JAX that it finds."""
    before = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(before)


@contextmanager
def _python_random_restored() -> Iterator[None]:
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)


python_random_restored = Together(_python_random_restored)
"""After it, Python's ``random`` draws what it would have drawn: Keras takes the seeds of its layers from there."""


class _Draws:
    """What Keras' initializers draw by, but for a thread that is within ``nothing_drawn``."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def __getattr__(self, name: str) -> Any:
        return _zeros if name in _DRAWS and _undrawn.get() else getattr(self._theirs, name)


_undrawn: ContextVar[bool] = ContextVar("undrawn", default=False)


def _zeros(shape: tuple[int, ...], *_: Any, dtype: str | None = None, **__: Any) -> Any:
    from keras import ops

    return ops.convert_to_tensor(np.zeros(shape, np.float32), dtype)


@contextmanager
def _draws_in_between() -> Iterator[None]:
    initializers: Any = import_module(_INITIALIZERS)
    theirs = initializers.random
    initializers.random = _Draws(theirs)
    try:
        yield
    finally:
        initializers.random = theirs


_draws_held = Together(_draws_in_between)


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Within it layers that this thread makes begin with zeros where Keras would draw, for who brings weights along.

    JAX compiles a program for each shape that it draws: 20 s for InceptionV3, and 1 s for a head. What Keras draws by
    is private to it; ``tests/features/runtime/test_keras_settings.py`` watches it.
    """
    with _draws_held():
        before = _undrawn.set(True)
        try:
            yield
        finally:
            _undrawn.reset(before)


def _session() -> dict[str, Any]:
    """What Keras keeps for this thread; the name is private to it, and watched as the others are."""
    session: dict[str, Any] = vars(import_module(_STATE).GLOBAL_STATE_TRACKER)
    return session


def _keras_folder() -> str:
    """Where Keras keeps weights that it has downloaded: what it would find itself."""
    given = os.environ.get("KERAS_HOME")
    if given is not None:
        return given
    home = os.path.expanduser("~")  # noqa: PTH111  which for who has no home raises nothing
    return os.path.join(home if os.access(home, os.W_OK) else _temporary(), ".keras")  # noqa: PTH118


def _temporary() -> str:
    try:
        return gettempdir()
    except FileNotFoundError:  # nowhere may be written: who does not download needs no folder
        return "/tmp"
