"""Pictures of maps: their size, their colours, their names; occlusion; and both commands that draw them."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from base64 import b64decode
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from features.backbones import BackboneSpec
from features.command import run_command
from features.errors import InputError
from features.extract import extract
from features.feed import Feed
from features.store import FeatureStore
from features.views import parse_views
from heads import evaluate, predict
from heads.curves import reliability, roc
from heads.files import Head, HeadMetadata, save_head
from heads.gradcam import class_activation_map
from heads.heatmaps import draw_heatmap, make_folder, picture_name, with_caption
from heads.model import build_head
from heads.occlusion import occlusion_map
from heads.solo import train_solo
from heads.spec import HeadSpec

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


def opened(path: Path) -> Image.Image:
    """The picture in memory, the file closed."""
    with Image.open(path) as image:
        return image.copy()


class TestDrawing:
    @pytest.mark.parametrize("size", [(512, 496), (768, 496), (37, 201), (1, 1), (3, 2)])
    def test_of_the_images_size_and_aspect(self, size: tuple[int, int]) -> None:
        image = Image.new("RGB", size, "grey")
        assert draw_heatmap(image, np.random.default_rng(0).random((7, 7), np.float32)).size == size
        captioned = with_caption(image, "CNV 0.987")
        assert captioned.height > size[1]
        assert captioned.width >= size[0]
        assert captioned.crop((0, 0, *size)).tobytes() == image.tobytes()
        assert np.asarray(captioned)[size[1] :].max() == 255  # something is written there

    def test_cold_places_stay_what_they_are(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (70, 140, 3), np.uint8)
        heat = np.zeros((7, 7), np.float32)
        heat[1, 5] = 1
        drawn = np.asarray(draw_heatmap(Image.fromarray(pixels), heat)).astype(int)
        changed = np.abs(drawn - pixels).sum(axis=2)
        warm = changed[0:30, 80:140]
        assert changed.sum() == warm.sum() > 0  # a bilinear bump reaches one place further, to each side
        centre = np.argwhere(changed > 0).mean(axis=0)
        np.testing.assert_allclose(centre, (14.5, 109.5), atol=1.5)

    def test_warmer_is_lighter_and_alpha_is_the_opacity(self) -> None:
        black = Image.new("RGB", (100, 1))
        ramp = np.asarray(draw_heatmap(black, np.linspace(0, 1, 100)[None], alpha=1.0).convert("L")).astype(int)
        assert (np.diff(ramp[0]) >= 0).all()
        assert ramp[0, 0] == 0
        assert ramp[0, -1] > 230
        white = Image.new("RGB", (4, 4), "white")
        hot = np.ones((2, 2))
        assert draw_heatmap(white, hot, alpha=0.0).tobytes() == white.tobytes()
        full, half = (np.asarray(draw_heatmap(black, hot, alpha=a)).astype(int)[0, 0] for a in (1.0, 0.5))
        np.testing.assert_allclose(half, full / 2, atol=1)


class TestNames:
    @given(st.text(max_size=300))
    def test_safe_for_any_name(self, name: str) -> None:
        made = picture_name(name)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}", made)
        assert made == picture_name(name)

    def test_tells_apart(self) -> None:
        names = ["a/x.png", "b/x.png", "x.png", "x.jpeg", "./x.png", "https://h.org/x.png", "https://h.org/x.png?id=1"]
        names += ["\udcff.png", "\udcfe.png", "二.png", "é.png", "..", "../..", "", "a/../x.png", ".x.png", "a" * 400]
        assert len({picture_name(name).lower() for name in names}) == len(names)
        assert picture_name("scans/CNV-1016042-1.jpeg").startswith("CNV-1016042-1-")
        assert picture_name("https://h.org/a%20b.jpeg?x=/../../etc").startswith("a_20b-")

    def test_folder(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "a" / "b")
        (tmp_path / "file").touch()
        for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
            with pytest.raises(InputError, match="expected a folder"):
                make_folder(folder)


class Corner:
    """A backbone whose one feature says how bright the picture is in each of 4 x 4 places."""

    image_size = 32
    feature_shape = (4, 4, 1)

    def __init__(self) -> None:
        self.batches: set[int] = set()

    def features(self, images: np.ndarray) -> np.ndarray:
        self.batches.add(len(images))
        return images.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4, 5), dtype=np.float32)[..., None] / 255


def corner_head() -> Head:
    """Class 1 is that the upper left place is brighter than the lower right one."""
    model = build_head(HeadSpec(conv_width=16, batch_norm=False), (4, 4, 1), 2)
    kernel = np.zeros((4, 4, 16, 2), np.float32)
    kernel[0, 0, 0, 1], kernel[3, 3, 0, 1] = 2, -2
    conv = np.zeros((1, 1, 1, 16), np.float32)
    conv[..., 0] = 1
    model.set_weights([conv, kernel.reshape(-1, 2), np.zeros(2, np.float32)])
    return Head(model, HeadMetadata(classes=("a", "b"), feature_shape=(4, 4, 1), versions={}))


class TestOcclusion:
    def occlude(self, *, aspect: float = 1.0, batch_size: int = 7, views: str = "identity", **rest: Any) -> np.ndarray:
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[:8, :8] = 255
        self.backbone = Corner()
        return occlusion_map(
            corner_head(), self.backbone, parse_views(views), picture, 1, aspect=aspect, batch_size=batch_size, **rest
        )

    def test_falls_where_the_evidence_is(self) -> None:
        falls = self.occlude(places=8, cover=1.0)
        assert falls.dtype == np.float32
        assert np.unravel_index(falls.argmax(), falls.shape) in {(0, 0), (0, 1), (1, 0), (1, 1)}
        evidence = np.zeros((8, 8), bool)
        evidence[:2, :2] = True
        assert falls[evidence].min() > 0.05
        assert falls[6:, 6:].min() > 0.001  # the grey patch is evidence against it there
        evidence[6:, 6:] = True
        np.testing.assert_allclose(falls[~evidence], 0, atol=1e-6)

    def test_by_how_much(self) -> None:
        """Covering all of it leaves the grey of the mean everywhere, which speaks for neither class."""
        (fall,) = self.occlude(places=1, cover=1.0).ravel()
        assert fall == pytest.approx(1 / (1 + np.exp(-2)) - 0.5, abs=2e-3)

    def test_places_are_square_on_the_original(self) -> None:
        assert self.occlude(aspect=2.0, places=4).shape == (4, 8)
        assert self.occlude(aspect=0.5, places=4).shape == (8, 4)
        assert self.occlude(aspect=1000.0, places=2).shape == (2, 8)

    def test_batches_do_not_matter(self) -> None:
        expected = self.occlude(batch_size=1)
        for batch_size in (5, 200):
            np.testing.assert_allclose(self.occlude(batch_size=batch_size), expected, atol=1e-6)
            assert self.backbone.batches == {batch_size}  # one shape, one program

    def test_averages_over_the_views(self) -> None:
        one, both = self.occlude(), self.occlude(views="identity,flip")
        alone = self.occlude(views="flip")
        np.testing.assert_allclose(both, (one + alone) / 2, atol=1e-6)


class TestCurves:
    def test_reliability(self) -> None:
        probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.3, 0.7], [1.0, 0.0]])
        bins = reliability(probabilities, np.array([0, 1, 1, 0]))
        np.testing.assert_allclose(bins.confidence, [0.7, (0.95 + 0.91 + 1) / 3])
        np.testing.assert_allclose(bins.accuracy, [1, 2 / 3])
        assert bins.rows.tolist() == [1, 3]
        assert bins.error == pytest.approx((0.3 + 3 * abs(2 / 3 - (0.95 + 0.91 + 1) / 3)) / 4)

    def test_roc(self) -> None:
        probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
        curve = roc(probabilities, np.array([0, 1, 0, 1]), 1)
        assert curve is not None
        assert list(zip(*curve, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
        assert roc(probabilities, np.zeros(4, int), 1) is None


@pytest.fixture(scope="module")
def world(oct_folder: Path, weights_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real scans, their store, and a head that was trained on it too shortly to be always right."""
    folder = tmp_path_factory.mktemp("world")
    for name in CLASSES:
        (folder / "scans" / name).mkdir(parents=True)
        for path in sorted((oct_folder / name).iterdir())[:10]:
            shutil.copy(path, folder / "scans" / name)
    spec = BackboneSpec(name="mobilenet", weights=str(weights_folder / WEIGHTS), alpha=0.25)
    extract(folder / "scans", folder / "store.h5", spec=spec, views=parse_views("identity,flip"))
    store = FeatureStore(folder / "store.h5")
    feed = Feed(store, store.usable, memory_bytes=10**9)
    head = HeadSpec(conv_width=16, dropout=0.0)
    trained = train_solo(head, feed, feed, epochs=2, batch_size=16, seed=0, plan_seed=0)
    model = build_head(head, feed.shape, len(CLASSES))
    model.set_weights(trained.weights)
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, spec=head, versions={})
    save_head(folder / "head.hdf5", model, metadata)
    return folder


FIGURES = r'<script type="application/json" id="figures">([^<]+)</script>'
WEIGHTS = "mobilenet_0.25_224_notop.h5"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: (exit status, standard output, standard error)."""

    def run(command: Any, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            run_command(command.main)
        return caught.value.code, *capsys.readouterr()

    return run


class TestPredict:
    def test_real_scans(self, run: Any, world: Path, weights_folder: Path, tmp_path: Path) -> None:
        """Two scans of one name, an image that is none, and one view that is not the image itself."""
        scan = next((world / "scans" / "CNV").iterdir())
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            shutil.copy(scan, tmp_path / name / "scan.jpeg")
        (tmp_path / "b" / "none.png").touch()
        maps, weights = tmp_path / "maps", ("--weights", weights_folder / WEIGHTS)
        arguments = (world / "head.hdf5", tmp_path / "a", tmp_path / "b", *weights, "--json", "--heatmaps", maps)
        status, out, _ = run(predict, *arguments, "--occlusion", "--batch-size", "64")
        first, bad, second = json.loads(out)
        assert status == 1
        assert "heatmap" not in bad
        assert first["heatmap"] != second["heatmap"]
        assert len(list(maps.iterdir())) == 8
        size = opened(scan).size
        for kind in ("heatmap", "occlusion"):
            picture = opened(first[kind])
            assert (picture.width, picture.height > size[1]) == (size[0], True)
            assert picture.tobytes() == opened(second[kind]).tobytes()
        heat = np.load(Path(first["heatmap"]).with_suffix(".npy"))
        store = FeatureStore(world / "store.h5")
        row = store.header.paths.index(f"CNV/{scan.name}")
        called = CLASSES.index(first["class"])
        model = predict.load_head(world / "head.hdf5").model
        expected = class_activation_map(model, store.features[row, 0], called)
        np.testing.assert_allclose(heat, expected, atol=0.02)
        falls = np.load(Path(first["occlusion"]).with_suffix(".npy"))
        assert falls.shape == (12, round(12 * size[0] / size[1]))
        assert 0 < np.abs(falls).max() <= 1

        status, out, _ = run(predict, *arguments, "--views", "flip")
        again = np.load(Path(json.loads(out)[0]["heatmap"]).with_suffix(".npy"))
        called = CLASSES.index(json.loads(out)[0]["class"])
        np.testing.assert_allclose(again, class_activation_map(model, store.features[row, 0], called), atol=0.02)

    def test_what_does_not_fit(self, run: Any, world: Path, weights_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        common = (world / "head.hdf5", world / "scans", "--weights", weights_folder / WEIGHTS)
        status, _, err = run(predict, *common, "--occlusion")
        assert (status, err) == (2, "error: --occlusion: expected --heatmaps DIR, where the maps go, found none\n")
        status, _, err = run(predict, *common, "--heatmaps", tmp_path / "file")
        assert (status, err) == (2, f"error: {tmp_path / 'file'}: expected a folder, found a file\n")


class TestReport:
    def test_shows_the_mistakes_the_surest_first(self, run: Any, world: Path, tmp_path: Path) -> None:
        scans = tmp_path / "scans"
        shutil.copytree(world / "scans", scans)
        arguments = (world / "head.hdf5", world / "store.h5", "--json", "--report", tmp_path / "report")
        status, out, _ = run(evaluate, *arguments, "--images", scans)
        assert status == 0
        wrong = 40 - round(json.loads(out)["accuracy"] * 40)
        assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
        page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)
        assert len(json.loads(re.search(FIGURES, page).group(1))) == 3
        cards = re.findall(r"<article>.*?</article>", page, re.DOTALL)
        assert len(cards) == wrong > 0
        assert "includes the rows that the head was trained on" in page
        sure = [float(re.search(r"<h3>\w+ ([\d.]+)", card).group(1)) for card in cards]
        assert sure == sorted(sure, reverse=True)
        for card in cards:
            called, true = re.search(r"<h3>(\w+) [\d.]+ <small>is (\w+)", card).groups()
            path = unescape(re.search(r'<p class="soft">([^<]+)', card).group(1))
            assert path.startswith(f"{true}/")
            assert called != true
            plain, *maps = (
                Image.open(io.BytesIO(b64decode(content))) for content in re.findall(r"base64,([^\"]+)", card)
            )
            assert len(maps) == 2
            assert max(plain.size) == 320
            assert {one.size for one in maps} == {plain.size}
            width, height = opened(scans / path).size
            assert plain.width / plain.height == pytest.approx(width / height, abs=0.02)

        path = unescape(re.search(r'<p class="soft">([^<]+)', cards[0]).group(1))
        (scans / path).write_bytes(b"short")
        run(evaluate, *arguments, "--images", scans)
        page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
        first, second, *_ = re.findall(r"<article>.*?</article>", page, re.DOTALL)
        assert "another file: 5 bytes" in first
        assert first.count("<img") == 0
        assert second.count("<img") == 3

    def test_without_images_they_are_named(self, run: Any, world: Path, tmp_path: Path) -> None:
        status, _, _ = run(evaluate, world / "head.hdf5", world / "store.h5", "--report", tmp_path)
        page = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert status == 0
        assert "<article>" in page
        assert "<img" not in page.rpartition("</script>")[2]

    def test_what_does_not_fit(self, run: Any, world: Path, tmp_path: Path) -> None:
        common = (world / "head.hdf5", world / "store.h5")
        status, _, err = run(evaluate, *common, "--images", world / "scans")
        assert status == 2
        assert err.endswith("error: --images: expected --report DIR, which shows them, found none\n")
        for folder, found in ((tmp_path, "none of them"), (tmp_path / "gone", "no such folder")):
            status, _, err = run(evaluate, *common, "--images", folder, "--report", tmp_path / "report")
            assert status == 2
            assert err.endswith(f"found {found}\n")
        assert not (tmp_path / "report").exists()
