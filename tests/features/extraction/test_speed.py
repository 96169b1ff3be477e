"""What a backbone costs: which network it is follows from what is recorded, and nothing is downloaded to time it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_networks import SIZE, flat

from features.extraction import speed
from features.extraction.backbone_spec import BackboneSpec
from features.extraction.network_file import read_network
from features.extraction.speed import milliseconds_per_image, spec_of
from features.store.kind import FeatureKind

MOBILENET = FeatureKind(
    feature_shape=(1, 1, 256),
    backbone="mobilenet",
    alpha=0.25,
    weights="somebodys.h5",
    weights_sha256="ab" * 32,
    image_size=32,
    preprocessing="backbone",
)
HERE = Path("store.h5")


def test_a_named_backbone_is_timed_without_its_weights():
    spec = spec_of(MOBILENET, beside=HERE)
    assert (spec.name, spec.alpha, spec.size, spec.weights) == ("mobilenet", 0.25, 32, "random")
    assert 0 < milliseconds_per_image(spec) < 1e4


@pytest.mark.parametrize("unknown", [{"backbone": "unknown"}, {"image_size": 0}, {"backbone": "mine"}, {"alpha": 9.0}])
def test_what_is_not_known_is_no_backbone(unknown):
    assert spec_of(replace(MOBILENET, **unknown), beside=HERE) is None


def test_a_file_is_found_where_it_is_the_one_that_was_recorded(tmp_path):
    path = tmp_path / "net.keras"
    flat().save(path)
    kind = FeatureKind(
        feature_shape=(3, 3, 8), backbone="net.keras", image_size=SIZE, preprocessing="unit", layer="first"
    )
    known = replace(kind, backbone_sha256=read_network(path).sha256)
    spec = spec_of(known, beside=tmp_path / "store.h5")
    assert (spec.name, spec.layer, spec.preprocessing) == (str(path), "first", "unit")
    assert milliseconds_per_image(spec) > 0
    assert spec_of(replace(kind, backbone_sha256="cd" * 32), beside=tmp_path / "store.h5") is None
    assert spec_of(known, beside=HERE) is None
    path.write_bytes(b"damaged")
    assert spec_of(known, beside=tmp_path / "store.h5") is None


def test_what_cannot_be_built_costs_nothing_that_is_known(tmp_path):
    path = tmp_path / "net.keras"
    flat().save(path)
    assert milliseconds_per_image(BackboneSpec(name=str(path), layer="none such", preprocessing="unit")) is None


def test_few_images_go_through_at_once_where_they_are_large(monkeypatch):
    batches = []

    class Counting:
        image_size = 512

        def features(self, images):
            batches.append(images.shape)

    monkeypatch.setattr(speed, "build_untrained", lambda spec: Counting())
    assert milliseconds_per_image(BackboneSpec(name="mobilenet", weights="random")) >= 0
    assert batches == [(2, 512, 512, 3)] * (1 + speed.RUNS)


def test_a_backbones_time_is_that_of_one_image_in_milliseconds(monkeypatch):
    now, seconds = [0.0], iter([9.0, 0.5, 0.25, 0.75, 0.5, 0.5])

    class Slow:
        image_size = 512

        def features(self, images):
            now[0] += next(seconds)

    monkeypatch.setattr(speed, "build_untrained", lambda spec: Slow())
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert milliseconds_per_image(BackboneSpec(name="mobilenet", weights="random")) == 250 / 2  # of two at once
