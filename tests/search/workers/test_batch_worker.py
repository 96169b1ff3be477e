"""A worker by itself, without Ray."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_pictures import KINDS, draw

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.pipeline import EMPTY
from features.images.reading import Reading
from features.images.views import parse_views
from features.runtime.errors import InputError
from features.store.feature_writer import FeaturesPlace
from search.workers.batch_worker import BatchWorker, Job, Part, Setting

SPEC = BackboneSpec(name="mobilenet", alpha=0.25, weights="random:7", image_size=32)


@pytest.fixture(scope="module")
def worker() -> BatchWorker:
    made = BatchWorker()
    host, built = made.start(Setting(SPEC, "tensorflow", None))
    assert host
    assert built.feature_shape == (1, 1, 256)
    assert set(built.versions) == {"h5py", "keras", "numpy", "pillow", "tensorflow"}
    return made


@pytest.fixture
def job(tmp_path) -> Job:
    generator = np.random.default_rng(0)
    for kind in KINDS:
        draw(kind, generator).save(tmp_path / f"{kind}.png")
    place = FeaturesPlace(tmp_path / "absent.h5", 0, 0, 0, (1, 1, 1, 256), "float16")
    return Job(tmp_path, parse_views("identity"), Reading(), 4, place)


def test_features_come_along_where_the_store_is_not_seen(worker, job):
    paths = {5: "bright.png", 6: "dark.png", 9: "gone.png", 11: "striped.png"}
    part = Part([[EMPTY, 5, 6, EMPTY], [9, EMPTY, EMPTY, 11]], paths)
    (first, _), (second, _) = worker.make(job, part)
    assert ([*first.indices], [*second.indices]) == ([5, 6], [9, 11])
    assert first.features.shape == (2, 1, 1, 1, 256)
    assert first.features.any(axis=(1, 2, 3, 4)).all()
    assert [*second.reasons] == [9]
    assert not second.features[0].any()
    assert first.contents.any(axis=1).all()


def test_images_that_are_not_on_this_machine_are_refused_and_not_skipped(worker, job):
    elsewhere = replace(job, folder=job.folder / "not mounted")
    with pytest.raises(InputError, match=r"bright\.png: expected the image folder on every machine"):
        next(iter(worker.make(elsewhere, Part([[0]], {0: "bright.png"}))))


def test_a_setting_names_files_by_paths_that_hold_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.weights.h5").touch()
    setting = Setting.of(replace(SPEC, weights="own.weights.h5"))
    assert setting.spec.weights == str(tmp_path / "own.weights.h5")
    assert setting.spec.weights_name == "own.weights.h5"
    Path("imagenet").touch()
    for named in (SPEC, replace(SPEC, weights="imagenet")):
        assert Setting.of(named).spec == named
    assert Setting.of(SPEC).threads == os.environ.get("OMP_NUM_THREADS")
