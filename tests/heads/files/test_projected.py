"""Heads between all channels and those of a compressed store: the same predictions, both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import CLASSES, build_header
from hypothesis import given, settings
from hypothesis import strategies as st

from features.runtime.errors import InputError
from features.store.projection import Projection
from features.store.schema import StoreHeader
from heads.files.ensemble import build_ensemble, join_heads
from heads.files.head_file import Head, read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.files.projected import folded_back, for_features_of
from heads.model.build import build_head
from heads.model.spec import HeadSpec

WHERE = Path("head.hdf5")
SPECS = st.builds(
    HeadSpec,
    conv_width=st.sampled_from([16, 32]),
    batch_norm=st.booleans(),
    activation=st.sampled_from(["relu", "gelu", "silu"]),
    pooling=st.sampled_from(["flatten", "average", "max"]),
    dense_layers=st.integers(0, 2),
)


def basis(channels: int, kept: int, seed: int = 0) -> Projection:
    drawn = np.random.default_rng(seed).normal(size=(channels, channels))
    return Projection(np.linalg.qr(drawn)[0][:, :kept].astype(np.float32), "ab" * 32)


def trained(spec: HeadSpec, kept: int, seed: int = 0) -> keras.Model:
    """A head on few channels, its moving statistics and biases not those that it begins with."""
    model = build_head(spec, (2, 3, kept), len(CLASSES), seed=seed)
    generator = np.random.default_rng(seed)
    weights = [array + generator.uniform(0.01, 0.2, array.shape).astype(np.float32) for array in model.get_weights()]
    model.set_weights(weights)
    return model


def folded(model: keras.Model, spec: HeadSpec, projection: Projection) -> keras.Model:
    whole = build_head(spec, (2, 3, projection.channels), len(CLASSES))
    whole.set_weights(folded_back(model.get_weights(), projection))
    return whole


def header_of(projection: Projection) -> StoreHeader:
    return replace(build_header(shape=(2, 3, projection.kept)), projection=projection)


def predictions(model: keras.Model, features: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(features)))


@settings(max_examples=12)
@given(spec=SPECS, kept=st.sampled_from([1, 5, 9]), seed=st.integers(0, 99))
def test_a_folded_head_predicts_on_all_channels_what_it_did_on_few(spec, kept, seed):
    projection = basis(9, kept, seed)
    features = np.random.default_rng(seed).uniform(0, 3, (4, 2, 3, 9)).astype(np.float32)
    few = projection.apply(features, "float32", WHERE)
    model = trained(spec, kept, seed)
    whole = folded(model, spec, projection)
    np.testing.assert_allclose(predictions(whole, features), predictions(model, few), atol=1e-5)
    again = for_features_of(WHERE, whole, header_of(projection))
    np.testing.assert_allclose(predictions(again, few), predictions(model, few), atol=1e-5)
    assert not again.compiled


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_head_of_all_channels_loses_nothing_where_the_maps_have_no_more_directions(batch_norm):
    projection, spec = basis(9, 4), HeadSpec(conv_width=16, batch_norm=batch_norm)
    few = np.random.default_rng(1).normal(size=(5, 2, 3, 4)).astype(np.float32)
    features = few @ projection.basis.T  # of rank 4
    model = trained(spec, 9)
    small = for_features_of(WHERE, model, header_of(projection))
    np.testing.assert_allclose(predictions(small, few), predictions(model, features), atol=1e-5)


def test_ensembles_are_projected_member_by_member():
    projection = basis(9, 5)
    specs = [HeadSpec(conv_width=16), HeadSpec(conv_width=32, batch_norm=False, pooling="average", dense_layers=1)]
    models = [trained(spec, 5, seed) for seed, spec in enumerate(specs)]
    whole = build_ensemble([folded(model, spec, projection) for model, spec in zip(models, specs, strict=True)])
    few = np.random.default_rng(0).normal(size=(3, 2, 3, 5)).astype(np.float32)
    small = for_features_of(WHERE, whole, header_of(projection))
    expected = np.mean([predictions(model, few) for model in models], axis=0)
    np.testing.assert_allclose(predictions(small, few), expected, atol=1e-5)


def test_a_source_of_all_channels_takes_the_very_model():
    model = trained(HeadSpec(conv_width=16), 8)
    assert for_features_of(WHERE, model, build_header(shape=(2, 3, 8))) is model
    weights = model.get_weights()
    assert folded_back(weights, None) is weights


def test_a_head_that_begins_otherwise_is_refused():
    layers = keras.layers
    inputs = keras.Input((2, 3, 9))
    outputs = layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(InputError, match="expected a 1x1 convolution first, found GlobalAveragePooling2D"):
        for_features_of(WHERE, keras.Model(inputs, outputs), header_of(basis(9, 5)))


def test_metadata_are_those_of_the_source_and_say_which_directions(tmp_path):
    projection, spec = basis(9, 5), HeadSpec(conv_width=16)
    header = header_of(projection)
    metadata = HeadMetadata.of_store(header, header.fingerprint, spec=spec, versions={})
    assert (metadata.feature_shape, metadata.store_fingerprint) == ((2, 3, 9), "ab" * 32)
    assert metadata.projection == projection.digest
    model = folded(trained(spec, 5), spec, projection)
    save_head(tmp_path / "head.hdf5", model, metadata)
    assert read_head(tmp_path / "head.hdf5").metadata == metadata
    other = HeadMetadata.of_store(header.of_backbone, "ab" * 32, spec=spec, versions={})
    assert (other.feature_shape, other.projection) == ((2, 3, 9), "")
    assert join_heads([Head(model, metadata), Head(model, metadata)]).metadata.projection == projection.digest
    assert join_heads([Head(model, metadata), Head(model, other)]).metadata.projection == ""
