"""Folders of DICOM files: which files count, who is on them, what a store keeps of that; and what to install."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import invoke, words
from conftest import ROOT
from made_backbone import SMALL, lay_mosaics
from made_dicom import IDENTITY, NAME, dicom
from made_pictures import train_head
from PIL import Image

from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.images.columns import ColumnChoice, read_labels
from features.images.dicom_patients import SOURCE, hashed
from features.images.folder import scan_folder
from features.images.tabled import scan_table
from features.store.reader import FeatureStore
from heads.loaded import load_head
from heads.model.spec import HeadSpec

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom.*")


def scan(level: int, patient: str = IDENTITY, **elements: object) -> bytes:
    pixels = np.full((24, 40), level, np.uint16)
    pixels[:, ::8] = 4000
    return dicom(pixels, PatientID=patient, WindowCenter=2048, WindowWidth=4096, **elements)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_files_without_an_ending_count_where_they_are_dicom(tmp_path: Path) -> None:
    one = scan(100)
    files = {"A/IM0001": one, "A/1.2.840.113619.2.5": one, "A/b.DCM": one, "A/c.dicom": one}
    write(tmp_path, files | {"A/DICOMDIR": one, "A/IM#2": one, "A/README": b"text", "A/d.txt": one, "B/x": one})
    table = scan_folder(tmp_path)
    assert table.paths == ("A/1.2.840.113619.2.5", "A/IM0001", "A/b.DCM", "A/c.dicom", "B/x")
    assert table.ignored == {"left behind by systems": 1, "no images": 3}


def test_the_patient_is_the_files_where_nothing_else_says_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "A/A-77-1.dcm": scan(1, "P1"),  # the name says it
            "A/one.dcm": scan(2, "P1"),
            "A/two.dcm": scan(3, " P2 "),
            "B/three.dcm": scan(4, "P2"),
            "B/four.dcm": scan(5, ""),
            "B/five.dcm": b"none",
        },
    )
    table = scan_folder(tmp_path)
    patients = dict(zip(table.paths, table.patients, strict=True))
    assert patients == {
        "A/A-77-1.dcm": "77",
        "A/one.dcm": hashed("P1"),
        "A/two.dcm": hashed("P2"),
        "B/three.dcm": hashed("P2"),
        "B/four.dcm": "",
        "B/five.dcm": "",
    }
    assert SOURCE in table.patient_source and f"e.g. {hashed('P1')} of A/one.dcm" in table.patient_source
    assert table.remarks[-1].startswith("the patient of 2 of 6 images is unknown")


def test_a_hash_is_the_same_everywhere_and_tells_no_id() -> None:
    assert hashed(IDENTITY) == "d8236323b598c1d5"
    assert len({hashed(f"{number}") for number in range(20)}) == 20


def test_one_id_for_all_is_nobodys(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/{number}.dcm": scan(number, "ANON") for name in "AB" for number in range(2)})
    table = scan_folder(tmp_path)
    assert set(table.patients) == {""} and table.patient_source == ""
    assert "4 DICOM files with one PatientID for all: not taken for a patient" in table.remarks
    assert "ANON" not in " ".join(table.remarks)


def test_folders_and_patterns_and_columns_come_first(tmp_path: Path) -> None:
    write(tmp_path, {f"{c}/{who}/{n}.dcm": scan(n, f"{c}{n}") for c in "AB" for who in ("p1", "p2") for n in (1, 2)})
    assert set(scan_folder(tmp_path).patients) == {"p1", "p2"}
    assert set(scan_folder(tmp_path, group_pattern=r"(\d)$").patients) == {"1", "2"}


def test_a_table_names_files_by_their_whole_identifiers(tmp_path: Path) -> None:
    write(tmp_path, {f"s/1.2.840.{name}": scan(1) for name in ("1.7", "2.dcm", "3")})
    rows = pd.DataFrame({"path": ["1.2.840.1", "s/1.2.840.1", "1.2.840.2", "s/1.2.840.3"], "label": [*"xxyy"]})
    table = scan_table(tmp_path, read_labels(rows, "labels.csv", ColumnChoice()))
    assert table.paths == ("s/1.2.840.2.dcm", "s/1.2.840.3")
    assert table.remarks[0] == "left out, 2 rows whose file is missing: 1.2.840.1, s/1.2.840.1"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("dicom")
    files = {
        f"{c}/{c}{n}.dcm": scan(level + n, f"ID-{c}{n // 2}")
        for c, level in (("dark", 300), ("pale", 2500))
        for n in range(4)
    }
    films = {
        "film/eye.dcm": dicom(np.stack([np.full((8, 8), 40 * n, np.uint8) for n in range(3)]), PatientID="ID-film")
    }
    write(folder / "in", files | films | {"dark/broken.dcm": scan(9)[:900]})
    with pytest.MonkeyPatch.context() as patch:
        lay_mosaics(patch)
        extract_store(folder / "in", folder / "s.h5", ExtractionOptions(**SMALL, pages="all", resize="pad"))
        store = FeatureStore(folder / "s.h5")
        spec = HeadSpec(conv_width=16, batch_norm=False, learning_rate=0.02)
        train_head(folder / "head.hdf5", store, store.usable, spec, epochs=6, batch_size=4)
        yield folder


def test_a_store_of_dicom_files_holds_neither_name_nor_id(world: Path) -> None:
    store = FeatureStore(world / "s.h5")
    assert [path for path in store.header.paths if "#" in path] == [f"film/eye.dcm#{n}" for n in (1, 2, 3)]
    assert len(store.usable) == 11
    assert set(store.header.patients) == {
        *(hashed(f"ID-{c}{n}") for c in ("dark", "pale") for n in (0, 1)),
        hashed("ID-film"),
        hashed(IDENTITY),
    }
    kept = (
        (world / "s.h5").read_bytes() + (world / "s.h5.skipped.csv").read_bytes() + (world / "head.hdf5").read_bytes()
    )
    for text in (*NAME.split("^"), IDENTITY, "ID-dark0", "ID-film"):
        assert text.encode() not in kept
    skipped = pd.read_csv(world / "s.h5.skipped.csv")
    assert skipped["path"].tolist() == ["dark/broken.dcm"]
    assert skipped["reason"][0].startswith("damaged: its pixels are cut short")


def test_nothing_that_is_said_holds_them_either(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_mosaics(monkeypatch)
    options = words(SMALL)
    done = invoke("features.extract", world / "in", tmp_path / "s.h5", *options)
    assert done.status == 0
    told = done.out + done.err + invoke("features.info", tmp_path / "s.h5", "--json").out
    assert SOURCE in told and "8 images (DICOM) shown through the window that its file names" in told
    assert not [text for text in (*NAME.split("^"), IDENTITY, "ID-") if text in told]


def test_dicom_files_are_predicted_as_their_store_was_made(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_mosaics(monkeypatch)
    head = load_head(world / "head.hdf5")
    stored = head.predict(FeatureStore(world / "s.h5"), progress=False)
    found = head.predict(world / "in", progress=False, pages="all")
    assert [Path(path).name for path in found["path"]] == [
        Path(path).name for path in FeatureStore(world / "s.h5").header.paths
    ]
    np.testing.assert_allclose(found[list(head.classes)], stored[list(head.classes)], atol=2e-3)
    assert found["error"].str.startswith("damaged: its pixels are cut short").sum() == 1
    picture = head.draw_heatmap(world / "in" / "pale" / "pale1.dcm")
    assert picture.width >= 40


def test_a_table_names_dicom_files_and_its_column_says_who(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_mosaics(monkeypatch)
    rows = [{"path": f"{c}/{c}{n}", "label": c, "patient": f"K{n}"} for c in ("dark", "pale") for n in range(2)]
    extract_store(world / "in", tmp_path / "t.h5", ExtractionOptions(**SMALL), frame=pd.DataFrame(rows))
    assert FeatureStore(tmp_path / "t.h5").header.patients == ("K0", "K1", "K0", "K1")
    for row in rows:
        row.pop("patient")
    extract_store(world / "in", tmp_path / "u.h5", ExtractionOptions(**SMALL), frame=pd.DataFrame(rows))
    assert set(FeatureStore(tmp_path / "u.h5").header.patients) == {hashed("ID-dark0"), hashed("ID-pale0")}


WITHOUT = """
import sys
sys.modules["pydicom"] = None
from pathlib import Path
from features.images.decode import UndecodableError, original_image
from features.images.folder import scan_folder
from features.runtime.errors import InputError
folder = Path(sys.argv[1])
for name in ("alone", "bare", "beside"):
    try:
        print("|".join(scan_folder(folder / name).remarks))
    except InputError as error:
        print(error)
for name in ("1.dcm", "2.dcm"):
    try:
        original_image(folder / "alone" / "A" / name)
    except UndecodableError as error:
        print(error)
"""


def test_without_pydicom_one_line_says_what_to_install(tmp_path: Path) -> None:
    one, png = scan(3), tmp_path / "one.png"
    Image.new("L", (4, 4)).save(png)
    write(tmp_path / "alone", {"A/1.dcm": one, "A/2.dcm": b"II*\0" + one[4:]})
    write(tmp_path / "bare", {"A/IM1": one})
    write(tmp_path / "beside", {"A/A-1-1.png": png.read_bytes(), "A/2.dcm": one, "B/B-1-1.png": png.read_bytes()})
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    remedy = "DICOM is read once pydicom is there: pip install 'bottleneck-search[dicom]'"
    alone, bare, beside, *named = done.stdout.splitlines()
    assert alone.endswith(f"found none, but 2 .dcm; {remedy}")
    assert bare.endswith(f"found none, but 1 without an ending; {remedy}")
    assert f"1 file not read: {remedy}" in beside
    assert named == [remedy, remedy]
