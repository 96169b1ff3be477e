"""An extraction's scale and pages: chosen once, recorded, kept on resume, and said."""

from __future__ import annotations

from pathlib import Path

import commands
import numpy as np
import pytest
from made_backbone import SMALL, lay_mosaics
from made_images import encoded, grey
from PIL import Image

from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.runtime.errors import BottleneckError, InputError
from features.store.reader import FeatureStore

CHOSEN = SMALL | {"batch_size": 2, "views": "identity"}
OPTIONS = commands.words(CHOSEN)


@pytest.fixture(autouse=True)
def _light(monkeypatch):
    lay_mosaics(monkeypatch)


def pattern(name: str) -> np.ndarray:
    y, x = np.mgrid[:32, :32]
    return (x // 8 if name == "A" else x // 8 + y // 8) % 2


def folder_of(folder: Path, make) -> Path:
    for name in "AB":
        (folder / name).mkdir(parents=True)
        for number in range(4):
            values = make(pattern(name), number)
            kind = "tif" if values.dtype.kind == "f" else "png"
            (folder / name / f"{name}-{number}-1.{kind}").write_bytes(grey(values, "TIFF" if kind == "tif" else "PNG"))
    return folder


def twelve_bits(wave: np.ndarray, number: int) -> np.ndarray:
    return (1940 + 120 * wave + number).astype(np.uint16)


def run(images: Path, store: Path, **options):
    said: list[str] = []
    on_progress = options.pop("on_progress", lambda settled, total: None)
    how = ExtractionOptions(**CHOSEN | options)
    summary = extract_store(images, store, how, say=said.append, on_progress=on_progress)
    return FeatureStore(store), [*said, *(f"note: {note}" for note in summary.notes)]


class StopHereError(Exception):
    """Stands for whatever ends a run."""


def stop_after_first(settled: int, total: int) -> None:
    if settled:
        raise StopHereError


def test_a_told_scale_keeps_the_contrast_is_recorded_and_must_match_on_resume(tmp_path):
    images = folder_of(tmp_path / "in", twelve_bits)
    flat, said = run(images, tmp_path / "flat.h5")
    assert flat.header.intensity == "type"
    assert np.array_equal(flat.features[0], flat.features[4])  # nothing is left of what tells the classes apart
    (note,) = said
    assert "1940 to 2063" in note
    assert "--intensity 0:4095" in note

    told, said = run(images, tmp_path / "told.h5", intensity="1900:2100")
    assert (told.header.intensity, said) == ("1900:2100", [])
    assert not np.array_equal(told.features[0], told.features[4])
    assert told.fingerprint != flat.fingerprint

    whole = (tmp_path / "told.h5").read_bytes()
    with pytest.raises(StopHereError):
        run(images, tmp_path / "stopped.h5", intensity="1900:2100", on_progress=stop_after_first)
    assert not FeatureStore(tmp_path / "stopped.h5").complete
    with pytest.raises(InputError, match="intensity: expected '0:4095', found '1900:2100'"):
        run(images, tmp_path / "stopped.h5", intensity="0:4095")
    run(images, tmp_path / "stopped.h5")  # untold: as recorded
    assert (tmp_path / "stopped.h5").read_bytes() == whole


def test_a_chosen_scale_is_the_same_after_a_kill_whatever_the_rest_of_the_files_hold(tmp_path):
    def slices(wave: np.ndarray, number: int) -> np.ndarray:
        return (wave * 300.0 * number - 200 * (number == 3)).astype(np.float32)

    images = folder_of(tmp_path / "in", slices)
    whole, said = run(images, tmp_path / "a.h5")
    assert whole.header.intensity == "whole=0:65535,fractions=-200:700"
    assert "range -200 to 700" in said[0]
    with pytest.raises(StopHereError):
        run(images, tmp_path / "b.h5", on_progress=stop_after_first)
    run(images, tmp_path / "b.h5")
    assert (tmp_path / "b.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()


def test_what_is_clipped_is_said_once(tmp_path):
    images = folder_of(tmp_path / "in", lambda wave, number: (wave + 0.1 * number).astype(np.float32))
    _, said = run(images, tmp_path / "a.h5", intensity="0:1")
    (note,) = said
    assert note.startswith("note: 6 images with values outside of the range 0:1, clipped to black or white")


def test_images_of_eight_bits_are_as_before_and_a_store_of_before_goes_on(tmp_path):
    images = folder_of(tmp_path / "in", lambda wave, number: (wave * 200 + number).astype(np.uint8))
    store, said = run(images, tmp_path / "a.h5")
    assert (store.header.intensity, store.header.pages, said) == ("8 bits", "first", [])
    told, said = run(images, tmp_path / "b.h5", intensity="0:4095")
    assert np.array_equal(told.features, store.features)
    assert said == ["note: no image has more than 8 bits: --intensity changes nothing"]
    with pytest.raises(InputError, match="--intensity: expected LOW:HIGH"):
        run(images, tmp_path / "c.h5", intensity="12 bits")


def test_pages_are_rows_of_one_patient_and_resume(tmp_path):
    generator = np.random.default_rng(0)
    frames = [Image.fromarray(generator.integers(0, 255, (32, 32), np.uint8)) for _ in range(6)]
    for name, own in (("A", frames[:3]), ("B", frames[3:])):
        (tmp_path / "in" / name).mkdir(parents=True)
        for ending, kind in (("tif", "TIFF"), ("gif", "GIF")):
            path = tmp_path / "in" / name / f"{name}-{ending}-1.{ending}"
            path.write_bytes(encoded(own[0], kind, save_all=True, append_images=own[1:]))
    first, said = run(tmp_path / "in", tmp_path / "first.h5")
    assert (len(first), first.header.pages) == (4, "first")
    assert said == ["note: 4 files with several pages: the first of each was used; --pages all takes all"]

    every, said = run(tmp_path / "in", tmp_path / "all.h5", pages="all")
    assert (len(every), every.header.pages) == (12, "all")
    assert every.header.paths[:4] == ("A/A-gif-1.gif#1", "A/A-gif-1.gif#2", "A/A-gif-1.gif#3", "A/A-tif-1.tif#1")
    assert every.header.patients[:6] == ("gif",) * 3 + ("tif",) * 3
    assert said == ["note: 4 files with several pages: 12 rows of them"]
    features = every.features.reshape(12, -1)
    assert len(np.unique(features, axis=0)) == 6  # three of each class, alike in both kinds of file
    assert np.array_equal(every.features[3], first.features[1])

    with pytest.raises(StopHereError):
        run(tmp_path / "in", tmp_path / "b.h5", pages="all", on_progress=stop_after_first)
    with pytest.raises(InputError, match="pages: expected 'first', found 'all'"):
        run(tmp_path / "in", tmp_path / "b.h5")
    run(tmp_path / "in", tmp_path / "b.h5", pages="all")
    assert (tmp_path / "b.h5").read_bytes() == (tmp_path / "all.h5").read_bytes()


def test_an_update_chooses_the_scale_of_the_first_deeper_images_and_keeps_one_that_is_recorded(tmp_path):
    images = folder_of(tmp_path / "in", lambda wave, number: (wave * 200 + number).astype(np.uint8))
    before, _ = run(images, tmp_path / "a.h5")
    (images / "A" / "A-7-1.tif").write_bytes(grey((100.0 * pattern("A")).astype(np.float32)))
    after, said = run(images, tmp_path / "a.h5", update=True)
    assert after.header.intensity == "whole=0:65535,fractions=0:255"
    assert any("1 image of more than 8 bits beside 8 images of 8 bits" in line for line in said)
    kept = [after.header.paths.index(path) for path in before.header.paths]
    assert np.array_equal(after.features[kept], before.features)
    (images / "A" / "A-8-1.tif").write_bytes(grey((300.0 * pattern("A")).astype(np.float32)))
    later, said = run(images, tmp_path / "a.h5", update=True)
    assert later.header.intensity == after.header.intensity
    assert any("1 image with values outside of the range 0:255, clipped" in line for line in said)
    with pytest.raises(InputError, match="pages: expected 'all', found 'first'"):
        run(images, tmp_path / "a.h5", pages="all", update=True)


def test_large_scans_are_skipped_with_the_option_named_and_taken_where_it_is_given(tmp_path):
    images = folder_of(tmp_path / "in", lambda wave, number: (wave * 200 + number).astype(np.uint8))
    (images / "A" / "A-9-1.png").write_bytes(grey(np.kron(pattern("B"), np.ones((2, 2))).astype(np.uint8) * 99, "PNG"))
    run(images, tmp_path / "a.h5", max_pixels=2000)
    listed = (tmp_path / "a.h5.skipped.csv").read_text()
    assert '"more than 2000 pixels (decompression bomb?), see --max-pixels"' in listed
    again, _ = run(images, tmp_path / "a.h5")  # the row was settled: it stays so, and is said to be possible now
    assert int((again.done == 2).sum()) == 1
    assert "with a smaller --max-pixels" in (tmp_path / "a.h5.skipped.csv").read_text()
    more, _ = run(images, tmp_path / "b.h5")
    assert (more.done == 1).all()
    with pytest.raises(BottleneckError, match=r"none of 9 images can be decoded.*--max-pixels"):
        run(images, tmp_path / "c.h5", max_pixels=10)


def test_the_commands_say_and_show_it(tmp_path):
    images = folder_of(tmp_path / "in", twelve_bits)
    store = tmp_path / "s.h5"
    status, _, err = commands.invoke("features.extract", images, store, *OPTIONS, "--intensity", "-1000:3000")
    assert (status, "Traceback" in err) == (0, False)
    status, out, _ = commands.invoke("features.info", store, "--quick")
    assert status == 0
    assert "-1000:3000" in out
    status, _, err = commands.invoke("features.extract", images, store, *OPTIONS, "--intensity", "dark")
    assert (status, len(err.splitlines())) == (2, 1)
    for command in ("features.extract", "heads.predict"):
        text = commands.invoke(command, "--help")[1]
        assert all(option in text for option in ("--intensity", "--pages", "--max-pixels"))
