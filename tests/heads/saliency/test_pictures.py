"""Pictures of maps: their size, their colours, their captions, their names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import make_folder
from heads.prediction.maps import picture_name
from heads.saliency.pictures import draw_heatmap, save_heatmap, with_caption


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
    @given(st.text(max_size=300) | st.text(max_size=30).map("http://{}".format))
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

    def test_of_what_is_no_proper_address(self) -> None:
        """No map is drawn of it, but a name must not be what fails."""
        assert re.fullmatch(r"[0-9a-f]{10}", picture_name("http://["))


class TestSaving:
    def test_picture_and_numbers(self, tmp_path: Path) -> None:
        image, heat = Image.new("RGB", (30, 20), "grey"), np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
        path = save_heatmap(tmp_path / "a.b.png", image, heat)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.b.npy", "a.b.png"]
        np.testing.assert_array_equal(np.load(tmp_path / "a.b.npy"), heat)
        with Image.open(path) as saved:
            assert saved.tobytes() == image.tobytes()

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(BottleneckError, match=r"gone/a\.(npy|png): cannot be written: No such file"):
            save_heatmap(tmp_path / "gone" / "a.png", Image.new("RGB", (3, 3)), np.ones((1, 1)))

    def test_a_caption_of_odd_characters(self) -> None:
        """A line break is shown escaped, and a long one is cut."""
        image = Image.new("RGB", (300, 50))
        for text in ("DRÜSEN 0.9", "二 0.9", "a\nb 0.9", "x" * 10_000):
            assert with_caption(image, text).height < 100
            assert with_caption(image, text).width < 2000
        assert with_caption(image, "a\nb").tobytes() == with_caption(image, "a\\nb").tobytes()

    def test_a_caption_tells_names_apart_whatever_their_letters(self) -> None:
        """The font has no letter beyond ASCII, and would draw one box for all of them."""
        image = Image.new("RGB", (300, 50))
        names = ("Ä", "Ö", "梨", "子", "Ж", "И", "λ", "ψ", "한", "ß", "±", "©")
        assert len({with_caption(image, f"{name} 0.9").tobytes() for name in names}) == len(names)
        shown = {"Ä 0.9": "A 0.9", "DRÜSEN": "DRUSEN", "梨": r"\u68a8", "Й": r"\u0419", "한": r"\ud55c", "→": "->"}
        for text, stand_in in shown.items():
            assert with_caption(image, text).tobytes() == with_caption(image, stand_in).tobytes()
        assert with_caption(image, "±").tobytes() != with_caption(image, "+-").tobytes()  # which the font has
