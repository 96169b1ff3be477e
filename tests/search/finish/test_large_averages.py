"""Averages that are too large for the file of a head: they leave with their backbone, or the single winner does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_exports import OF_NOBODY, changed

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import build_backbone
from features.runtime.errors import InputError
from heads.files import graph, plain_layers
from heads.files.ensemble import join_heads
from heads.files.formats import probabilities_of
from heads.files.head_file import read_head, read_layers, save_head
from heads.files.image_model import build_image_model
from heads.files.metadata import HeadMetadata
from heads.model.build import build_head
from heads.model.spec import HeadSpec
from search.finish.export_choice import Leaving, what_leaves
from search.finish.tried import made_images
from search.finish.with_backbone import image_model_of
from search.record.head_files import refit_path_of
from search.record.study_record import read_record
from search.setup.export_options import ExportOptions


def too_large(paths: list[Path], limit: str, monkeypatch) -> int:
    """Makes a limit of head files so low that some heads together are over it, and returns how much they have."""
    members = [read_layers(path) for path in paths]
    with monkeypatch.context() as patched:
        patched.setattr(plain_layers, limit, 0)
        ((*_, whole),) = plain_layers.excesses(members)
    for module in (plain_layers, graph):
        monkeypatch.setattr(module, limit, whole - 1, raising=False)
    return whole


@pytest.mark.parametrize("changes", [{}, OF_NOBODY])
@pytest.mark.parametrize("limit", ["MAX_LAYERS", "MAX_PARAMETERS", "MAX_ELEMENTS"])
def test_they_leave_with_a_known_backbone_only(changes, limit, tmp_path, monkeypatch):
    record = read_record(changed(tmp_path / "study", dict.fromkeys((1, 2), changes)))
    paths = [refit_path_of(record.folder, number) for number in (1, 2)]
    whole = too_large(paths, limit, monkeypatch)
    with pytest.raises(InputError, match="model_config: expected"):
        join_heads([read_head(path) for path in paths])
    leaving = what_leaves(record, ExportOptions())
    assert leaving.paths == paths[:1]
    assert f"but its heads have {whole:,} " in leaving.remark
    assert ("without --with-backbone holds at most" in leaving.remark) == (not changes)
    assert what_leaves(record, ExportOptions(with_backbone=True)).paths == (paths[:1] if changes else paths)


def test_with_the_backbone_they_are_averaged(tmp_path, monkeypatch):
    backbone = build_backbone(BackboneSpec(name="mobilenet", alpha=0.25, weights="random:1", image_size=32))
    told = {"backbone": "mobilenet", "alpha": 0.25, "weights": "random:1", "preprocessing": "backbone"}
    paths, heads = [tmp_path / "0.hdf5", tmp_path / "1.hdf5"], []
    for number, path in enumerate(paths):
        metadata = HeadMetadata(
            classes=("A", "B"), feature_shape=backbone.feature_shape, image_size=32, trial=number, versions={}, **told
        )
        save_head(path, build_head(HeadSpec(conv_width=16), backbone.feature_shape, 2, seed=number), metadata)
        heads.append(read_head(path))
    too_large(paths, "MAX_PARAMETERS", monkeypatch)
    model, metadata = image_model_of(Leaving(paths, 1.5), ExportOptions(with_backbone=True))
    assert (metadata.trials, metadata.temperature) == ((0, 1), 1.5)
    assert sum(layer.name.startswith("backbone_") for layer in model.layers) == 1
    images = made_images(32)
    expected = [probabilities_of(build_image_model(backbone, head), images) for head in heads]
    np.testing.assert_allclose(probabilities_of(model, images), np.mean(expected, axis=0), atol=1e-5)
