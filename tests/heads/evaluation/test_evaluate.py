"""``heads.evaluate``: the right rows, the right numbers, and nothing on a store that does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Said, invoke
from commands import run as run_alone
from conftest import CLASSES, build_header, build_store, fill_store

from features.rows.split import split_rows
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from features.store.writer import StoreWriter
from heads.evaluation.rows import Part, fitted, rows_of
from heads.files.ensemble import join_heads
from heads.files.head_file import read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.files.refitted import Refitted
from heads.files.split_recipe import SplitRecipe
from heads.metrics.calibration import with_temperature
from heads.metrics.classification import measure
from heads.model.build import build_head
from heads.model.spec import HeadSpec

SHARES = {"seed": 5, "validation": 0.2, "test": 0.25}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """96 rows of two views, three of them skipped."""
    folder = tmp_path_factory.mktemp("store")
    return FeatureStore(build_store(folder / "store.h5", rows=96, views=("identity", "flip"), skipped=(1, 40, 95)))


def split_of(store: FeatureStore) -> Any:
    return split_rows(store.usable, store.labels, store.patients, **SHARES)


def recipe_of(store: FeatureStore) -> SplitRecipe:
    return SplitRecipe(**SHARES, identity=split_of(store).identity)


@pytest.fixture(scope="module")
def head(store: FeatureStore) -> Path:
    """A head with random weights that says that it was trained on the store."""
    path = store.path.with_name("head.hdf5")
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, split=recipe_of(store), versions={})
    save_head(path, build_head(HeadSpec(conv_width=16), store.header.feature_shape, 4, seed=2), metadata)
    return path


def run(*arguments: object) -> Said:
    return invoke("heads.evaluate", *arguments)


def by_hand(head: Path, store: FeatureStore, rows: np.ndarray) -> dict[str, Any]:
    model = read_head(head).model
    views = [model.predict(store.features[rows, view].astype(np.float32), verbose=0) for view in range(2)]
    patients = store.patients[rows]
    return measure(np.mean(views, axis=0), store.labels[rows], CLASSES, patients=patients).to_dict()


def test_all_rows(head: Path, store: FeatureStore) -> None:
    status, out, err = run(head, store.path, "--json")
    told = json.loads(out)
    assert status == 0
    assert (told["rows"], told["part"], told["views"]) == (93, "all", ["identity", "flip"])
    assert "includes the rows that the head was trained on" in err
    assert_same(told, by_hand(head, store, store.usable))


def assert_same(told: dict[str, Any], expected: dict[str, Any]) -> None:
    assert told["confusion"] == expected["confusion"]
    for name in ("accuracy", "accuracy_interval", "patients"):
        assert told[name] == expected[name], name
    assert told["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    for one, other in zip(told["per_class"], expected["per_class"], strict=True):
        assert one == pytest.approx(other)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_part_is_that_of_the_study(head: Path, store: FeatureStore, part: str) -> None:
    status, out, err = run(head, store.path, "--json", "--part", part)
    rows = getattr(split_of(store), part)
    assert status == 0
    assert "trained on" not in err
    assert ("are the rows by which its epoch was chosen" in err) == (part == "validation")
    assert_same(json.loads(out), by_hand(head, store, rows))
    assert json.loads(out)["rows"] == len(rows) < len(store.usable)


def test_another_store_of_the_same_kind(head: Path, tmp_path: Path) -> None:
    other = build_store(tmp_path / "other.h5", rows=24, views=("identity",))
    status, out, err = run(head, other, "--json")
    assert (status, json.loads(out)["rows"]) == (0, 24)
    assert "is not the store that the head was trained on: if it holds images of that one, its score" in err
    assert "includes the rows" not in err


def test_of_a_head_that_does_not_say_where_it_was_trained_nothing_is_supposed(
    head: Path, store: FeatureStore, tmp_path: Path
) -> None:
    loaded, path = read_head(head), tmp_path / "head.hdf5"
    save_head(path, loaded.model, replace(loaded.metadata, store_fingerprint="", split=None))
    status, _, err = run(path, store.path, "--json")
    assert status == 0
    assert "trained on" not in err


def test_tables_for_people(head: Path, store: FeatureStore) -> None:
    status, out, _ = run(head, store.path, "--part", "test")
    told = by_hand(head, store, split_of(store).test)
    assert status == 0
    assert f"{told['accuracy']:.4f} ({told['accuracy_interval'][0]:.4f} to" in out
    line = next(line for line in out.splitlines() if "DRUSEN" in line)
    drusen = told["per_class"][2]
    for name in ("rows", "sensitivity", "specificity", "auc"):
        shown = f"{drusen[name]}" if name == "rows" else f"{drusen[name]:.4f}"
        assert shown in line


def test_class_names_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ("[red]a[/red]", "b\x1b[31m", "c\nd", "é")
    store = FeatureStore(build_store(tmp_path / "store.h5", classes=names))
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, versions={})
    save_head(tmp_path / "head.hdf5", build_head(HeadSpec(conv_width=16), (2, 2, 8), 4), metadata)
    status, out, _ = run(tmp_path / "head.hdf5", store.path)
    assert status == 0
    assert "[red]a[/red]" in out
    assert "b\\x1b[31m" in out
    assert "\x1b" not in out
    assert "c\\nd" in out


DIFFERENT = {
    "feature_shape": ((2, 2, 9), r"feature_shape: expected \(2, 2, 9\) as .*, found \(2, 2, 8\)"),
    "classes": (("CNV", "DME", "x", "NORMAL"), r"classes: expected none but those of .*, found DRUSEN \(24 images\)"),
    "backbone": ("vgg16", "backbone: expected vgg16 as .*, found mobilenet"),
    "alpha": (0.5, r"alpha: expected 0\.5 as .*, found 0\.25"),
    "weights_sha256": ("cd" * 32, "weights_sha256: expected cdcdcdcdcdcdcdcd as .*, found abababababababab"),
    "image_size": (96, "image_size: expected 96 as .*, found 64"),
    "preprocessing": ("unit", "preprocessing: expected unit as .*, found backbone"),
}


class TestFit:
    def metadata(self, store: FeatureStore, **changes: Any) -> HeadMetadata:
        return replace(HeadMetadata.of_store(store.header, store.fingerprint, versions={}), **changes)

    @pytest.mark.parametrize("field", DIFFERENT)
    def test_a_difference_is_named(self, store: FeatureStore, field: str) -> None:
        value, message = DIFFERENT[field]
        fitted(Path("head.hdf5"), self.metadata(store), store)
        with pytest.raises(InputError, match=message) as caught:
            fitted(Path("head.hdf5"), self.metadata(store, **{field: value}), store)
        assert str(caught.value).startswith(f"{store.path}: ")

    def test_fewer_classes(self, store: FeatureStore) -> None:
        known = r"head\.hdf5: CNV, DME, DRUSEN, found NORMAL \(24 images\)"
        with pytest.raises(InputError, match=f"classes: expected none but those of {known}"):
            fitted(Path("head.hdf5"), self.metadata(store, classes=CLASSES[:3]), store)

    def test_what_the_head_does_not_know_is_not_compared(self, store: FeatureStore) -> None:
        foreign = HeadMetadata(classes=CLASSES, feature_shape=(2, 2, 8), versions={})
        fitted(Path("head.hdf5"), foreign, store)

    def test_what_the_store_does_not_know_is_not_compared(self, store: FeatureStore, tmp_path: Path) -> None:
        header = replace(
            build_header(rows=12),
            backbone="unknown",
            alpha=None,
            weights_sha256="",
            image_size=0,
            preprocessing="unknown",
        )
        fitted(Path("head.hdf5"), self.metadata(store), FeatureStore(fill_store(tmp_path / "converted.h5", header)))

    def test_the_command_refuses(self, tmp_path: Path, head: Path) -> None:
        other = build_store(tmp_path / "other.h5", shape=(2, 2, 16))
        status, out, err = run(head, other)
        assert (status, out) == (2, "")
        assert err == f"error: {other}: feature_shape: expected (2, 2, 8) as {head}, found (2, 2, 16)\n"


class TestPart:
    def refused(self, store: FeatureStore, message: str, part: Part = Part.TEST, **changes: Any) -> None:
        metadata = HeadMetadata.of_store(store.header, store.fingerprint, split=recipe_of(store), versions={})
        assert len(rows_of(part, Path("head.hdf5"), metadata, store)) > 0
        with pytest.raises(InputError, match=message):
            rows_of(part, Path("head.hdf5"), replace(metadata, **changes), store)

    def test_no_split(self, store: FeatureStore) -> None:
        self.refused(store, r"head\.hdf5: split: expected how the store was split, for --part, found none", split=None)

    def test_another_store(self, store: FeatureStore) -> None:
        self.refused(store, r"store\.h5: fingerprint: expected 0000000000000000, the", store_fingerprint="0" * 64)

    def test_another_split(self, store: FeatureStore) -> None:
        split = replace(recipe_of(store), identity="0" * 16)
        self.refused(
            store, r"store\.h5: split: expected split 0000000000000000 as head\.hdf5, found \w{16}", split=split
        )

    def test_an_empty_part(self, store: FeatureStore) -> None:
        shares = SHARES | {"test": 0.0}
        identity = split_rows(store.usable, store.labels, store.patients, **shares).identity
        self.refused(
            store, "split: expected rows in part test, found none", split=SplitRecipe(**shares, identity=identity)
        )

    def test_a_given_part_of_which_every_row_was_skipped(self, tmp_path: Path) -> None:
        parts = tuple("test" if row < 4 else "train" for row in range(24))
        header = replace(build_header(rows=24), parts=parts)
        skipped = [row for row, part in enumerate(parts) if part == "test"]
        store = FeatureStore(fill_store(tmp_path / "parted.h5", header, skipped=skipped))
        metadata = HeadMetadata.of_store(store.header, "f" * 64, split=None, versions={})
        assert len(rows_of(Part.TRAIN, Path("head.hdf5"), metadata, store)) == 20
        with pytest.raises(InputError, match="expected rows in part test, found none"):
            rows_of(Part.TEST, Path("head.hdf5"), metadata, store)


def test_an_unfinished_store(head: Path, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store.h5", build_header()):
        pass
    status, _, err = run(head, tmp_path / "store.h5")
    assert status == 2
    assert "complete: expected a finished store, found 0 of 48 rows" in err


def test_the_two_arguments_exchanged(head: Path, store: FeatureStore) -> None:
    status, _, err = run(store.path, head)
    assert (status, err) == (
        2,
        f"error: {store.path}: expected a head (.hdf5 or .keras as Keras saves it), found a feature store\n",
    )


@pytest.mark.slow
def test_from_the_shell(head: Path, store: FeatureStore) -> None:
    """Standard output is JSON and nothing else, in a process of its own."""
    done = run_alone("heads.evaluate", head, store.path, "--part", "test", "--json")
    assert json.loads(done.stdout)["rows"] == len(split_of(store).test)


def test_a_calibrated_head_is_scored_as_it_is_said_to_be(head: Path, store: FeatureStore, tmp_path: Path) -> None:
    """As predict does: the same calls, at another certainty; and rows that a refit has seen are said to be such."""
    loaded = read_head(head)
    again = Refitted(parts=("train", "validation"), rows=80, epochs=3, repeats=5, mean=0.9, sd=0.01)
    warm = tmp_path / "warm.hdf5"
    save_head(warm, loaded.model, replace(loaded.metadata, temperature=2.5, value=None, refit=again))
    assert read_head(warm).metadata.refit == again
    plain, calibrated = (json.loads(run(one, store.path, "--json", "--part", "test")[1]) for one in (head, warm))
    assert plain["confusion"] == calibrated["confusion"]
    rows = split_of(store).test
    views = [loaded.model.predict(store.features[rows, view].astype(np.float32), verbose=0) for view in range(2)]
    cooled = with_temperature(np.mean(views, axis=0), 2.5)
    assert calibrated["loss"] == pytest.approx(measure(cooled, store.labels[rows], CLASSES).loss, rel=1e-4)
    assert calibrated["loss"] != pytest.approx(plain["loss"], rel=1e-3)
    assert "trained on" in run(warm, store.path, "--json", "--part", "validation")[2]
    assert "trained on" not in run(head, store.path, "--json", "--part", "validation")[2]
    average = join_heads([read_head(warm)] * 2)
    save_head(tmp_path / "average.hdf5", average.model, average.metadata)
    assert "trained on" in run(tmp_path / "average.hdf5", store.path, "--json", "--part", "validation")[2]


def test_the_store_of_the_validation_rows_is_one_that_the_head_was_trained_on(
    store: FeatureStore, tmp_path: Path
) -> None:
    other = build_store(tmp_path / "other.h5", rows=24, views=("identity", "flip"))
    refit = Refitted(parts=("train", "validation"), stores=(store.fingerprint, FeatureStore(other).fingerprint))
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, refit=refit, versions={})
    path = tmp_path / "head.hdf5"
    save_head(path, build_head(HeadSpec(conv_width=16), store.header.feature_shape, 4, seed=2), metadata)
    status, _, err = run(path, other)
    assert status == 0
    assert "includes the rows that the head was trained on" in err
