"""A head leaves in every format, gives in each what it gives in memory, and otherwise leaves nothing behind."""

from __future__ import annotations

import errno
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock, patch

import h5py
import keras
import numpy as np
import pytest
from commands import invoke, succeed
from conftest import ROOT
from made_pictures import World

import search
from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import build_backbone
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import replacing_folder
from features.runtime.lock import WriterLock
from features.store.reader import FeatureStore
from heads.files import formats
from heads.files.backbone import backbone_spec, rebuild_backbone
from heads.files.checked_write import TOLERANCE, check_place, write_checked
from heads.files.formats import FORMATS, format_of, probabilities_of
from heads.files.head_file import read_head, save_head
from heads.files.image_model import build_image_model
from heads.files.metadata import IMAGE_MODEL, KIND, HeadMetadata, file_attributes
from heads.files.metadata_json import to_json
from heads.model.build import build_head
from heads.model.spec import HeadSpec
from search.finish import export
from search.finish.export import on_images, recommended_head
from search.finish.export_choice import Leaving, what_leaves
from search.finish.tried import made_images
from search.finish.with_backbone import image_model_of
from search.record.head_files import path_of, refit_path_of
from search.record.study_record import read_record
from search.setup.export_options import ExportOptions

pytestmark = pytest.mark.usefixtures("drawn_once")

ARCHIVES = ROOT / "tests" / "archives"
FINISHED = ARCHIVES / "finished"
NO_ONNX = [name for name in ("onnx", "onnxruntime", "tf2onnx") if not find_spec(name)]
ONNX = pytest.mark.skipif(bool(NO_ONNX), reason=f"the extra [onnx] is not installed: no {', '.join(NO_ONNX)}")
NEEDS_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow writes it")
RUNNING = ("--backend", keras.backend.backend())
NAMES = [
    *("out.hdf5", "out.keras"),
    pytest.param("out.onnx", marks=[ONNX, NEEDS_TENSORFLOW]),
    *(pytest.param(name, marks=NEEDS_TENSORFLOW) for name in ("out.tflite", "out.v2/")),
]


def told_by(path: Path) -> dict:
    """What a file of a format other than HDF5 says of itself."""
    if path.is_dir():
        return json.loads((path / "assets.extra" / "head.json").read_text(encoding="utf-8"))
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return json.loads(session.get_modelmeta().custom_metadata_map["head.json"])
    return json.loads(zipfile.ZipFile(path).read("head.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_written_file_gives_the_heads_probabilities(name, tmp_path, capfd):
    out, form = f"{tmp_path}/{name}", format_of(name)
    said = succeed("search.export", FINISHED, out, "--which", "ensemble", *RUNNING)
    assert said.out == f"{out}: the average of trials 1, 2 of old\n"
    assert said.err.startswith(f"{out}: 8 ")
    if keras.backend.backend() == "tensorflow":  # whose converters have a lot to say
        assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]
    rows = np.asarray(FeatureStore(ARCHIVES / "store.h5").take(np.arange(20), 0), np.float32)
    head = read_head(ARCHIVES / "ensemble.hdf5")
    found = form.predict(Path(out), rows)
    expected = probabilities_of(head.model, rows)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert form.predict(Path(out), rows[:1]).shape == (1, 3)
    if form.suffixes[:1] != (".hdf5",):
        told = told_by(Path(out))
        assert (told["kind"], told["classes"], told["trials"]) == ("head", ["A", "B", "C"], [1, 2])
        assert told["temperature"] == head.metadata.temperature
        assert str(tmp_path) not in json.dumps(told)


@NEEDS_TENSORFLOW
def test_a_saved_model_is_read_as_the_document_says(tmp_path, monkeypatch):
    import tensorflow as tf

    (line,) = re.findall(r"`(model = tf\.[^`]*)`, then `(.*?)`", (ROOT / "docs" / "leaving.md").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    succeed("search.export", FINISHED, "best", *RUNNING)
    known = {"tf": tf, "rows": np.ones((3, 2, 2, 8), np.float32)}
    exec(line[0], known)
    assert eval(line[1], known).shape == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_with_the_backbone_it_goes_from_image_to_class(name, made_world: World, tmp_path):
    head = read_head(made_world.head)
    spec = backbone_spec(made_world.head, head.metadata)
    model = build_image_model(rebuild_backbone(made_world.head, head.metadata, spec), head)
    form, out, images = format_of(name), tmp_path / name, made_images(spec.size)
    write_checked(out, form, model, file_attributes(head.metadata, IMAGE_MODEL), images)
    mirrored = np.ascontiguousarray(images[:2, :, ::-1])
    np.testing.assert_allclose(form.predict(out, mirrored), probabilities_of(model, mirrored), atol=TOLERANCE)
    if form.suffixes[:1] != (".hdf5",):
        assert told_by(out)["kind"] == "image_model"


def test_a_keras_file_is_evaluated_and_loaded_as_the_hdf5_file_is(tmp_path):
    store = ARCHIVES / "store.h5"
    succeed("search.export", FINISHED, tmp_path / "out.keras", *RUNNING)
    told = json.loads(succeed("heads.evaluate", tmp_path / "out.keras", store, "--json").out)
    expected = json.loads(succeed("heads.evaluate", ARCHIVES / "refit.hdf5", store, "--json").out)
    assert {name: value for name, value in told.items() if name != "head"} == {
        name: value for name, value in expected.items() if name != "head"
    }


@pytest.fixture(params=["out.keras", pytest.param("out", marks=NEEDS_TENSORFLOW)])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file, or a folder, that lay there before; it has to be as it was at the end."""
    out = tmp_path / request.param
    if out.suffix:
        out.write_bytes(b"old")
    else:
        out.mkdir()
        (out / "saved_model.pb").write_bytes(b"old")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    yield out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_other_probabilities_leave_the_old_one(old):
    form = format_of(old)
    wrong = replace(form, predict=lambda path, rows: form.predict(path, rows)[::-1])
    head = read_head(ARCHIVES / "ensemble.hdf5")
    rows = np.asarray(FeatureStore(ARCHIVES / "store.h5").take(np.arange(20), 0), np.float32)
    with pytest.raises(BottleneckError, match=r"does not give the model's probabilities \(up to [\d.]+ apart, 0\.0001"):
        write_checked(old, wrong, head.model, file_attributes(head.metadata, KIND), rows)


NODE = "{{function_node __wrapped__SaveV2_dtypes_6_device_/job:localhost/replica:0/task:0/device:CPU:0}} "
ENDINGS = [
    (KeyboardInterrupt, ""),
    (ValueError("no such\nkernel"), "cannot be written as .*: no such"),
    (OSError(errno.ENOSPC, "no room"), "disk full: "),
    (ValueError(f"{NODE}{'v' * 300}; No space left on device [Op:SaveV2]"), "disk full: .*; make room and"),
    (ValueError(f"{NODE}{'v' * 300} is no kernel [Op:SaveV2]"), r"cannot be written as .*: v+\.\.\.v+ is no kernel \["),
]


@pytest.mark.parametrize(("problem", "said"), ENDINGS)
def test_whatever_ends_it_leaves_the_old_one(old, problem, said):
    def write(path, model, attributes):
        form.write(path, model, attributes)
        raise problem

    form, head = format_of(old), read_head(ARCHIVES / "ensemble.hdf5")
    rows = np.ones((2, 2, 2, 8), np.float32)
    expected = KeyboardInterrupt if problem is KeyboardInterrupt else BottleneckError
    with pytest.raises(expected) as caught:
        write_checked(old, replace(form, write=write), head.model, file_attributes(head.metadata, KIND), rows)
    if expected is BottleneckError:
        assert re.match(f"{re.escape(str(old))}: {said}", str(caught.value))


def test_where_jax_was_told_of_a_gpu_alone_products_are_exact_there(tmp_path, monkeypatch):
    """``JAX_PLATFORMS=cuda``: there is no CPU to compute what is compared on."""
    jax = pytest.importorskip("jax")
    head, form, found = read_head(ARCHIVES / "ensemble.hdf5"), format_of("out.hdf5"), []

    def write(path, model, attributes):
        found.append(jax.config.jax_default_matmul_precision)
        form.write(path, model, attributes)

    monkeypatch.setattr(keras, "device", Mock(side_effect=RuntimeError("Unknown backend cpu")))
    told, rows = file_attributes(head.metadata, KIND), np.ones((2, 2, 2, 8), np.float32)
    write_checked(tmp_path / "out.hdf5", replace(form, write=write), head.model, told, rows)
    assert found == ["float32"]


def test_where_temporary_files_lack_room_they_are_named(old, monkeypatch):
    head, form = read_head(ARCHIVES / "ensemble.hdf5"), format_of(old)
    told, rows = file_attributes(head.metadata, KIND), np.ones((2, 2, 2, 8), np.float32)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    for problem, said in (
        (ValueError(f"{NODE}/nowhere/a/part-0; No space left on device [Op:SaveV2]"), "/nowhere: disk full: "),
        (FileNotFoundError(2, "No usable temporary directory found in ['/nowhere']"), "no folder for temporary files"),
    ):
        with pytest.raises(BottleneckError, match=f"^{said}"):
            write_checked(old, replace(form, write=Mock(side_effect=problem)), head.model, told, rows)


def test_who_writes_it_is_named_to_the_next_one(tmp_path):
    form, head = format_of("out.keras"), read_head(ARCHIVES / "ensemble.hdf5")
    told = file_attributes(head.metadata, KIND)
    rows = np.ones((2, 2, 2, 8), np.float32)
    out = tmp_path / "out.keras"
    with WriterLock(out), pytest.raises(BottleneckError, match=r"out\.keras: another process is writing it"):
        write_checked(out, form, head.model, told, rows)
    write_checked(out, form, head.model, told, rows)
    assert list(tmp_path.iterdir()) == [out]


def test_stopped_between_two_renames_the_old_folder_is_back(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    rename = Path.rename

    def stopped(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(self, target)

    with (
        patch.object(Path, "rename", stopped),
        pytest.raises(KeyboardInterrupt),
        replacing_folder(tmp_path / "out") as temporary,
    ):
        temporary.mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/old"]


def test_a_folder_of_other_things_is_never_replaced(tmp_path):
    form = format_of("out/")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError, match="photos: expected a new folder, or a SavedModel to replace, found a folder"):
        check_place(tmp_path / "photos", form)
    with pytest.raises(InputError, match=r"saved_model\.pb: expected a new folder.*found a file"):
        check_place(tmp_path / "saved_model.pb", form)
    with pytest.raises(InputError, match="expected a file in a folder that exists, found a folder"):
        check_place(tmp_path / "photos", format_of("x.keras"))


def _of_something_else(folder: Path) -> dict[str, Path]:
    """Files that no export writes, by what a refusal calls them."""
    made = {"a feature store": ARCHIVES / "store.h5", "features in the article's layout": ARCHIVES / "article.h5"}
    files = {said: folder / f"{number}.h5" for number, said in enumerate(made)}
    for said, path in files.items():
        path.write_bytes(made[said].read_bytes())
    with h5py.File(folder / "numbers.hdf5", "w") as file:
        file["numbers"] = np.arange(4)
    with zipfile.ZipFile(folder / "photos.keras", "w") as archive:
        archive.writestr("one.png", b"")
    (folder / "notes.onnx").write_text("what I meant to write down")
    return files | {
        "an HDF5 file without model_config": folder / "numbers.hdf5",
        "a ZIP archive that is no .keras file": folder / "photos.keras",
        "a file that is no HDF5": folder / "notes.onnx",
    }


def test_no_file_of_something_else_is_replaced(tmp_path):
    for said, path in _of_something_else(tmp_path).items():
        before = path.read_bytes()
        told = invoke("search.export", FINISHED, path, *RUNNING)
        assert told.status == 2
        assert f"{path}: expected a new file, or a model's to replace, found {said}" in told.err
        assert len(told.err.splitlines()) == 1
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_what_was_exported_before_is_replaced(name, tmp_path):
    form, out = format_of(name), Path(f"{tmp_path}/{name}")
    head = read_head(ARCHIVES / "head.hdf5")
    form.write(out, head.model, file_attributes(head.metadata, KIND))
    check_place(out, form)
    if not form.is_folder:
        out.write_bytes(b"")
        check_place(out, form)


def test_a_study_s_own_heads_are_not_written_over(tmp_path):
    study, mine = tmp_path / "study", tmp_path / "mine"
    shutil.copytree(FINISHED, study)
    for place in (study / "heads" / "trial-1.hdf5", study / "finalists" / "best.hdf5", mine / "new.hdf5"):
        if place.parent == mine:
            mine.symlink_to(study / "heads")
        before = {path.name for path in place.parent.iterdir()}
        with pytest.raises(InputError, match=f"{place}: expected a place of your own, found one in {study}"):
            search.open_study(FINISHED).export(place)
        assert {path.name for path in place.parent.iterdir()} == before
    assert (study / "heads" / "trial-1.hdf5").read_bytes() == (FINISHED / "heads" / "trial-1.hdf5").read_bytes()
    (tmp_path / "heads").mkdir()  # of nobody
    for place in (study / "best.hdf5", tmp_path / "heads" / "best.hdf5"):
        assert search.open_study(FINISHED).export(place).is_file()


def test_a_name_with_another_ending_names_those_known():
    with pytest.raises(InputError) as caught:
        format_of("best.pt")
    for suffix in (suffix for form in FORMATS for suffix in form.suffixes):
        assert f"{suffix}," in str(caught.value)
    assert "SavedModel, found best.pt" in str(caught.value)
    assert format_of("best").is_folder
    assert format_of("best.pt/").is_folder
    assert not format_of(Path("best.onnx")).is_folder
    with pytest.raises(InputError, match="OUT: expected a file or a folder, found an empty name"):
        format_of("")


def test_a_missing_package_is_named_with_its_extra(tmp_path):
    with patch.object(formats, "find_spec", lambda name: None if name == "tf2onnx" else object()):
        said = invoke("search.export", FINISHED, tmp_path / "out.onnx")
    assert said.status == 2
    assert said.err == (
        "error: .onnx: expected tensorflow, onnx, onnxruntime, tf2onnx to be installed, found no tf2onnx;"
        " pip install 'bottleneck-search[onnx]'\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "title"), [("out.tflite", ".tflite"), ("out/", "a SavedModel")])
def test_where_there_is_no_tensorflow_a_format_that_needs_it_says_so(name, title, tmp_path):
    with patch.object(formats, "find_spec", lambda name: None if name == "tensorflow" else object()):
        said = invoke("search.export", FINISHED, f"{tmp_path}/{name}")
    assert said.status == 2
    expected = "expected tensorflow to be installed, found no tensorflow; pip install tensorflow"
    assert said.err == f"error: {title}: {expected}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.tflite", "out/"])
def test_what_only_tensorflow_writes_is_refused_on_jax(name, tmp_path):
    said = invoke("search.export", FINISHED, f"{tmp_path}/{name}", "--backend", "jax")
    assert said.status == 2
    assert said.err.startswith("error: --backend: expected tensorflow, which writes ")
    assert len(said.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("running", "found"), [("jax", "jax, already in use; export in"), (None, "no such package; in")]
)
def test_nobody_who_named_no_backend_is_told_of_that_option(tmp_path, monkeypatch, running, found):
    """In a notebook whose Keras runs on JAX, and where TensorFlow is not installed."""
    if running:
        monkeypatch.setattr(keras.backend, "backend", lambda: running)
    else:
        monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(InputError) as told:
        search.open_study(FINISHED).export(tmp_path / "out.tflite")
    assert str(told.value).startswith(f"OUT: expected tensorflow, which writes .tflite, found {found}")
    assert str(told.value).endswith("; .keras and .hdf5 need no other backend")
    assert not list(tmp_path.iterdir())


def test_python_exports_as_the_command_does(tmp_path):
    out = search.open_study(FINISHED).export(tmp_path / "out.keras", trial=0)
    assert out == tmp_path / "out.keras"
    assert read_head(out).metadata.trial == 0


def test_what_a_model_of_images_leaves_to_its_user_is_said(made_world: World):
    head = read_head(made_world.head).metadata
    told = on_images(Path("m.keras"), replace(head, resize="pad"))
    assert told == (
        "m.keras: sees each image as it is; heads.predict averages over identity, flip;"
        " takes images that are 64 x 64 pixels already, as --resize pad makes them"
    )
    assert json.loads(to_json(file_attributes(replace(head, resize="pad"), IMAGE_MODEL)))["resize"] == "pad"
    assert on_images(Path("m.keras"), replace(head, views=("identity",))) is None


@pytest.mark.parametrize(("which", "number"), [("winner", 1), ("ensemble", 1), ("article", 0)])
def test_no_other_head_leaves_in_the_place_of_one_that_is_gone(tmp_path, which, number):
    study = shutil.copytree(FINISHED, tmp_path / "study")
    (lost := study / "heads" / f"refit-{number}.hdf5").unlink()
    with pytest.raises(InputError) as told:
        search.open_study(study).export(tmp_path / "out.hdf5", which=which)
    hint = "go on with --resume, which makes it anew"
    assert str(told.value) == f"{lost}: expected the head that was trained again, found no such file; {hint}"
    assert search.open_study(study).export(tmp_path / "out.hdf5", trial=number).is_file()


def test_nor_does_one_that_lies_in_the_place_of_a_trials_own(tmp_path):
    study = shutil.copytree(FINISHED, tmp_path / "study")
    shutil.copy(path_of(study, 0), path_of(study, 1))
    with pytest.raises(InputError, match="expected the head of trial 1, found the head of trial 0 of study "):
        search.open_study(study).export(tmp_path / "out.hdf5", trial=1)
    assert not (tmp_path / "out.hdf5").exists()


def changed(folder: Path, heads: dict[int, dict]) -> Path:
    """The finished study, which recommends its finalists' average, with other metadata in some of its heads."""
    shutil.copytree(FINISHED, folder)
    for number, changes in heads.items():
        head = read_head(path := refit_path_of(folder, number))
        save_head(path, head.model, replace(head.metadata, **changes))
    told = json.loads((path := folder / "summary.json").read_text())
    contender = {"kind": "ensemble", "trials": [1, 2], "value": 1.0, "behind": 0.0, "error": 0.0}
    path.write_text(json.dumps(told | {"recommendation": {"kind": "ensemble", "contenders": [contender]}}))
    return folder


OF_NOBODY = {"backbone": "unknown", "alpha": None, "weights": "unknown", "weights_sha256": "", "image_size": 0}
OF_TWO_STORES = {number: {**OF_NOBODY, "store_fingerprint": f"{number}" * 64} for number in (1, 2)}
OTHERWISE_SQUARE = {2: {"resize": "pad"}}
OTHERWISE_SCALED = {1: {"intensity": "0:4095"}, 2: {"intensity": "0:65535"}}
BRINGS = ", which only --with-backbone brings together"


@pytest.mark.parametrize(
    ("heads", "backbone", "why"),
    [
        (
            OF_TWO_STORES,
            False,
            "take the features of an unknown backbone (store 1111111111111111), an unknown backbone",
        ),
        (OF_TWO_STORES, True, "take the features of an unknown backbone (store 1111111111111111), an unknown backbone"),
        (
            {2: {"backbone_sha256": "f" * 64, "layer": "conv"}},
            False,
            "take the features of mobilenet at 64 pixels (its own output), mobilenet at 64 pixels (layer conv), which",
        ),
        (OTHERWISE_SQUARE, False, "were trained on images made square by squash and by pad; one model takes one"),
        (OTHERWISE_SQUARE, True, "were trained on images made square by squash and by pad; one model takes one"),
        (
            OTHERWISE_SCALED,
            True,
            "were trained on images scaled by 0:4095 and by 0:65535; one model takes one",
        ),
        ({2: {"views": ("identity",)}}, False, "were trained on identity, flip (float16) and on identity (float16)"),
        ({2: {"dtype": "float32"}}, False, "were trained on identity, flip (float16) and on identity, flip (float32)"),
    ],
)
def test_an_average_that_no_file_can_hold_gives_way_to_the_winner(heads, backbone, why, tmp_path):
    record = read_record(changed(tmp_path / "study", heads))
    leaving = what_leaves(record, ExportOptions(with_backbone=backbone))
    assert [path.name for path in leaving.paths] == ["refit-1.hdf5"]
    assert f"recommended is the average of the finalists, but its heads {why}" in leaving.remark
    assert (BRINGS in leaving.remark) == (heads not in (OF_TWO_STORES, OTHERWISE_SQUARE, OTHERWISE_SCALED))
    with pytest.raises(InputError, match="--which: expected heads that one file can hold, found its heads "):
        what_leaves(record, ExportOptions(which="ensemble", with_backbone=backbone))


def test_of_own_heads_there_is_no_average_of_several_seeds():
    record = read_record(FINISHED)
    for config, why in (
        (record.config, "expected a study whose finalists were repeated several times"),
        (record.config.model_copy(update={"head": "heads.py:make"}), "found an own head: these are not trained again"),
    ):
        with pytest.raises(InputError, match=why):
            what_leaves(replace(record, config=config), ExportOptions(which="repeats"))


def test_heads_of_one_store_leave_together_whatever_its_backbone_is(tmp_path):
    folder = changed(tmp_path / "study", dict.fromkeys((1, 2), OF_NOBODY))
    assert recommended_head(folder).metadata.trials == (1, 2)


def test_with_the_backbone_heads_on_other_views_are_averaged(tmp_path):
    backbone = build_backbone(BackboneSpec(name="mobilenet", alpha=0.25, weights="random:1", image_size=32))
    told = HeadMetadata(classes=("A", "B"), feature_shape=backbone.feature_shape, alpha=0.25, versions={})
    told = replace(told, backbone="mobilenet", weights="random:1", image_size=32, preprocessing="backbone")
    paths, heads = [tmp_path / "0.hdf5", tmp_path / "1.hdf5"], []
    for number, (path, views) in enumerate(zip(paths, (("identity",), ("identity", "flip")), strict=True)):
        model = build_head(HeadSpec(conv_width=16), backbone.feature_shape, 2, seed=number)
        save_head(path, model, replace(told, views=views, trial=number))
        heads.append(read_head(path))
    model, metadata = image_model_of(Leaving(paths, 1.5), ExportOptions(with_backbone=True))
    assert (metadata.views, metadata.trials, metadata.temperature) == (("identity", "flip"), (0, 1), 1.5)
    assert sum(layer.name.startswith("backbone_") for layer in model.layers) == 1
    images = made_images(32)
    expected = [probabilities_of(build_image_model(backbone, head), images) for head in heads]
    np.testing.assert_allclose(probabilities_of(model, images), np.mean(expected, axis=0), atol=1e-5)
