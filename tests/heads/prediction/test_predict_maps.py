"""``heads.predict --heatmaps --occlusion``: which pictures it draws, of whatever it is given, and where they go."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from limited_files import largest_file
from made_pictures import SIZE, World, draw
from PIL import Image

from features.images.decode import UndecodableError, original_image
from features.images.views import parse_views
from features.store.reader import FeatureStore
from heads.files.backbone import backbone_spec, rebuild_backbone
from heads.files.head_file import read_head
from heads.prediction.prediction import predict
from heads.prediction.sources import NamedImage, find_sources
from heads.saliency.gradcam import class_activation_map
from heads.saliency.pictures import draw_heatmap, with_caption

pytestmark = pytest.mark.usefixtures("drawn_once")

ORIENTATION = 0x0112


def opened(path: str | Path) -> Image.Image:
    """The picture in memory, the file closed."""
    with Image.open(path) as image:
        return image.copy()


def differ(one: Image.Image, other: Image.Image) -> int:
    """By how much of 255 two pictures differ, at most: maps are equal to the rounding of float32 only."""
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def numbers(picture: str | Path) -> np.ndarray:
    return np.load(Path(picture).with_suffix(".npy"))


class TestPictures:
    def test_the_map_over_the_image_with_class_and_probability(
        self, invoke: Any, made_world: World, tmp_path: Path
    ) -> None:
        """Every pixel: what was computed, drawn over the image in its own resolution, captioned."""
        arguments = (made_world.head, made_world.images / "striped", "--heatmaps", tmp_path / "maps", "--json")
        status, out, err = invoke("heads.predict", *arguments)
        told = json.loads(out)
        assert status == 0
        assert err.endswith(f"maps of 9 of 9 images: {tmp_path / 'maps'}\n")
        assert len(list((tmp_path / "maps").iterdir())) == 2 * len(told) == 18
        store, model = FeatureStore(made_world.store), read_head(made_world.head).model
        for entry in told:
            path = Path(entry["image"])
            heat, called = numbers(entry["heatmap"]), list(entry["probabilities"]).index(entry["class"])
            row = store.header.paths.index(f"striped/{path.name}")
            np.testing.assert_allclose(heat, class_activation_map(model, store.features[row, 0], called), atol=0.02)
            remark = "Grad-CAM" if heat.any() else "Grad-CAM: nothing speaks for it"
            said = f"{entry['class']} {entry['probabilities'][entry['class']]:.3f}, {remark}"
            expected = with_caption(draw_heatmap(original_image(path), heat), said)
            assert opened(entry["heatmap"]).tobytes() == expected.tobytes()
            assert expected.crop((0, 0, *SIZE)).size == SIZE

    @pytest.mark.parametrize("views", ["flip", "flip,identity"])
    def test_whatever_the_views_the_map_is_that_of_the_image(
        self, invoke: Any, made_world: World, tmp_path: Path, views: str
    ) -> None:
        image = made_world.images / "striped" / "striped-0-0.png"
        arguments = (made_world.head, image, "--heatmaps", tmp_path, "--json", "--views", views)
        (entry,) = json.loads(invoke("heads.predict", *arguments)[1])
        store, model = FeatureStore(made_world.store), read_head(made_world.head).model
        row, called = (
            store.header.paths.index("striped/striped-0-0.png"),
            list(entry["probabilities"]).index(entry["class"]),
        )
        plain, mirrored = (class_activation_map(model, store.features[row, view], called) for view in (0, 1))
        assert np.abs(plain - mirrored).max() > 0.05
        np.testing.assert_allclose(numbers(entry["heatmap"]), plain, atol=0.02)

    def test_occlusion(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        image = made_world.images / "dark" / "dark-0-0.png"
        arguments = (made_world.head, image, "--heatmaps", tmp_path, "--occlusion", "--json")
        (entry,) = json.loads(invoke("heads.predict", *arguments)[1])
        falls = numbers(entry["occlusion"])
        assert entry["occlusion"].endswith(".occlusion.png")
        assert falls.shape == (12, 15)  # 48 x 60 pixels
        assert 0 < np.abs(falls).max() <= 1
        said = f"{entry['class']} {entry['probabilities'][entry['class']]:.3f}, up to {max(falls.max(), 0):.3f} less"
        shown = np.clip(falls, 0, None) / max(falls.max(), 0.02)
        expected = with_caption(draw_heatmap(original_image(image), shown), f"{said} where covered")
        assert opened(entry["occlusion"]).tobytes() == expected.tobytes()

    @pytest.mark.slow
    def test_from_the_shell(self, made_world: World, tmp_path: Path) -> None:
        """A process of its own: JSON and nothing else on standard output, one line for what went wrong."""
        (tmp_path / "none.png").write_bytes(b"none")
        images = (made_world.images / "dark" / "dark-0-0.png", tmp_path / "none.png")
        options = ("--heatmaps", tmp_path / "maps", "--occlusion", "--json", "--views", "identity")
        done = run("heads.predict", made_world.head, *images, *options, status=1)
        good, bad = json.loads(done.stdout)
        assert done.stderr.endswith("error: 1 of 2 images could not be used\n")
        assert sorted(good) == ["class", "error", "heatmap", "image", "occlusion", "probabilities"]
        assert bad == {
            "image": str(images[1]),
            "class": None,
            "probabilities": None,
            "error": "not an image that Pillow reads",
        }
        assert {path.suffix for path in (tmp_path / "maps").iterdir()} == {".png", ".npy"}
        assert len(list((tmp_path / "maps").iterdir())) == 4


class TestImages:
    def test_turned_deep_and_transparent(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        """One picture in many guises: turned by its EXIF tag, of 16 bits, with a palette, with transparency."""
        plain = draw("striped", np.random.default_rng(1))
        exif = Image.Exif()
        exif[ORIENTATION] = 6  # to be turned clockwise
        plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
        Image.fromarray(np.asarray(plain).astype(np.uint16) * 257).save(tmp_path / "deep.png")
        plain.convert("P").save(tmp_path / "palette.png")
        plain.convert("RGBA").save(tmp_path / "clear.png")
        plain.save(tmp_path / "plain.png")
        arguments = (made_world.head, tmp_path, "--heatmaps", tmp_path / "maps", "--json", "--occlusion")
        status, out, _ = invoke("heads.predict", *arguments)
        told = {Path(entry["image"]).stem: entry for entry in json.loads(out)}
        assert (status, sorted(told)) == (0, ["clear", "deep", "palette", "plain", "turned"])
        for kind in ("heatmap", "occlusion"):
            expected = opened(told["plain"][kind])
            for entry in told.values():
                assert opened(entry[kind]).size == expected.size
                assert differ(opened(entry[kind]), expected) <= 2

    def test_of_any_name(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        """No two of them share a map, none leaves the folder, and each can be read back."""
        names = ["a/scan.png", "b/scan.png", "scan.png", "scan.PNG", "-scan.png", "a b.png", "[red]x[/red].png"]
        names += ["é 二.png", "line\nbreak.png", "x.y..png", "x" * 240 + ".png", "q?&#%00.png", "a/scan.png.png"]
        folder = tmp_path / "images"
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            draw("dark", np.random.default_rng(2)).save(folder / name)
        names.append(os.fsdecode(b"\xff\xfe.png"))
        (folder / names[-1]).write_bytes((folder / "scan.png").read_bytes())
        status, out, _ = invoke("heads.predict", made_world.head, folder, "--heatmaps", tmp_path / "maps", "--json")
        told = json.loads(out)
        pictures = {entry["heatmap"] for entry in told}
        assert (status, len(told), len(pictures)) == (0, len(names), len(names))
        assert {Path(picture).parent for picture in pictures} == {tmp_path / "maps"}
        first, *others = map(opened, sorted(pictures))
        assert max(differ(first, other) for other in others) <= 2
        odd = [folder / name for name in names if not name.isprintable()]
        status, out, _ = invoke("heads.predict", made_world.head, *odd, "--heatmaps", tmp_path / "maps")
        assert (status, len(odd)) == (0, 2)
        assert "line\\nbreak.png" in out

    def test_behind_an_address(self, invoke: Any, made_world: World, site: str, tmp_path: Path) -> None:
        urls = [f"{site}/dark/dark-0-0.png", f"{site}/dark/dark-0-0.png?again", f"{site}/gone.png", "http://["]
        status, out, _ = invoke("heads.predict", made_world.head, *urls, "--heatmaps", tmp_path, "--json")
        one, other, gone, wrong = json.loads(out)
        assert status == 1
        assert Path(one["heatmap"]).name.startswith("dark-0-0-")
        assert one["heatmap"] != other["heatmap"]
        assert opened(one["heatmap"]).tobytes() == opened(other["heatmap"]).tobytes()
        assert "heatmap" not in gone | wrong
        assert gone["error"].startswith("HTTP 404 ")
        assert wrong["error"] == "not an address (Invalid IPv6 URL)"

    def test_an_address_whose_content_finds_no_room(self, site: str, tmp_path: Path) -> None:
        (source,) = find_sources([f"{site}/dark/dark-0-0.png"], tmp_path / "gone")
        assert source.reason == f"cannot be kept in {tmp_path / 'gone'}: No such file or directory"

    def test_a_name_that_is_too_long(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        status, out, err = invoke("heads.predict", made_world.head, "x" * 300, "--heatmaps", tmp_path, "--json")
        assert (status, json.loads(out)[0]["error"]) == (1, "File name too long")
        assert err.endswith("error: 1 of 1 images could not be used\n")


@pytest.fixture(scope="module")
def site(made_world: World) -> Iterator[str]:
    """The address of a server of the made images, in a thread of this process."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(made_world.images)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestFolder:
    def test_among_the_images_it_is_not_predicted(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        for name in ("a.png", "b/c.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            draw("bright", np.random.default_rng(3)).save(tmp_path / name)
        arguments = (made_world.head, f"{tmp_path}/b/..", "--heatmaps", tmp_path / "b" / "maps", "--json")
        for _ in range(2):
            status, out, _ = invoke("heads.predict", *arguments)
            assert (status, len(json.loads(out))) == (0, 2)
        assert len(find_sources([str(tmp_path)], tmp_path)) == 4  # without being told, the maps are pictures

    @pytest.mark.parametrize("spelled", ["{}", "{}/", "{}/../images", "{}/link"])
    def test_is_not_that_of_the_images(self, invoke: Any, made_world: World, tmp_path: Path, spelled: str) -> None:
        folder = tmp_path / "images"
        folder.mkdir()
        (folder / "link").symlink_to(folder)
        maps = spelled.format(folder)
        status, out, err = invoke("heads.predict", made_world.head, folder, "--heatmaps", maps)
        assert (status, out) == (2, "")
        assert err.startswith("error: --heatmaps: expected a folder of its own, apart from the images, found ")
        assert err.count("\n") == 1

    def test_what_does_not_fit(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        common = (made_world.head, made_world.images)
        cases = {
            ("--occlusion",): "--occlusion: expected --heatmaps DIR, where the maps go, found none",
            ("--heatmaps", tmp_path / "file"): f"{tmp_path / 'file'}: expected a folder, found a file",
            ("--heatmaps", tmp_path / "file" / "deeper"): (
                f"{tmp_path / 'file' / 'deeper'}: expected a folder that can be made, found Not a directory"
            ),
            ("--heatmaps", "x" * 300): f"{'x' * 300}: expected a folder that can be made, found File name too long",
        }
        for options, message in cases.items():
            assert invoke("heads.predict", *common, *options) == (2, "", f"error: {message}\n")

    def test_a_full_disk_loses_no_prediction_made_before(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        """The first picture fits, the second does not."""
        draw("bright", np.random.default_rng(4), (8, 8)).save(tmp_path / "a.png")
        draw("bright", np.random.default_rng(4), (200, 200)).save(tmp_path / "b.png")
        draw("bright", np.random.default_rng(4), (8, 8)).save(tmp_path / "c.png")
        maps = tmp_path / "maps"
        arguments = (made_world.head, *sorted(tmp_path.glob("*.png")), "--heatmaps", maps, "--json")
        with largest_file(20_000):
            status, out, err = invoke("heads.predict", *arguments)
        assert status == 1
        assert [Path(entry["image"]).name for entry in json.loads(out)] == ["a.png"]
        last = err.splitlines()[-1]
        assert last.startswith(f"error: {maps}/b-")
        assert "larger than a file may be here" in last
        left = sorted(path.name for path in maps.iterdir())
        assert [name.partition("-")[0] for name in left if name.endswith(".png")] == ["a"]
        assert not [name for name in left if name.startswith(".")]


def test_an_image_that_cannot_be_drawn_stops_no_other(made_world: World, tmp_path: Path) -> None:
    """It was decoded at a reduced scale before, and cannot be in full."""
    head = read_head(made_world.head)
    backbone = rebuild_backbone(made_world.head, head.metadata, backbone_spec(made_world.head, head.metadata))
    images = sorted((made_world.images / "dark").iterdir())[:3]

    def draw_all_but_one(name: str, path: Path, *rest: object) -> dict[str, str]:
        if path == images[1]:
            raise UndecodableError("damaged: cut off")
        return {"heatmap": f"{name}.drawn"}

    sources = [NamedImage(str(path), path) for path in images]
    views = parse_views("identity")
    made = list(predict(head, backbone, views, sources, batch_size=2, draw=draw_all_but_one))
    assert [one.reason for one in made] == ["", "damaged: cut off", ""]
    assert [sorted(one.maps) for one in made] == [["heatmap"], [], ["heatmap"]]
    assert made[1].probabilities is None
