"""``heads.predict`` and ``heads.prediction.download``: from an image, wherever it is, to its class."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Said, invoke
from made_backbone import Places
from made_images import encoded
from PIL import Image

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.images.decode import UndecodableError, original_image
from features.images.pages import Pages
from features.images.views import parse_views
from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.files.backbone import NamedBackbone, backbone_spec, rebuild_backbone
from heads.files.head_file import Head, read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.metrics.scoring import predict_probabilities
from heads.model.build import build_head
from heads.model.fit import Schedule, train_solo
from heads.model.spec import HeadSpec
from heads.prediction.download import RemoteError, fetch
from heads.prediction.prediction import predict
from heads.prediction.sources import NamedImage, find_sources

pytestmark = pytest.mark.usefixtures("drawn_once")

CLASSES = ("bright", "dark", "striped")
VIEWS = "identity,flip,shift:0:4"


def draw(name: str, generator: np.random.Generator) -> Image.Image:
    """A small picture of one of the classes."""
    level = {"bright": 190, "dark": 60, "striped": 120}[name]
    pixels = generator.normal(level, 25, (48, 40, 3))
    if name == "striped":
        pixels[::4] += 90
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``images``, the ``store.h5`` extracted from them, and the ``head.hdf5`` trained on that."""
    folder = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "images" / name).mkdir(parents=True)
        for number in range(9):
            draw(name, generator).save(folder / "images" / name / f"{name}-{number // 3}-{number}.png")
    how = {"backbone": "mobilenet", "weights": "random:3", "image_size": 64, "alpha": 0.25, "preprocessing": "unit"}
    extract_store(folder / "images", folder / "store.h5", ExtractionOptions(**how, views=VIEWS, batch_size=8))
    store = FeatureStore(folder / "store.h5")
    write_head(folder / "head.hdf5", store, epochs=8)
    return folder


def write_head(path: Path, store: FeatureStore, *, epochs: int) -> None:
    feed = Feed(store, store.usable, memory_bytes=10**9)
    spec = HeadSpec(conv_width=16, batch_norm=False, dropout=0.0, learning_rate=0.01)
    trained = train_solo(spec, feed, feed, Schedule(epochs=epochs, batch_size=16, plan_seed=0), seed=0)
    model = build_head(spec, feed.shape, len(store.classes))
    model.set_weights(trained.weights)
    save_head(path, model, HeadMetadata.of_store(store.header, store.fingerprint, spec=spec, versions={}))


def of_store(head: Path, store: FeatureStore) -> np.ndarray:
    return predict_probabilities(read_head(head).model, Feed(store, store.usable, memory_bytes=10**9))


def run(*arguments: object) -> Said:
    return invoke("heads.predict", *arguments)


class TestImages:
    def test_the_same_as_from_the_store(self, world: Path) -> None:
        status, out, err = run(world / "head.hdf5", world / "images", "--json")
        store = FeatureStore(world / "store.h5")
        told = json.loads(out)
        assert (status, "Traceback" in err) == (0, False)
        assert [row["image"] for row in told] == [str(world / "images" / path) for path in store.header.paths]
        expected = of_store(world / "head.hdf5", store)
        np.testing.assert_allclose([list(row["probabilities"].values()) for row in told], expected, atol=2e-3)
        assert [row["class"] for row in told] == [CLASSES[label] for label in expected.argmax(1)]
        assert all(list(row["probabilities"]) == list(CLASSES) and row["error"] is None for row in told)
        # the pictures are easy, so a head that saw other features would not get them right
        assert np.mean([row["class"] == Path(row["image"]).parent.name for row in told]) >= 0.9

    def test_other_views_and_batch_sizes(self, world: Path) -> None:
        image = world / "images" / "striped" / "striped-0-0.png"
        told = {
            options: json.loads(run(world / "head.hdf5", image, "--json", *options)[1])[0]["probabilities"]
            for options in ((), ("--views", VIEWS), ("--views", "identity"), ("--batch-size", "1"))
        }
        every, named, identity, single = (list(one.values()) for one in told.values())
        assert every == named
        assert every == pytest.approx(single, abs=2e-3)
        assert every != pytest.approx(identity, abs=1e-6)

    def test_bad_images_do_not_stop_the_others(self, world: Path, tmp_path: Path) -> None:
        good = world / "images" / "dark" / "dark-0-0.png"
        folder = tmp_path / "mixed"
        for name in ("b/deeper", ".hidden", "a"):
            (folder / name).mkdir(parents=True)
        shutil.copy(good, folder / "b/deeper/x.PNG")
        shutil.copy(good, folder / ".hidden/x.png")
        shutil.copy(good, folder / "c.png")
        (folder / "a/cut.png").write_bytes(good.read_bytes()[:200])
        (folder / "b/empty.jpeg").touch()
        (folder / "notes.txt").write_text("no image")
        (folder / "b/phone.jxl").write_bytes(b"\xff\x0a")
        (tmp_path / "none").mkdir()
        arguments = [good, tmp_path / "none", folder, "nowhere.png", "file:///etc/passwd", folder / "notes.txt"]
        status, out, err = run(world / "head.hdf5", *arguments, "--json")
        told = {row["image"]: row for row in json.loads(out)}
        assert status == 1
        assert err.endswith("error: 6 of 9 images could not be used\n")
        assert "note: 1 file not read: JPEG XL is read once its plugin is there" in err
        assert {name: row["error"] for name, row in told.items()} == {
            str(good): None,
            str(tmp_path / "none"): "a folder without images",
            str(folder / "c.png"): None,
            str(folder / "a/cut.png"): told[str(folder / "a/cut.png")]["error"],
            str(folder / "b/empty.jpeg"): "an empty file",
            str(folder / "b/deeper/x.PNG"): None,
            "nowhere.png": "no such file",
            "file:///etc/passwd": "only http and https addresses are read, not file",
            str(folder / "notes.txt"): "not an image that Pillow reads",
        }
        assert told[str(folder / "a/cut.png")]["error"].startswith("damaged: ")
        assert told["nowhere.png"]["class"] is told["nowhere.png"]["probabilities"] is None
        fine = [row["probabilities"] for row in told.values() if not row["error"]]
        assert fine[0] == fine[1] == fine[2]

    def test_a_table_for_people(self, world: Path) -> None:
        good = world / "images" / "dark" / "dark-0-0.png"
        status, out, _ = run(world / "head.hdf5", good, "[red]gone[/red].png")
        assert status == 1
        line = next(line for line in out.splitlines() if str(good) in line)  # no name is cut
        assert " dark " in line
        assert sum(map(float, re.findall(r"\d\.\d{4}", line))) == pytest.approx(1, abs=2e-4)
        assert re.search(r"\[red\]gone\[/red\]\.png .* no such file", out)

    def test_nothing_to_predict(self, world: Path) -> None:
        assert run(world / "head.hdf5")[0] == 2
        assert run(world / "head.hdf5", "nowhere.png")[0] == 1

    @pytest.mark.slow
    def test_real_scans(self, oct_folder: Path, weights_folder: Path, tmp_path: Path) -> None:
        for name in ("CNV", "DME", "DRUSEN", "NORMAL"):
            (tmp_path / "scans" / name).mkdir(parents=True)
            for path in sorted((oct_folder / name).iterdir())[:8]:
                shutil.copy(path, tmp_path / "scans" / name)
        weights = weights_folder / "mobilenet_0.25_224_notop.h5"
        options = ExtractionOptions(backbone="mobilenet", weights=weights, alpha=0.25, views="identity,flip")
        extract_store(tmp_path / "scans", tmp_path / "store.h5", options)
        store = FeatureStore(tmp_path / "store.h5")
        write_head(tmp_path / "head.hdf5", store, epochs=10)
        status, out, _ = run(tmp_path / "head.hdf5", tmp_path / "scans", "--json", "--weights", weights)
        expected = of_store(tmp_path / "head.hdf5", store)
        told = json.loads(out)
        assert status == 0
        assert [row["class"] for row in told] == [store.classes[label] for label in expected.argmax(1)]
        np.testing.assert_allclose([list(row["probabilities"].values()) for row in told], expected, atol=2e-3)
        status, _, err = run(tmp_path / "head.hdf5", tmp_path / "scans")
        assert (status, err) == (2, f"error: --weights: expected where the file {weights.name} is, found none\n")


class TestFeatures:
    def head(self, dtype: str, kernel: float = 1.0) -> Head:
        spec = HeadSpec(conv_width=16, batch_norm=False)
        model = build_head(spec, (1, 1, 1), 2)
        model.set_weights([np.full(array.shape, kernel, np.float32) for array in model.get_weights()])
        metadata = HeadMetadata(classes=("a", "b"), feature_shape=(1, 1, 1), dtype=dtype, versions={})
        return Head(model, metadata)

    def predicted(self, head: Head, factor: float, tmp_path: Path) -> list[str]:
        for name, level in (("dark", 10), ("light", 200)):
            Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / f"{name}.png")
        sources = [NamedImage(name, tmp_path / f"{name}.png") for name in ("dark", "light", "dark")]
        backbone = Places(1, 1, size=8, grey=True, factor=factor)
        made = predict(head, backbone, parse_views("identity"), sources, batch_size=2)
        return [prediction.reason for prediction in made]

    def test_too_large_for_half_precision(self, tmp_path: Path) -> None:
        reasons = self.predicted(self.head("float16"), 1000, tmp_path)
        assert reasons == ["", "features too large for float16", ""]
        assert self.predicted(self.head("float32"), 1000, tmp_path) == ["", "", ""]

    def test_a_head_that_overflows(self, tmp_path: Path) -> None:
        reasons = self.predicted(self.head("float32", kernel=1e20), 1, tmp_path)
        assert reasons == ["the head's probabilities are not finite"] * 3

    def test_are_rounded_as_in_the_store(self, tmp_path: Path) -> None:
        seen: list[np.ndarray] = []
        head = self.head("float16")
        model = head.model

        def spy(features: np.ndarray, **options: Any) -> Any:
            seen.append(features)
            return model(features, **options)

        self.predicted(replace(head, model=spy), 1 / 3, tmp_path)
        assert {array.dtype for array in seen} == {np.dtype(np.float16)}
        assert seen[0][0].item() == np.float16(10 / 3)


OURS = HeadMetadata(
    classes=("a", "b"),
    feature_shape=(2, 2, 256),
    backbone="mobilenet",
    alpha=0.25,
    weights="random:3",
    weights_sha256="ab" * 32,
    image_size=64,
    preprocessing="unit",
    versions={},
)
FOREIGN = HeadMetadata(classes=("a", "b"), feature_shape=(2, 2, 256), versions={})
HEAD = Path("head.hdf5")


class TestBackbone:
    def test_is_the_recorded_one(self) -> None:
        expected = BackboneSpec(name="mobilenet", weights="random:3", image_size=64, alpha=0.25, preprocessing="unit")
        assert backbone_spec(HEAD, OURS) == expected
        assert backbone_spec(HEAD, OURS, NamedBackbone(backbone="mobilenet", alpha=0.25, image_size=64)) == expected

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("backbone", "vgg16", r"--backbone: expected mobilenet, as head\.hdf5 says, found vgg16"),
            ("alpha", 0.5, r"--alpha: expected 0\.25, as head\.hdf5 says, found 0\.5"),
            ("image_size", 96, r"--image-size: expected 64, as head\.hdf5 says, found 96"),
            ("preprocessing", "backbone", r"--preprocessing: expected unit, as head\.hdf5 says, found backbone"),
            ("weights", "nowhere.h5", "--weights: expected .*'nowhere.h5', no such file"),
        ],
    )
    def test_another_is_refused(self, option: str, value: object, message: str) -> None:
        with pytest.raises(InputError, match=message):
            backbone_spec(HEAD, OURS, NamedBackbone(**{option: value}))

    def test_no_width_multiplier_where_none_was(self) -> None:
        with pytest.raises(InputError, match=r"--alpha: expected none, as head\.hdf5 says, found 0\.5"):
            backbone_spec(HEAD, replace(OURS, alpha=None), NamedBackbone(alpha=0.5))

    def test_of_a_foreign_head_is_to_be_named(self) -> None:
        with pytest.raises(InputError, match=r"--backbone: expected the one that head\.hdf5 was trained with"):
            backbone_spec(HEAD, FOREIGN)
        with pytest.raises(InputError, match="--preprocessing: expected the one that"):
            backbone_spec(HEAD, FOREIGN, NamedBackbone(backbone="inception_v3"))
        spec = backbone_spec(HEAD, FOREIGN, NamedBackbone(backbone="inception_v3", preprocessing="unit"))
        assert spec == BackboneSpec(name="inception_v3", weights="imagenet", preprocessing="unit")

    def test_other_weights(self) -> None:
        said = r"--weights: expected random:3 with hash abababababababab, as head\.hdf5 .* weights on another backend"
        with pytest.raises(InputError, match=said):
            rebuild_backbone(HEAD, OURS, backbone_spec(HEAD, OURS))

    def test_another_shape(self) -> None:
        metadata = replace(OURS, feature_shape=(3, 3, 256), weights_sha256="")
        message = r"features \(3, 3, 256\), as head\.hdf5 takes, found \(2, 2, 256\) of mobilenet at 64 pixels"
        with pytest.raises(InputError, match=message):
            rebuild_backbone(HEAD, metadata, backbone_spec(HEAD, metadata))


class Site(BaseHTTPRequestHandler):
    """Answers as the address asks."""

    image = b""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        if name == "image.png":
            self.answer(200, self.image)
        elif name == "announced":
            self.answer(200, b"", length=30_000_000)
        elif name == "unannounced":
            self.answer(200, b"x" * 5000, length=None)
        elif name == "short":
            self.answer(200, b"x" * 100, length=200)
        elif name == "slow":
            self.answer(200, b"", length=200)
            self.drip(b"x" * 200)
        elif name == "slow-header":
            self.drip(b"HTTP/1.0 200 OK\r\nA: " + b"x" * 200)
        elif name == "garbage":
            self.wfile.write(b"\0\xff no HTTP\r\n\r\n")
        elif name.startswith("to/"):
            self.answer(302, b"", to=name.removeprefix("to/"))
        elif name == "round":
            self.answer(302, b"", to="/round")
        else:
            self.send_error(404)

    def answer(self, status: int, content: bytes, *, length: int | None = -1, to: str | None = None) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(content) if length < 0 else length))
        if to:
            self.send_header("Location", to)
        self.end_headers()
        self.wfile.write(content)

    def drip(self, content: bytes) -> None:
        for byte in content:
            try:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of a server in a thread of this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestRemote:
    def test_the_class_of_an_image_behind_an_address(self, world: Path, site: str) -> None:
        path = world / "images" / "bright" / "bright-1-4.png"
        Site.image = path.read_bytes()
        url = f"{site}/to/{site}/image.png"
        status, out, _ = run(world / "head.hdf5", url, path, f"{site}/gone.png", "--json")
        remote, local, gone = json.loads(out)
        assert status == 1
        # to the rounding of float32, which depends on what else the processor does
        assert remote["probabilities"] == pytest.approx(local["probabilities"], rel=1e-4)
        assert (remote["image"], remote["class"]) == (url, local["class"])
        assert (gone["image"], gone["error"]) == (f"{site}/gone.png", "HTTP 404 Not Found")

    def test_downloads_stay_on_the_disk(self, site: str, tmp_path: Path) -> None:
        Site.image = b"content"
        (source,) = find_sources([f"{site}/image.png"], tmp_path)
        assert source.path.parent == tmp_path
        assert source.path.read_bytes() == b"content"

    def test_pages_of_what_is_behind_an_address(self, site: str, tmp_path: Path) -> None:
        Site.image = encoded(
            Image.new("L", (8, 8), 0), "TIFF", save_all=True, append_images=[Image.new("L", (8, 8), 9)]
        )
        url = f"{site}/image.png"

        def greys(*urls: str, pages: Pages = "first") -> dict[str, object]:
            found = find_sources(urls, tmp_path, pages=pages)
            return {source.name: np.asarray(original_image(source.path))[0, 0, 0] for source in found}

        every = greys(url, pages="all")
        assert every == {f"{url}#1": 0, f"{url}#2": 9}
        assert greys(*every) == greys(*every, pages="all") == every  # by the names that they were given
        assert greys(url, f"{url}#top", f"{url}#0") == {url: 0, f"{url}#top": 0, f"{url}#0": 0}
        with pytest.raises(UndecodableError, match="no such page"):
            greys(f"{url}#9")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("announced", "30000000 bytes, more than 1000"),
            ("unannounced", "more than 1000 bytes"),
            ("short", "cut short: 100 of 200 bytes"),
            ("garbage", r"no proper answer \(BadStatusLine\)"),
            ("nowhere", "HTTP 404 Not Found"),
            ("to/file:///etc/passwd", "HTTP 302 .*file:///etc/passwd' is not allowed"),
            ("to/ftp://localhost/x", "redirected: only http and https addresses are read, not ftp"),
            ("to/http://user:secret@localhost/", "redirected: an address with a user name or password in it"),
            ("round", "HTTP 302 .*infinite loop"),
        ],
    )
    def test_refused(self, site: str, name: str, reason: str) -> None:
        with pytest.raises(RemoteError, match=f"^{reason}") as caught:
            fetch(f"{site}/{name}", limit_bytes=1000)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("name", ["slow", "slow-header"])
    def test_the_deadline_is_for_all_of_it(self, site: str, name: str) -> None:
        started = time.monotonic()
        with pytest.raises(RemoteError, match=r"not there after 0\.5 s|too slow"):
            fetch(f"{site}/{name}", deadline_s=0.5)
        assert time.monotonic() - started > 0.4

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("file:///etc/passwd", "only http and https addresses are read, not file"),
            ("data://text", "only http"),
            ("ftp://localhost/x", "only http"),
            ("http:///x", "an address without a host"),
            ("http://user:secret@localhost/x", "an address with a user name or password in it"),
            ("http://localhost:port/x", "not an address"),
            ("http://[::1/x", "not an address"),
            ("http://localhost:1/with space", "no proper answer"),
        ],
    )
    def test_no_address_to_read(self, url: str, reason: str) -> None:
        with pytest.raises(RemoteError, match=f"^{reason}") as caught:
            fetch(url)
        assert "secret" not in str(caught.value)

    def test_nobody_listens(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            with pytest.raises(RemoteError, match=r"^Connection refused$"):
                fetch(f"http://127.0.0.1:{port}/x")
