"""Who multiplies float32 faster on this machine, in the shapes of a bank's products: TensorFlow's own or XLA.

    python benchmarks/products.py [--shape 7,7,1280] [--batch 93] [--pages 85] [--tiles 68]

The bank's own choice is in ``heads.bank.on_tensorflow``. Both take turns; printed are the fastest of each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from features.runtime.backend import use_backend

REPETITIONS, TILE_UNITS = 15, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="7,7,1280", help="of a bottleneck")
    parser.add_argument("--batch", type=int, default=93)
    parser.add_argument("--pages", type=int, default=85)
    parser.add_argument("--tiles", type=int, default=68)
    arguments = parser.parse_args()
    use_backend("tensorflow")
    import tensorflow as tf

    from heads.model.spec import PAGE

    height, width, channels = (int(size) for size in arguments.shape.split(","))
    rows, outputs = arguments.batch * height * width, arguments.pages * PAGE
    inputs, batch = PAGE * height * width, arguments.batch
    generator = np.random.default_rng(0)

    def drawn(*size: int) -> Any:
        return tf.constant(generator.standard_normal(size, np.float32))

    features, kernel, error = drawn(rows, channels), drawn(outputs, channels), drawn(outputs, rows)
    tile, active, back = (
        drawn(arguments.tiles, *size) for size in ((inputs, TILE_UNITS), (inputs, batch), (batch, TILE_UNITS))
    )
    products = {
        "first layers, forward": (kernel, features, {"transpose_b": True}),
        "first layers, gradient": (error, features, {}),
        "tiles, forward": (tile, active, {"transpose_a": True}),
        "tiles, weights' gradient": (active, back, {}),
        "tiles, way back": (tile, back, {"transpose_b": True}),
    }
    for name, (a, b, transposed) in products.items():
        told: dict[str, list[float]] = {"TensorFlow": [], "XLA": []}
        functions = {who: compiled(tf, transposed, by_xla=who == "XLA") for who in told}
        for _ in range(REPETITIONS + 1):
            for who, function in functions.items():
                told[who].append(seconds(function, a, b))
        print(f"{name:26}" + "".join(f"{who} {min(times[1:]) * 1e3:8.2f} ms  " for who, times in told.items()))


def compiled(tf: Any, transposed: dict[str, bool], *, by_xla: bool) -> Callable[..., Any]:
    """A product as a graph, by one or the other."""
    product: Callable[..., Any]
    product = tf.function(lambda a, b: tf.matmul(a, b, **transposed), jit_compile=by_xla, autograph=False)
    return product


def seconds(function: Callable[..., Any], a: Any, b: Any) -> float:
    begun = time.perf_counter()
    np.asarray(function(a, b)[..., :1, :1])  # waits for it
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
