"""What a compiler makes of the bank's loops: one function of many run, not a selection from all; one place written."""

import keras
import numpy as np
import pytest
from keras import ops

from heads.bank.functions import activations, choose, unsealed
from heads.bank.places import at, bits, kept_as, put

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


def copied(*, by_bits: bool) -> str:
    """The program that XLA runs to double an array in bfloat16 place by place."""
    import tensorflow as tf

    values = tf.cast(np.repeat(VALUES[None], 5, axis=0), "bfloat16")
    kept = kept_as("bfloat16") if by_bits else "bfloat16"

    def run(values):
        array = bits(values) if by_bits else values

        def body(number, found):
            mine = ops.cast(at(array, number, "bfloat16" if by_bits else None), "float32") * 2
            if by_bits:
                return put(found, number, mine, "bfloat16")
            return ops.slice_update(found, (number, 0, 0), ops.cast(mine, "bfloat16")[None])

        found = ops.fori_loop(0, ops.shape(values)[0], body, ops.zeros(values.shape, kept))
        return ops.view(found, "bfloat16") if by_bits else found

    compiled = tf.function(run, jit_compile=True, autograph=False)
    np.testing.assert_array_equal(np.asarray(ops.cast(compiled(values), "float32")), np.asarray(values, np.float32) * 2)
    return compiled.experimental_get_compiler_ir(values)(stage="optimized_hlo")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="looks at what TensorFlow has XLA compile")
def test_a_place_is_written_without_converting_all_others():
    whole = "f32[5,16,200]"
    assert whole not in copied(by_bits=True)
    assert whole in copied(by_bits=False), "XLA moves bfloat16 by itself: bits may go"
