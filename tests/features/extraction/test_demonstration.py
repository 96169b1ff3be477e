"""The built-in demonstration: the same for a seed, four classes of patients, learnable and not trivial."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.extraction.demonstration import DISEASES, IMAGES_PER_PATIENT, draw_scans, make_demonstration, make_scans
from features.images.folder import scan_folder
from features.runtime.errors import InputError
from features.store.reader import FeatureStore


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_seed_decides_every_byte_of_every_scan(tmp_path):
    make_scans(tmp_path / "a", seed=3, per_class=4, size=48)
    make_scans(tmp_path / "b", seed=3, per_class=4, size=48)
    make_scans(tmp_path / "c", seed=4, per_class=4, size=48)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_more_scans_do_not_change_the_first_ones():
    few = dict(draw_scans(seed=0, per_class=2, size=32))
    many = dict(draw_scans(seed=0, per_class=6, size=32))
    assert all(np.array_equal(many[name], few[name]) for name in few)


def test_the_folder_is_an_image_folder_of_four_classes_with_several_scans_a_patient(tmp_path):
    make_scans(tmp_path / "scans", seed=0, per_class=3 * IMAGES_PER_PATIENT, size=48)
    table = scan_folder(tmp_path / "scans")
    assert table.classes == tuple(DISEASES) == ("CNV", "DME", "DRUSEN", "NORMAL")
    assert {table.labels.count(label) for label in range(len(table.classes))} == {3 * IMAGES_PER_PATIENT}
    assert table.remarks == ()
    assert sorted(table.patients.count(patient) for patient in set(table.patients)) == [IMAGES_PER_PATIENT] * 12
    with Image.open(tmp_path / "scans" / table.paths[0]) as scan:
        assert (scan.size, scan.mode) == ((48, 48), "L")
    assert not [path.name for path in tmp_path.iterdir() if path.name != "scans"]


def test_scans_of_one_patient_are_more_alike_than_those_of_two(tmp_path):
    scans = {}
    for name, picture in draw_scans(seed=1, per_class=6 * IMAGES_PER_PATIENT, size=64):
        scans.setdefault((name.split("/")[0], name.split("-")[1]), []).append(picture.astype(float))
    within = [np.abs(two[0] - two[1]).mean() for two in scans.values()]
    firsts = {who: two[0] for who, two in scans.items()}
    between = [np.abs(firsts[a] - firsts[b]).mean() for a in firsts for b in firsts if a < b and a[0] == b[0]]
    assert min(within) > 0
    assert np.mean(within) < 0.9 * np.mean(between)


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    make_scans(tmp_path / "scans", seed=0, per_class=2, size=32)
    before = contents(tmp_path)
    make_scans(tmp_path / "scans", seed=0, per_class=2, size=32)
    with pytest.raises(InputError, match="seed: expected 1, found 0"):
        make_scans(tmp_path / "scans", seed=1, per_class=2, size=32)
    assert contents(tmp_path) == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine: expected no such folder"):
        make_scans(tmp_path / "mine", seed=0, per_class=2, size=32)


def test_interrupted_scans_leave_nothing_behind_and_are_made_anew(tmp_path, monkeypatch):
    calls = []

    def interrupt(picture):
        calls.append(picture)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(picture)

    real = Image.fromarray
    monkeypatch.setattr(Image, "fromarray", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_scans(tmp_path / "scans", seed=0, per_class=2, size=32)
    assert not list(tmp_path.iterdir())
    make_scans(tmp_path / "scans", seed=0, per_class=2, size=32)
    assert len(scan_folder(tmp_path / "scans")) == 8


@pytest.mark.slow
def test_the_store_is_learnable_across_patients_and_is_reused(tmp_path):
    reports = []
    path = make_demonstration(tmp_path, seed=0, per_class=40, on_progress=lambda *counts: reports.append(counts))
    assert reports[-1] == (160, 160)
    store = FeatureStore(path)
    store.require_complete()
    assert store.features.shape == (160, 1, 3, 3, 1024)
    pooled = store.features[:, 0].astype(np.float32).mean(axis=(1, 2))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    scores = cross_val_score(model, pooled, store.labels, groups=store.patients, cv=folds)
    assert 0.5 < scores.mean() < 0.97, scores  # chance is 0.25

    before, modified = path.read_bytes(), path.stat().st_mtime_ns
    reports.clear()
    assert (
        make_demonstration(tmp_path, seed=0, per_class=40, on_progress=lambda *counts: reports.append(counts)) == path
    )
    assert not reports
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, modified)
