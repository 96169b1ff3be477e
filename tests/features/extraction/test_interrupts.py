"""An extraction stops at Ctrl-C where TensorFlow swallows it, and where its images are gone; and goes on after it."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from made_backbone import SMALL, MadeBackbone
from made_images import noise, put_image

from features import extract
from features.extraction import extraction
from features.runtime.errors import BottleneckError, InputError
from features.store.reader import FeatureStore

ROWS = 24
OPTIONS = SMALL | {"views": "identity"}


class Deaf(MadeBackbone):
    """Stands for a backbone: an interrupt comes in its third batch and gets lost."""

    def __init__(self, *, interrupted: bool) -> None:
        super().__init__()
        self.left = 3 if interrupted else 0

    def features(self, images):
        self.left -= 1
        if self.left == 0:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return super().features(images)


@pytest.fixture
def images(tmp_path) -> Path:
    for row in range(ROWS):
        put_image(tmp_path / "images" / "AB"[row % 2] / f"{row}.png", noise(row, 32, 32))
    return tmp_path / "images"


def test_an_interrupt_that_got_lost_is_heeded_after_the_batch(images, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(extraction, "build_backbone", lambda spec: Deaf(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        extract(images, tmp_path / "stopped.h5", **OPTIONS, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert 0 < np.count_nonzero(FeatureStore(tmp_path / "stopped.h5").done) < ROWS
    monkeypatch.setattr(extraction, "build_backbone", lambda spec: Deaf(interrupted=False))
    with monkeypatch.context() as patched, pytest.raises(InputError, match=r"on which .*stopped\.h5 was begun"):
        other = "jax" if "tensorflow" in extraction.versions_here() else "tensorflow"
        patched.setattr(extraction, "versions_here", lambda: {other: "0"})
        extract(images, tmp_path / "stopped.h5", **OPTIONS, progress=False)
    for name in ("stopped", "whole"):
        extract(images, tmp_path / f"{name}.h5", **OPTIONS, progress=False)
    assert (tmp_path / "stopped.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_disk_that_drops_out_stops_it_and_once_back_it_goes_on(images, tmp_path, monkeypatch):
    class Unplugged(MadeBackbone):
        def features(self, shown):
            if images.is_dir():
                images.rename(tmp_path / "elsewhere")
            return super().features(shown)

    monkeypatch.setattr(extraction, "build_backbone", lambda spec: Unplugged())
    monkeypatch.setattr("features.extraction.pipeline.BATCHES_AHEAD", 1)
    with pytest.raises(BottleneckError, match=r"images/A: the folder is gone; run the same command again once it is"):
        extract(images, tmp_path / "stopped.h5", **OPTIONS, progress=False)
    (tmp_path / "elsewhere").rename(images)
    monkeypatch.setattr(extraction, "build_backbone", lambda spec: MadeBackbone())
    for name in ("stopped", "whole"):
        extract(images, tmp_path / f"{name}.h5", **OPTIONS, progress=False)
    assert (tmp_path / "stopped.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
