"""A compressed store of real scans: what it holds, and that copies among them are still found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import features
from features.leaks.leaks import Part, find_leaks


@pytest.mark.slow
def test_real_scans_keep_their_squares_and_their_copies_are_found(oct_folder: Path, weights_folder: Path, tmp_path):
    copies = set()
    for folder in sorted(path for path in oct_folder.iterdir() if path.is_dir()):
        (tmp_path / "scans" / folder.name).mkdir(parents=True)
        for number, path in enumerate(sorted(folder.glob("*.jpeg"))[:24]):
            name = f"{folder.name}-{folder.name}{number}-1.jpeg"
            (tmp_path / "scans" / folder.name / name).symlink_to(path.resolve())
            if number < 2:  # saved again, under another patient's name
                again = f"{folder.name}-{folder.name}{number + 900}-1.jpeg"
                Image.open(path).save(tmp_path / "scans" / folder.name / again, quality=70)
                copies.add(frozenset({f"{folder.name}/{name}", f"{folder.name}/{again}"}))
    weights = weights_folder / "mobilenet_0.25_224_notop.h5"
    options = {"backbone": "mobilenet", "alpha": 0.25, "weights": weights, "progress": False}
    source = features.extract(tmp_path / "scans", tmp_path / "scans.h5", **options)
    small = features.compress(source.path, tmp_path / "small.h5", channels=96, progress=False)
    assert source.header.feature_shape[2] == 256
    shares = [np.square(one.features.astype(np.float64)).sum(axis=(1, 2, 3, 4)) for one in (small, source)]
    assert 0.85 < np.min(shares[0] / shares[1]) < np.mean(shares[0] / shares[1]) < 1.001
    for store in (source, small):
        found = find_leaks([Part("", store, store.usable)], within_parts=True).pairs or ()
        assert copies <= {frozenset({pair.first_path, pair.second_path}) for pair in found}
