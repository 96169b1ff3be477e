"""All that is used of Keras beyond its public API; ``tests/heads/model/test_keras_internals.py`` watches it.

Of the rest of the project nothing imports ``keras.src`` or overrides a name of Keras that begins with an underscore,
but for ``features.runtime.keras_settings``, which is there before Keras is. Names of its modules stand in
``features.extraction`` as well: those that files of networks have (``network.py``), and those whose source is read
without starting it (``applications.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import keras
from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5
from keras.src.utils import module_utils

from features.runtime.unseen import Together


def write_model(model: Any, file: h5py.File) -> None:
    """Writes an uncompiled model into an open HDF5 file as ``model.save("x.hdf5")`` does.

    ``model.save`` takes only names of files, and on a full disk HDF5 crashes the process (a fault in H5Fflush): a file
    must be made in memory. Keras has no public function for that.
    """
    with without_tensorflow():
        save_model_to_hdf5(model, file, include_optimizer=False)


def architecture(model: Any) -> str:
    """Returns a model without its weights as JSON, as ``heads.files.plain_layers.parse_model`` reads it."""
    with without_tensorflow():
        return str(model.to_json())


@contextmanager
def _without_tensorflow() -> Iterator[None]:
    theirs = module_utils.tensorflow
    if "tensorflow" in sys.modules:
        yield
        return
    before = theirs._available
    theirs._available = False
    try:
        yield
    finally:
        theirs._available = before


without_tensorflow = Together(_without_tensorflow)
"""Within it Keras on another backend does not import TensorFlow to ask whether something is TensorFlow's.

That takes seconds and, in the midst of a search, hundreds of megabytes that its bank was not planned with. Nothing can
be TensorFlow's in a process that has not imported it.
"""


class _OneReplica:
    """An optimizer without the sum of the gradients over replicas, of which there is one.

    For that sum TensorFlow registers a gradient in every trace and never forgets it, nor the graph that it belongs to:
    5 to 13 MB for every head of a study. Other backends have no such method.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
        return grads_and_vars


class OneReplicaAdam(_OneReplica, keras.optimizers.Adam):  # type: ignore[misc]
    """Keras' Adam on one replica."""


class OneReplicaSGD(_OneReplica, keras.optimizers.SGD):  # type: ignore[misc]
    """Keras' SGD on one replica."""
