"""``--images``: one command from images to a study, the same as an extraction and a search after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_pictures import KINDS, draw
from made_study import make_config
from PIL import Image
from tiny_study import STUDY, table

from features import FeatureStore, extract
from features.extraction.options import ExtractionOptions
from features.runtime.errors import InputError
from search import run_study
from search.setup.images import ImageOptions, store_of_images, take_images
from search.setup.options import RunOptions
from search.setup.resolve import resolve

pytestmark = pytest.mark.usefixtures("drawn_once")

HOW = {"backbone": "mobilenet", "alpha": 0.25, "weights": "random", "image_size": 32}
FEW = {"trials": 2, "epochs": 1, "finalists": 0, "engine": "solo", "progress": False}


def name_of(kind: str, number: int) -> str:
    """Two images of each patient."""
    return f"{kind}/{kind}-{100 * KINDS.index(kind) + number // 2}-{number}.png"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images in folders, and a study file."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for kind in KINDS:
        (folder / "scans" / kind).mkdir(parents=True)
        for number in range(12):
            draw(kind, generator).save(folder / "scans" / name_of(kind, number))
    (folder / "tiny.toml").write_text(STUDY)
    (folder / "made").mkdir()
    return folder


def test_what_an_extraction_can_be_told_is_told_here_too():
    shared = ExtractionOptions.model_fields.keys() & RunOptions.model_fields.keys()
    assert shared == {"batch_size", "dtype", "pages", "backend"}  # another one: say in --images' help how it is told
    assert ImageOptions.model_fields.keys() == ExtractionOptions.model_fields.keys() - shared


def test_options_of_images_are_taken_out_and_need_images():
    told = {"images": "scans", "trials": 3, "backbone": "mobilenet", "strict": False, "alpha": None}
    given = take_images(told)
    assert told == {"images": "scans", "trials": 3}
    assert given is not None
    assert given.options == {"backbone": "mobilenet"}
    assert take_images({"trials": 3, "update": False}) is None
    with pytest.raises(InputError, match="--image-size: expected --images beside it"):
        take_images({"trials": 3, "image_size": 64})


def test_the_store_lies_beside_the_study_by_the_name_of_the_folder(tmp_path, monkeypatch):
    assert store_of_images(tmp_path / "studies" / "one", tmp_path / "scans") == tmp_path / "studies" / "scans.h5"
    monkeypatch.chdir(tmp_path)
    assert store_of_images(tmp_path / "one", tmp_path / ".").name == f"{tmp_path.name}.h5"
    resolved = resolve(RunOptions.given({"images": "scans/size=32", "out": "one"}))
    assert resolved.paths == {"": Path("size=32.h5")}


def test_a_store_in_the_place_of_images_is_refused_before_anything_is_made(tmp_path, capfd):
    (tmp_path / "scans.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"found a file; a store .* takes it as --features"):
        run_study(images=tmp_path / "scans.h5", out=tmp_path / "studies" / "one", trials=2)
    assert "extracting into" not in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["scans.h5"]


def test_a_folder_without_images_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputError, match="one sub-folder per class"):
        run_study(images=tmp_path / "scans", out=tmp_path / "studies" / "one", trials=2)
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


@pytest.mark.slow
def test_one_call_finds_what_two_find_and_goes_on_when_it_is_called_again(world):
    paths = [name_of(kind, number) for kind in KINDS for number in range(12)]
    frame = pd.DataFrame({"path": paths, "label": [path[0] for path in paths]})
    options = {"images": world / "scans", "study": world / "tiny.toml", "out": world / "out" / "one", **HOW}
    one = run_study(**options, **FEW, table=frame)
    made = FeatureStore(world / "out" / "scans.h5")
    assert made.classes == ("b", "d", "s")
    run_study(made, study=world / "tiny.toml", out=world / "two", **FEW)
    assert table(one.folder) == table(world / "two")
    before = made.path.stat().st_mtime_ns
    again = run_study(**options, **{**FEW, "trials": 3}, table=frame)  # without resume: the same command goes on
    assert again.summary.trials == 3
    assert table(again.folder)[:2] == table(world / "two")
    assert made.path.stat().st_mtime_ns == before


def test_another_store_or_another_study_is_refused_by_name(world):
    options = {"images": world / "scans", "study": world / "tiny.toml", **HOW, **FEW}
    extract(world / "scans", world / "made" / "scans.h5", progress=False, **HOW)
    with pytest.raises(InputError, match=r"scans\.h5: image_size: expected 64, found 32"):
        run_study(out=world / "made" / "other", **{**options, "image_size": 64})
    for number, kind in enumerate(KINDS):  # others' images in a folder of the same name
        (world / "theirs" / "scans" / kind).mkdir(parents=True)
        Image.new("L", (8, 8), 10 * number).save(world / "theirs" / "scans" / kind / "x.png")
    with pytest.raises(InputError) as caught:
        run_study(out=world / "made" / "other", **{**options, "images": world / "theirs" / "scans"})
    assert "choose another store: this one is of other images; --features FILE names another store" in str(caught.value)
    with pytest.raises(InputError) as caught:
        there = {"images": world / "theirs" / "scans", "features": world / "made" / "scans.h5"}
        run_study(out=world / "made" / "other", **{**options, **there})
    assert str(caught.value).endswith("this one is of other images")
    (world / "made" / "one").mkdir()
    stores = {"features": {"path": str(world / "made" / "scans.h5"), "fingerprint": "0" * 8}}
    make_config(stores=stores | {"validation": None, "test": None}).write(world / "made" / "one")
    with pytest.raises(InputError, match=r"one: stores\.features: expected a study of .*elsewhere\.h5"):
        run_study(out=world / "made" / "one", features=world / "elsewhere.h5", **options)
    assert not (world / "elsewhere.h5").exists()
