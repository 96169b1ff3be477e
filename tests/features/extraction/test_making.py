"""Features of an extraction made by others: in whatever order, written by them or sent, the bytes are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_backbone import MadeBackbone
from made_pictures import KINDS, draw

from features.extraction.extraction import extract_store
from features.extraction.making import MakerHere
from features.extraction.options import ExtractionOptions
from features.runtime.errors import BottleneckError
from features.store.reader import FeatureStore

OPTIONS = ExtractionOptions(backbone="mobilenet", alpha=0.25, weights="random", image_size=32, batch_size=4)


class Backwards(MakerHere):
    """Begins with the last batch, and writes the features of every second one itself."""

    def make(self, work):
        (store,) = work.stores
        with store.writer.features_place.opened() as beside:
            for number, batch in enumerate(super().make(replace(work, batches=work.batches[::-1]))):
                if number % 2:
                    yield batch
                else:
                    beside.write(batch.indices, batch.features)
                    yield batch.written()


@pytest.fixture
def images(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for kind in KINDS:
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(6):
            draw(kind, generator).save(tmp_path / "images" / kind / f"{kind}-{number}-1.png")
    (tmp_path / "images" / "dark" / "dark-9-1.png").write_bytes(b"nothing")
    return tmp_path / "images"


def test_order_and_hand_do_not_matter(images, tmp_path):
    here = extract_store(images, tmp_path / "here.h5", OPTIONS, build=lambda specs: MakerHere([MadeBackbone()]))
    there = extract_store(images, tmp_path / "there.h5", OPTIONS, build=lambda specs: Backwards([MadeBackbone()]))
    assert (tmp_path / "here.h5").read_bytes() == (tmp_path / "there.h5").read_bytes()
    assert here.skipped == there.skipped == {"dark/dark-9-1.png": "not an image that Pillow reads"}
    assert there.settled == 19


def test_strict_is_strict_about_what_others_have_written(images, tmp_path):
    strict = OPTIONS.model_copy(update={"strict": True})
    with pytest.raises(BottleneckError, match=r"dark-9-1\.png: not an image that Pillow reads; without --strict"):
        extract_store(images, tmp_path / "s.h5", strict, build=lambda specs: Backwards([MadeBackbone()]))
    assert [*np.flatnonzero(FeatureStore(tmp_path / "s.h5").done)] == [16, 17, 18]  # the batch that came before it
