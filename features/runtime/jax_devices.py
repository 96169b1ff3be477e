"""What is asked of JAX itself where that is Keras' backend: a device to compute on, and exact products there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

from features.runtime.errors import InputError
from features.runtime.text import abridged, one_line


def require_jax_device() -> None:
    """Lets JAX look for its devices now, where it can be said in one line that there are none.

    Raises:
        InputError: JAX can start none of the devices that it was told of, or that it has packages for.
    """
    import jax

    try:
        jax.default_backend()
    except (AssertionError, RuntimeError) as error:  # the first where a machine has no GPU that CUDA could look for
        asked, reason = jax.config.jax_platforms, abridged(one_line(str(error) or "there is none"), 300)
        expected = "devices that JAX can start here, as cpu is"
        raise InputError("JAX_PLATFORMS", expected=expected, found=asked or "none given", hint=reason) from error


def exact_products() -> AbstractContextManager[Any]:
    """Within it Keras computes without what a GPU may do, which is to round products to 10 bits.

    On a CPU; where JAX was told of other devices alone, by ``JAX_PLATFORMS``, on one of these, in float32.
    """
    import keras

    try:
        return cast(AbstractContextManager[Any], keras.device("cpu:0"))
    except RuntimeError:
        import jax

        return cast(AbstractContextManager[Any], jax.default_matmul_precision("float32"))
