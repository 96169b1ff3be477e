"""A head and a store whose classes are written with other characters fit where they are the same names."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import build_store

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.evaluation.rows import fitted
from heads.files.metadata import HeadMetadata


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_two_spellings_of_the_classes_fit(tmp_path, form):
    classes = tuple(unicodedata.normalize(form, name) for name in ("Mélanome", "Névus"))
    store = FeatureStore(build_store(tmp_path / "s.h5", rows=12, classes=classes))
    for other in ("NFC", "NFD"):
        names = tuple(unicodedata.normalize(other, name) for name in classes)
        metadata = replace(HeadMetadata.of_store(store.header, store.fingerprint, versions={}), classes=names)
        fitted(Path("head.hdf5"), metadata, store)
        with pytest.raises(InputError, match="classes: expected none but those of"):
            fitted(Path("head.hdf5"), replace(metadata, classes=(names[0], "Nevus")), store)
