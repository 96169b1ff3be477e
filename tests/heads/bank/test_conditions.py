"""What a compiler makes of a choice between functions: a condition that runs one of them, not a selection from all."""

import keras
import numpy as np
import pytest
from keras import ops

from heads.bank.functions import activations, choose, unsealed

NAMES = ("gelu", "relu", "silu")
VALUES = np.linspace(-3, 3, 16 * 200, dtype=np.float32).reshape(16, 200)


def optimised(seal) -> str:
    """The program that XLA runs for one page after the other, each with its own code."""
    import tensorflow as tf

    def run(codes, values):
        def body(number, found):
            return found + choose(activations(NAMES), ops.take(codes, number), values, seal=seal)

        return ops.fori_loop(0, ops.shape(codes)[0], body, ops.zeros(VALUES.shape))

    compiled = tf.function(run, jit_compile=True, autograph=False)
    codes = tf.constant([0, 1, 2, 2, 1])
    one = sum(np.asarray(function(ops.convert_to_tensor(VALUES))) for function in activations(NAMES))
    two = sum(np.asarray(function(ops.convert_to_tensor(VALUES))) for function in activations(NAMES)[1:])
    np.testing.assert_allclose(np.asarray(compiled(codes, VALUES)), one + two, rtol=1e-5, atol=1e-6)
    return compiled.experimental_get_compiler_ir(codes, VALUES)(stage="optimized_hlo")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="looks at what TensorFlow has XLA compile")
def test_a_sealed_condition_stays_one():
    from heads.bank.on_tensorflow import _Tools

    sealed = _Tools(compiled=True).seal
    assert optimised(sealed).count(" conditional(") == len(NAMES) - 1
    assert " conditional(" not in optimised(unsealed), "XLA keeps conditions by itself: seals may go"
