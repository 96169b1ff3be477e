"""All that is used of Keras beyond its public API; ``tests/heads/model/test_keras_internals.py`` watches it.

Of the rest of the project nothing imports ``keras.src`` or overrides a name of Keras that begins with an underscore,
but for ``features.runtime.keras_settings``, which is there before Keras is. Names of its modules stand in
``features.extraction`` as well: those that files of networks have (``network.py``), and those whose source is read
without starting it (``applications.py``).
"""

from __future__ import annotations

from typing import Any

import h5py
import keras
from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5


def write_model(model: Any, file: h5py.File) -> None:
    """Writes an uncompiled model into an open HDF5 file as ``model.save("x.hdf5")`` does.

    ``model.save`` takes only names of files, and on a full disk HDF5 crashes the process (a fault in H5Fflush): a file
    must be made in memory. Keras has no public function for that.
    """
    save_model_to_hdf5(model, file, include_optimizer=False)


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
