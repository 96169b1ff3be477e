"""Images to bottlenecks: order, views, what cannot be decoded, and how far decoding runs ahead."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest
from made_backbone import Places
from PIL import Image

from features.extraction.pipeline import BATCHES_AHEAD, bottlenecks
from features.images.views import parse_views
from features.runtime.errors import BottleneckError

SIDE = 8


def png(value: int) -> bytes:
    pixels = np.full((SIDE, SIDE, 3), value, np.uint8)
    pixels[:, : SIDE // 2, 0] += 1  # so that a flip can be told
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def halves(factor: float = 1.0) -> Places:
    """Stands for a backbone: features are the means of the image's halves, so that a test can tell what was shown."""
    return Places(1, 2, size=SIDE, factor=factor)


def run(sources, *, batches, views="identity", dtype="float32", backbone=None, batch_size=4):
    made = bottlenecks(
        sources, backbone or halves(), parse_views(views), batches=batches, batch_size=batch_size, dtype=dtype
    )
    return list(made)


def test_batches_come_in_order_with_every_view_in_its_place():
    backbone = halves()
    made = run(
        [png(value) for value in range(0, 100, 10)],
        batches=[range(4), range(4, 8), range(8, 10)],
        views="identity,flip",
        dtype="float16",
        backbone=backbone,
    )
    assert [[*batch.indices] for batch in made] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    features = np.concatenate([batch.features for batch in made])
    assert features.shape == (10, 2, 1, 2, 3)
    assert features.dtype == np.float16
    values = np.arange(0, 100, 10)
    assert np.array_equal(features[:, 0, 0, :, 0], np.stack([values + 1, values], axis=1))
    assert np.array_equal(features[:, 1, 0, :, 0], np.stack([values, values + 1], axis=1))
    assert backbone.shapes == [(4, SIDE, SIDE, 3)] * 6  # one shape, also for the short batch


def test_what_cannot_be_decoded_is_zero_with_its_reason_and_the_rest_is_not_moved():
    sources = [png(10), b"nothing", png(30), b"", b"", b"", png(60)]
    first, second, third = run(sources, batches=[range(3), range(3, 6), range(6, 7)], backbone=(backbone := halves()))
    assert first.reasons == {1: "not an image that Pillow reads"}
    assert first.features[:, 0, 0, 1, 0].tolist() == [10, 0, 30]
    assert second.reasons == dict.fromkeys((3, 4, 5), "an empty file")
    assert not second.features.any()
    assert third.features[0, 0, 0, 1, 0] == 60
    assert len(backbone.shapes) == 2  # nothing is computed for a batch without an image


def test_no_batches_are_no_work():
    assert run([png(1)], batches=[], backbone=(backbone := halves())) == []
    assert not backbone.shapes


@pytest.mark.parametrize(
    ("factor", "dtype", "message"),
    [
        (1000.0, "float16", "of 1.01e+05 does not fit float16"),
        (-1000.0, "float16", "does not fit float16"),
        (np.nan, "float32", "not finite"),
        (np.inf, "float16", "not finite"),
    ],
)
def test_features_that_do_not_fit_name_the_image(factor, dtype, message, tmp_path):
    paths = [tmp_path / f"{value}.png" for value in (1, 2, 100)]
    for path, value in zip(paths, (1, 2, 100), strict=True):
        path.write_bytes(png(value))
    with pytest.raises(BottleneckError) as caught:
        run(paths, batches=[range(3)], dtype=dtype, backbone=halves(factor))
    assert message in str(caught.value)
    assert str(paths[2] if np.isfinite(factor) else paths[0]) in str(caught.value)


def test_float32_keeps_what_float16_cannot():
    (made,) = run([png(100)], batches=[range(1)], backbone=halves(1000.0))
    assert made.features[0, 0, 0, 1, 0] == 100_000


class Watched(Sequence):
    """Sources that remember how far they were read."""

    def __init__(self, count: int) -> None:
        self.content, self.count, self.furthest = png(5), count, -1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):
        self.furthest = max(self.furthest, index)
        return self.content


def test_decoding_runs_a_bounded_number_of_batches_ahead_and_stops_with_the_reader():
    sources = Watched(400)
    batches = [range(start, start + 4) for start in range(0, 400, 4)]
    made = bottlenecks(sources, halves(), parse_views("identity"), batches=batches, batch_size=4, dtype="float32")
    with closing(made):
        for number in range(3):
            next(made)
            time.sleep(0.05)  # time enough to read everything, were it not bounded
            assert (number + 1) * 4 < sources.furthest + 1 <= (number + BATCHES_AHEAD) * 4
    assert sources.furthest < 400
    with pytest.raises(StopIteration):
        next(made)
