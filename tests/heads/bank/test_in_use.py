"""Products of the pages in use alone: each page has what it has among all of them."""

import keras
import numpy as np
import pytest

from heads.bank.state import Used

PAGES, CHANNELS, ROWS = 24, 320, 490


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX computes all pages")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_page_has_the_product_that_it_has_among_all(dtype):
    import tensorflow as tf

    from heads.bank.on_tensorflow import _Tools, fast_in_bfloat16

    tools, generator = _Tools(compiled=True, dtype=dtype), np.random.default_rng(0)
    kernels, features = (
        tf.cast(generator.standard_normal(shape).astype(np.float32), dtype)
        for shape in ((PAGES, 16, CHANNELS), (ROWS, CHANNELS))
    )

    def multiply(kernels):
        flat = tf.reshape(kernels, (-1, CHANNELS))
        return tf.reshape(tools.product(flat, features, transpose_b=True), (-1, 16, ROWS))

    @tf.function(autograph=False)
    def products(places, count):
        used = Used(places, tf.argsort(places), count)
        product, twice = tools.in_use(lambda kernels: (multiply(kernels), 2 * kernels), used, range(1, 9), kernels)
        tf.debugging.assert_equal(tf.gather(twice, places[:count]), tf.gather(2 * kernels, places[:count]))
        return tf.cast(product, "float32")

    every = products(tf.range(PAGES), tf.constant(PAGES)).numpy()
    np.testing.assert_allclose(every, tf.cast(multiply(kernels), "float32"), rtol=1e-2, atol=1e-2)
    for count in (1, 2, 5, 8, 11, 19, 23):
        mine = np.sort(generator.permutation(PAGES)[:count])
        others = np.setdiff1d(np.arange(PAGES), mine)
        found = products(tf.constant([*mine, *others], tf.int32), tf.constant(count)).numpy()[mine]
        if dtype == "bfloat16" and fast_in_bfloat16():  # or whole searches would depend on how full the bank is
            np.testing.assert_array_equal(found, every[mine])
        np.testing.assert_allclose(found, every[mine], rtol=1e-2, atol=1e-2 if dtype == "bfloat16" else 1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX computes all pages")
@pytest.mark.parametrize(
    ("whole", "sizes"), [(6, [6]), (15, [15]), (16, [8, 16]), (36, [9, 18, 27, 36]), (64, [*range(8, 65, 8)])]
)
def test_a_small_bank_compiles_few_sizes(whole, sizes):
    from heads.bank.on_tensorflow import _sizes

    assert _sizes(whole, range(1, 9)) == sizes


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's products")
@pytest.mark.parametrize("depth", [40, 56, 320])
def test_a_row_gone_to_nan_spoils_no_other(depth):
    """On processors with AMX oneDNN reads beyond a row's end where its length is no multiple of 32."""
    import tensorflow as tf

    from heads.bank.on_tensorflow import _Tools

    multiply, generator = _Tools(compiled=True, dtype="bfloat16").product, np.random.default_rng(0)
    rows = generator.standard_normal((96, depth)).astype(np.float32)
    others = tf.cast(generator.standard_normal((depth, 64)).astype(np.float32), "bfloat16")
    expected = multiply(tf.cast(rows, "bfloat16"), others)[:48]
    rows[48:] = np.nan
    found = multiply(tf.cast(rows, "bfloat16"), others)
    np.testing.assert_array_equal(tf.cast(found[:48], "float32"), tf.cast(expected, "float32"))
    assert np.isnan(tf.cast(found[48:], "float32")).all()
