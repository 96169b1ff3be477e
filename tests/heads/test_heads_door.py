"""``from heads import load_head``: the head as a notebook has it, which does what the commands do."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from made_pictures import KINDS, World, draw
from PIL import Image

import heads
import heads.loaded
from features.extraction.backbones import Backbone
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads import HeadSpec, LoadedHead, PredictOptions, load_head
from heads.prediction.prediction import Prediction, Shares

pytestmark = pytest.mark.usefixtures("drawn_once")


@pytest.fixture(scope="module")
def loaded(made_world: World) -> LoadedHead:
    return load_head(made_world.head)


@pytest.fixture(scope="module")
def image(made_world: World) -> Path:
    return sorted((made_world.images / "striped").iterdir())[0]


class TestDoor:
    def test_importing_it_starts_nothing(self) -> None:
        code = (
            "import heads, sys; print(*sorted({'keras', 'tensorflow', 'jax', 'pandas', 'h5py'} & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")

    def test_every_name_is_there_and_no_other(self) -> None:
        assert {name for name in heads.__all__ if getattr(heads, name).__name__ == name} == set(heads.__all__)
        assert set(heads.__all__) <= set(dir(heads))
        with pytest.raises(AttributeError, match="module 'heads' has no attribute 'nothing'"):
            heads.nothing  # noqa: B018

    def test_a_second_backend_is_refused(self, made_world: World) -> None:
        other = "jax" if keras.backend.backend() == "tensorflow" else "tensorflow"
        pytest.importorskip(other)
        with pytest.raises(InputError, match=f"already in use, found {other}"):
            load_head(made_world.head, backend=other)

    def test_an_interrupt_that_got_lost_in_the_network_is_heeded(
        self, loaded: LoadedHead, made_world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, shown = Backbone.features, []

        def features(self: Backbone, images: np.ndarray) -> np.ndarray:
            shown.append(len(images))
            if len(shown) == 2:
                with suppress(KeyboardInterrupt):  # as TensorFlow's C++ side does while it imports something
                    signal.raise_signal(signal.SIGINT)
            return real(self, images)

        monkeypatch.setattr(Backbone, "features", features)
        with pytest.raises(KeyboardInterrupt):
            loaded.predict(made_world.images, batch_size=2, views="identity", progress=False)
        assert len(shown) < 14  # of 28 images

    @pytest.mark.parametrize("builds", ["rebuild_backbone", "for_features_of"])
    def test_a_policy_that_is_set_after_a_heads_first_use_decides_nothing(
        self, made_world: World, monkeypatch: pytest.MonkeyPatch, builds: str
    ) -> None:
        head, set_then = load_head(made_world.head), []
        monkeypatch.setattr(heads.loaded, builds, lambda *told: set_then.append(keras.config.dtype_policy().name))
        assert head.model
        keras.config.set_dtype_policy("mixed_float16")
        try:
            if builds == "rebuild_backbone":
                head.backbone()
            else:
                head.model_for(FeatureStore(made_world.store))
        finally:
            keras.config.set_dtype_policy("float32")
        assert set_then == ["float32"]

    def test_it_is_read_from_wherever_the_process_goes(
        self, made_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(made_world.head.parent)
        head = load_head(made_world.head.name)
        monkeypatch.chdir(tmp_path)
        assert head.model

    def test_random_draws_what_it_would_have_drawn(self, made_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        for builds in ("rebuild_backbone", "for_features_of"):
            monkeypatch.setattr(heads.loaded, builds, lambda *told: random.random())  # as Keras does
        head, before = load_head(made_world.head), random.getstate()
        assert head.model
        assert head.backbone()
        assert head.model_for(FeatureStore(made_world.store))
        assert random.getstate() == before

    def test_what_is_no_head_is_refused_at_once(self, made_world: World) -> None:
        with pytest.raises(InputError, match="found a feature store"):
            load_head(made_world.store)

    def test_it_shows_itself(self, loaded: LoadedHead, made_world: World) -> None:
        assert repr(loaded).startswith(f"<head {made_world.head}: classes bright, dark, striped, backbone mobilenet")
        page = loaded._repr_html_()
        assert "<th>backbone</th><td>mobilenet</td>" in page
        assert str(made_world.head) in page

    def test_model_and_metadata(self, loaded: LoadedHead) -> None:
        assert isinstance(loaded.model, keras.Model)
        assert loaded.classes == loaded.metadata.classes == KINDS
        assert isinstance(loaded.metadata.spec, HeadSpec)
        assert loaded.model is loaded.head.model


class TestPredict:
    def test_what_the_command_prints(self, loaded: LoadedHead, made_world: World, invoke: Any, image: Path) -> None:
        broken = made_world.head  # no image
        status, out, _ = invoke("heads.predict", made_world.head, made_world.images / "dark", broken, "--json")
        told = json.loads(out)
        frame = loaded.predict([made_world.images / "dark", str(broken)], progress=False)
        assert status == 1
        assert list(frame.columns) == ["path", "class", *KINDS, "error"]
        assert frame["path"].tolist() == [one["image"] for one in told]
        assert frame["error"].tolist() == [one["error"] or "" for one in told]
        sound = frame[frame["error"] == ""]
        assert len(sound) == len(told) - 1
        for name in KINDS:
            expected = [one["probabilities"][name] for one in told if one["probabilities"]]
            np.testing.assert_allclose(sound[name], expected, atol=1e-6)
        assert sound["class"].tolist() == [one["class"] for one in told if not one["error"]]
        assert frame[list(KINDS)].iloc[-1].isna().all()

    @pytest.mark.parametrize("form", [str, Path, lambda path: [path], lambda path: (str(path),)])
    def test_every_form_of_naming_images(self, loaded: LoadedHead, image: Path, form: Any) -> None:
        frame = loaded.predict(form(image), progress=False)
        assert frame["path"].tolist() == [str(image)]
        assert frame["class"].tolist() == ["striped"]

    def test_names_may_come_from_a_generator(self, loaded: LoadedHead, image: Path, made_world: World) -> None:
        frame = loaded.predict((path for path in [image, made_world.images / "dark"]), progress=False)
        expected = loaded.predict([image, made_world.images / "dark"], progress=False)
        assert len(expected) > 1
        assert frame.equals(expected)
        rows = loaded.predict(iter([made_world.store]), progress=False)
        assert len(rows) == len(FeatureStore(made_world.store))

    @pytest.mark.parametrize(
        ("images", "found"),
        [
            ([], "at least one, found none"),
            (iter(()), "at least one, found none"),
            (None, "found NoneType"),
            (3, "found int"),
            (b"one.png", "found bytes"),
            ({"one.png": "A"}, "found dict"),
            (np.zeros((8, 8, 3), np.uint8), "found ndarray"),
            ([np.zeros((8, 8), np.uint8)], "found ndarray"),
            (Image.new("L", (8, 8)), "found Image"),
            ([Image.new("L", (8, 8))], "found Image"),
            (["one.png", None], "found NoneType"),
            ([b"one.png"], "found bytes"),
            (pd.DataFrame({"path": ["one.png"]}), "found DataFrame"),
            ("", "found an empty name"),
        ],
    )
    def test_what_is_no_name_of_an_image_is_refused(self, loaded: LoadedHead, images: Any, found: str) -> None:
        for method in (loaded.predict, loaded.heatmap):
            with pytest.raises(InputError, match=f"images: expected .*{found}"):
                method(images)

    def test_a_store_is_no_image_among_others(self, loaded: LoadedHead, made_world: World, image: Path) -> None:
        store = FeatureStore(made_world.store)
        with pytest.raises(InputError, match="or one feature store, found a store among others"):
            loaded.predict([image, store])
        with pytest.raises(InputError, match="expected an image, found a feature store"):
            loaded.heatmap(store)

    def test_a_file_that_was_replaced_since_is_not_mixed(self, made_world: World, image: Path, tmp_path: Path) -> None:
        path = tmp_path / "head.hdf5"
        shutil.copy(made_world.head, path)
        early, late = load_head(path), load_head(path)
        before = early.predict(image, progress=False)
        shutil.copy(made_world.head, tmp_path / "other.hdf5")
        (tmp_path / "other.hdf5").replace(path)
        expected = "expected the head that was opened, found one that has changed since it was opened; open it again"
        with pytest.raises(InputError, match=expected):
            late.predict(image, progress=False)
        assert early.predict(image, progress=False).equals(before)  # which had read all of it
        assert load_head(path).predict(image, progress=False).equals(before)

    def test_the_bar_is_shown_where_it_is_wanted(self, loaded: LoadedHead, image: Path, capsys: Any) -> None:
        loaded.predict(image, progress=False)
        assert capsys.readouterr().err == ""

    def test_the_backbone_is_built_once(self, made_world: World, image: Path, monkeypatch: Any) -> None:
        built = []
        original = heads.loaded.rebuild_backbone
        monkeypatch.setattr(heads.loaded, "rebuild_backbone", lambda *args: built.append(args) or original(*args))
        head = load_head(made_world.head)
        for _ in range(2):
            head.predict(image, progress=False)
            head.heatmap(image)
        assert len(built) == 1

    def test_options(self, loaded: LoadedHead, image: Path) -> None:
        alone = loaded.predict(image, views="identity", batch_size=1, progress=False)
        both = loaded.predict(image, views=["identity", "flip"], progress=False)
        assert not np.allclose(alone[list(KINDS)], both[list(KINDS)], atol=1e-6)
        np.testing.assert_allclose(both[list(KINDS)], loaded.predict(image, progress=False)[list(KINDS)], atol=1e-6)
        with pytest.raises(InputError, match=r"--backbone: expected mobilenet, .* found vgg16"):
            loaded.predict(image, backbone="vgg16")
        with pytest.raises(InputError, match=r"batchsize: expected an option of a prediction, .*is batch_size meant"):
            loaded.predict(image, batchsize=3)
        with pytest.raises(InputError, match="--batch-size: expected greater than or equal to 1, found 0"):
            loaded.predict(image, batch_size=0)

    def test_an_option_is_one_field(self, invoke: Any, loaded: LoadedHead, image: Path) -> None:
        """Every field is an option of the command and is taken by the door."""
        _, out, _ = invoke("heads.predict", "--help")
        for name, field in PredictOptions.model_fields.items():
            assert f"--{name.replace('_', '-')}" in out
            loaded.predict(image, progress=False, **{name: field.default})
            for method in (
                loaded.predict,
                loaded.heatmap,
                loaded.draw_heatmap,
                loaded.occlusion,
                loaded.draw_occlusion,
            ):
                assert signature(method).parameters[name].default == field.default

    def test_a_class_named_like_a_column(self) -> None:
        shares = Shares(("error", "b"), np.array([0.25, 0.75], np.float32))
        made = heads.Predictions(shares.names, (Prediction("x", "b", shares),))
        assert made.to_frame().to_dict("records") == [
            {"path": "x", "class": "b", "p(error)": 0.25, "b": 0.75, "error": ""}
        ]


class TestMaps:
    def test_those_of_the_command(
        self, loaded: LoadedHead, made_world: World, image: Path, invoke: Any, tmp_path: Path
    ) -> None:
        arguments = (made_world.head, image, "--heatmaps", tmp_path, "--occlusion", "--batch-size", "32", "--json")
        status, out, _ = invoke("heads.predict", *arguments)
        (told,) = json.loads(out)
        assert status == 0
        for kind, values, drawn in (
            ("heatmap", loaded.heatmap(image), loaded.draw_heatmap(image)),
            ("occlusion", loaded.occlusion(image), loaded.draw_occlusion(image)),
        ):
            np.testing.assert_allclose(values, np.load(Path(told[kind]).with_suffix(".npy")), atol=1e-5)
            with Image.open(told[kind]) as picture:
                assert picture.size == drawn.size
                assert np.abs(np.asarray(picture, int) - np.asarray(drawn, int)).max() <= 1

    def test_of_another_class(self, loaded: LoadedHead, image: Path) -> None:
        called, other = loaded.heatmap(image, "striped"), loaded.heatmap(image, "dark")
        np.testing.assert_array_equal(called, loaded.heatmap(image))
        assert called.shape == other.shape == loaded.metadata.feature_shape[:2]
        assert not np.array_equal(called, other)

    def test_what_cannot_be_explained(self, loaded: LoadedHead, made_world: World, image: Path) -> None:
        with pytest.raises(InputError, match="class_name: expected one of bright, dark, striped, found grey"):
            loaded.heatmap(image, "grey")
        with pytest.raises(InputError, match="expected one image, found 9 images"):
            loaded.heatmap(made_world.images / "striped")
        with pytest.raises(InputError, match="expected an image that can be used"):
            loaded.draw_heatmap(made_world.head)

    def test_all_pages_of_a_file_are_several_images(self, loaded: LoadedHead, tmp_path: Path, monkeypatch: Any) -> None:
        first, second = (draw(kind, np.random.default_rng(0)) for kind in ("dark", "striped"))
        scan = tmp_path / "scan.tif"
        first.save(scan, save_all=True, append_images=[second])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(InputError, match="expected one image, found 2 images; FILE#2 is the second page of FILE"):
            loaded.heatmap(scan, pages="all")
        heats = [loaded.heatmap(source, "dark") for source in (scan, f"{scan}#1", f"{scan}#2")]
        np.testing.assert_array_equal(heats[0], heats[1])
        assert not np.array_equal(heats[0], heats[2])


class TestEvaluate:
    def test_what_the_command_prints(self, loaded: LoadedHead, made_world: World, invoke: Any) -> None:
        status, out, _ = invoke("heads.evaluate", made_world.head, made_world.store, "--json")
        told = json.loads(out)
        assert status == 0
        for store in (made_world.store, str(made_world.store), FeatureStore(made_world.store)):
            metrics = loaded.evaluate(store, progress=False).to_dict()
            assert {name: told[name] for name in metrics} == json.loads(json.dumps(metrics))

    def test_who_scores_training_rows_is_told(
        self, loaded: LoadedHead, made_world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert isinstance(loaded.choose_rows(made_world.store), heads.ChosenRows)
        loaded.evaluate(made_world.store)
        said = capsys.readouterr().err
        assert f"{made_world.store}: includes the rows that the head was trained on" in said
        loaded.evaluate(made_world.store, progress=False)
        assert not capsys.readouterr().err

    def test_how_a_script_has_numpy_treat_underflow_decides_nothing(self, made_world: World, image: Path) -> None:
        head = load_head(made_world.head)
        head.metadata = replace(head.metadata, temperature=1e-3)  # which leaves all but one probability at 0
        head._head = replace(head.head, metadata=head.metadata)
        with np.errstate(all="raise"):
            head.evaluate(made_world.store, progress=False)
            head.predict(image, progress=False)

    def test_parts(self, loaded: LoadedHead, made_world: World) -> None:
        with pytest.raises(InputError, match="part: expected one of all, train, validation, test, found tests"):
            loaded.evaluate(made_world.store, "tests")
        with pytest.raises(InputError, match="split: expected how the store was split"):
            loaded.evaluate(made_world.store, "validation")


class TestThreads:
    def test_several_at_once_build_once_and_leave_the_process_as_it_was(
        self, made_world: World, image: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built = []
        original = heads.loaded.rebuild_backbone
        monkeypatch.setattr(heads.loaded, "rebuild_backbone", lambda *args: built.append(args) or original(*args))
        streams, filters = (sys.stdout, sys.stderr), list(warnings.filters)
        head = load_head(made_world.head)
        with ThreadPoolExecutor(4) as pool:
            several = [pool.submit(head.predict, image, progress=False) for _ in range(4)]
            others = [pool.submit(load_head(made_world.head).predict, image, progress=False) for _ in range(2)]
            frames = [one.result() for one in (*several, *others)]
        assert (sys.stdout, sys.stderr) == streams
        assert warnings.filters == filters
        assert len(built) == 3
        for frame in frames:
            np.testing.assert_allclose(frame[list(KINDS)], frames[0][list(KINDS)], atol=1e-6)
