"""What is refused: each in one line that says where, what was expected and what was found, with its exit status.

Through the commands as they are run, and through the Python door; nothing is made, and nobody sees a traceback.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import invoke
from conftest import ROOT, build_header, build_store, fill_store

import features
import heads
import search
from features.runtime.errors import BottleneckError, InputError
from features.store.reader import FeatureStore
from heads.files.head_file import save_head
from heads.files.metadata import HeadMetadata
from heads.files.split_recipe import SplitRecipe
from heads.model.build import build_head
from heads.model.spec import HeadSpec

ARCHIVES = ROOT / "tests" / "archives"
Case = tuple[str, str]
"""Arguments, with {names} of files of ``place``, and the line that comes, without ``error: ``."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores, a head of the first, a study, and files that are none of these."""
    folder = tmp_path_factory.mktemp("refusals")
    store = FeatureStore(build_store(folder / "store.h5", rows=48))
    build_store(folder / "wide.h5", rows=48, shape=(2, 2, 16))
    header = replace(build_header(rows=24), image_size=96)
    fill_store(folder / "large.h5", header)
    shutil.copy(ARCHIVES / "unfinished.h5", folder / "unfinished.h5")
    shutil.copy(ARCHIVES / "article.h5", folder / "article.h5")
    shutil.copytree(ARCHIVES / "finished", folder / "study")
    (folder / "text.h5").write_text("not HDF5")
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, versions={})
    split = SplitRecipe(seed=0, validation=0.2, test=0.2, identity="another")
    for name, known in {"head": metadata, "split": replace(metadata, split=split)}.items():
        save_head(folder / f"{name}.hdf5", build_head(HeadSpec(conv_width=16), (2, 2, 8), 4), known)
    bad = replace(split, seed=-1)
    save_head(folder / "odd.hdf5", build_head(HeadSpec(conv_width=16), (2, 2, 8), 4), replace(metadata, split=bad))
    for name, text in STUDY_FILES.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


RANGE = 'name = "q"\n[space]\n{} = {{ {} }}\n'
STUDY_FILES = {
    "toml": "name = ",
    "key": 'name = "q"\nnmae = 3\n[space]\ndropout = [0.1, 0.2]\n',
    "nameless": "[space]\ndropout = [0.1, 0.2]\n",
    "path": 'name = "a/b"\n[space]\ndropout = [0.1, 0.2]\n',
    "empty": 'name = "q"\n',
    "run": 'name = "q"\n[run]\nepochs = 0\n[space]\ndropout = [0.1, 0.2]\n',
    "sampler": 'name = "q"\n[run]\nsampler = "grid"\n[space]\ndropout = [0.1, 0.2]\n',
    "parameter": 'name = "q"\n[space]\nwidth = [16, 32]\n',
    "twice": 'name = "q"\n[space]\ndropout = [0.1, 0.1]\n',
    "value": 'name = "q"\n[space]\ndropout = [0.1, 1.5]\n',
    "fixed": 'name = "q"\n[space]\npooling = "median"\n',
    "low": RANGE.format("dropout", "low = 0.5, high = 0.1"),
    "log": RANGE.format("learning_rate", "low = 0, high = 0.1, log = true"),
    "both": RANGE.format("learning_rate", "low = 0.01, high = 0.1, log = true, step = 0.01"),
    "extra": RANGE.format("dropout", "low = 0.1, high = 0.5, mid = 0.2"),
    "half": RANGE.format("dense_units", "low = 16.5, high = 32"),
    "steps": RANGE.format("conv_width", "low = 16, high = 40, step = 16"),
    "stepless": RANGE.format("conv_width", "low = 16, high = 64"),
    "names": RANGE.format("pooling", "low = 0, high = 1"),
    "beyond": RANGE.format("dropout", "low = 0.1, high = 1.0"),
    "zero": RANGE.format("learning_rate", "low = 0.001, high = 0.1, or_zero = true"),
    "step": RANGE.format("conv_width", "low = 16, high = 64, step = 8"),
    "text": RANGE.format("dropout", 'low = "0.1", high = 0.5'),
    "truth": RANGE.format("dropout", "low = false, high = 0.5"),
    "one": RANGE.format("learning_rate", "low = 0.001, high = 0.1, log = 1"),
    "yes": RANGE.format("weight_decay", 'low = 0.001, high = 0.1, or_zero = "yes"'),
    "twelve": 'name = "q"\n[run]\ntrials = "12"\n[space]\ndropout = [0.1, 0.2]\n',
    "good": 'name = "q"\n[space]\ndropout = [0.1, 0.2]\n',
    "narrow": 'name = "q"\n[space]\nconv_width = [32, 64]\n',
}
STUDIES: dict[str, str] = {
    "toml": "{toml.toml}: expected TOML, found ",
    "key": "{key.toml}: nmae: expected no such key, found 3",
    "nameless": "{nameless.toml}: name: expected a value, found none",
    "path": "{path.toml}: name: expected letters, digits, ., - and _, which name a folder, found '",
    "empty": "{empty.toml}: space: expected at least one list or range to search over, found none",
    "run": "{run.toml}: run.epochs: expected greater than or equal to 1, found 0",
    "sampler": "{sampler.toml}: run.sampler: expected 'tpe', 'bohb', 'random' or 'qmc', found 'grid'",
    "parameter": "{parameter.toml}: space.width: expected one of conv_width, batch_norm, ",
    "twice": "{twice.toml}: space.dropout: expected a list of different values, found [0.1, 0.1]",
    "value": "{value.toml}: space.dropout: expected ",
    "fixed": "{fixed.toml}: space.pooling: expected ",
    "low": "{low.toml}: space.dropout: expected low <= high, found low = 0.5 and high = 0.1",
    "log": "{log.toml}: space.learning_rate: expected low > 0 on a logarithmic scale, found 0",
    "both": "{both.toml}: space.learning_rate: expected log or step, found both",
    "extra": "{extra.toml}: space.dropout.mid: expected no such key, found 0.2",
    "half": "{half.toml}: space.dense_units.low: expected a whole number, found 16.5",
    "steps": "{steps.toml}: space.conv_width.high: expected low plus a multiple of step, found low = 16, step = 16",
    "stepless": "{stepless.toml}: space.conv_width.step: expected a multiple of 16, found none",
    "names": "{names.toml}: space.pooling: expected a list of choices, found a range",
    "beyond": "{beyond.toml}: space.dropout.high: expected ",
    "zero": "{zero.toml}: space.learning_rate.or_zero: expected ",
    "step": "{step.toml}: space.conv_width.step: expected a positive multiple of 16, found 8",
    "text": "{text.toml}: space.dropout.low: expected a valid number, found '0.1'",
    "truth": "{truth.toml}: space.dropout.low: expected a valid number, found False",
    "one": "{one.toml}: space.learning_rate.log: expected a valid boolean, found 1",
    "yes": "{yes.toml}: space.weight_decay.or_zero: expected a valid boolean, found 'yes'",
    "twelve": "{twelve.toml}: run.trials: expected a valid integer, found '12'",
}
RUN = "search.run --out {new} "
GOOD = RUN + "--features {store.h5} --study {good.toml} "
COMMANDS: dict[str, Case] = {
    "no study file": (RUN + "--study {gone}", "{gone}: expected a study file (TOML), found no such file"),
    "a folder for one": (RUN + "--study {study}", "{study}: expected a study file (TOML), found a folder"),
    "an unknown option": (RUN + "--epocs 3", "No such option: --epocs"),
    "a pruner": (RUN + "--pruner asha", "Invalid value for '--pruner': 'asha' is not one of "),
    "no trial": (RUN + "--trials 0", "Invalid value for '--trials': Input should be greater than or equal to 1"),
    "a text for a number": (RUN + "--seed a", "Invalid value for '--seed': Input should be a valid integer"),
    "one fold": (GOOD + "--folds 1", "--folds: expected 0, or at least 2 with the fused engine, found 1 with fused"),
    "folds alone": (GOOD + "--folds 3 --engine solo", "--folds: expected 0, or at least 2 with the fused engine"),
    "folds and a store": (GOOD + "--folds 3 --validation {wide.h5}", "{wide.h5}: feature_shape: expected (2, 2, 8) as"),
    "folds beside a store": (
        GOOD + "--folds 3 --validation {store.h5}",
        "--folds: expected no --validation STORE beside it, found 3",
    ),
    "no validation": (GOOD + "--validation-fraction 0", "--validation-fraction: expected a share above 0, or --valid"),
    "twice the rows": (GOOD + "--validation-fraction 2", "--validation-fraction: expected a number in [0, 1), found 2"),
    "all to validate": (
        GOOD + "--validation-fraction 0.9",
        "--validation-fraction: expected shares that leave rows to train on, found 0.9, beside --test-fraction ",
    ),
    "all for the test": (GOOD + "--test-fraction 0.9", "--test-fraction: expected shares that leave rows to train on"),
    "less than nothing": (GOOD + "--test-fraction -0.1", "--test-fraction: expected a number in [0, 1), found -0.1"),
    "less to validate": (
        GOOD + "--validation-fraction -0.1",
        "--validation-fraction: expected a number in [0, 1), found -0.1",
    ),
    "a share of no use": (
        GOOD + "--folds 3 --validation-fraction 0.2",
        "--validation-fraction: expected none beside --folds, found 0.2",
    ),
    "a share of another store": (
        GOOD + "--test {wide.h5} --test-fraction 0.2",
        "--test-fraction: expected none beside --test, found 0.2",
    ),
    "no number": (GOOD + "--test-fraction nan", "--test-fraction: expected a number in [0, 1), found nan"),
    "many folds": (
        GOOD + "--folds 40 --test-fraction 0",
        "{store.h5}: split: expected at least 40 patients for --folds 40, found 16 patients of 48 images; ",
    ),
    "a small class": (
        GOOD + "--folds 14 --test-fraction 0",
        "{store.h5}: split: expected at least 14 images of every class for --folds 14, found CNV: 12 images of 4",
    ),
    "a small class for the balanced weights": (
        GOOD + "--class-weights balanced --test-fraction 0.05",
        "{store.h5}: split: expected at least 19 patients for --test-fraction 0.05, found 16 patients of 48 images; ",
    ),
    "a file for a folder": (
        "search.run --features {store.h5} --study {good.toml} --out {text.h5}",
        "--out: expected a folder, found {text.h5}, a file",
    ),
    "a study that is there": (
        "search.run --features {store.h5} --study {good.toml} --out {study}",
        "{study}: expected no study there yet, found study.json; pass --resume to go on with it, or --out for another",
    ),
    "none to resume": (GOOD + "--resume", "{new}: study.json: expected a study directory, found no such file"),
    "none begun to resume": (
        GOOD + "--out {study}/heads --resume",
        "{study}/heads: expected a study to go on with, found no study.json: none was begun; without --resume the same",
    ),
    "another store to resume": (
        "search.run --features {store.h5} --out {study} --resume",
        "{store.h5}: fingerprint: expected ",
    ),
    "another store to validate": (GOOD + "--validation {wide.h5}", "{wide.h5}: feature_shape: expected (2, 2, 8) as "),
    "another store to test": (
        GOOD + "--test {large.h5}",
        "{large.h5}: image_size: expected 64 as in {store.h5}, found",
    ),
    "an unfinished store": (
        RUN + "--features {unfinished.h5} --study {good.toml}",
        "{unfinished.h5}: complete: expected a finished store, found ",
    ),
    "no store": (RUN + "--features {gone}", "{gone}: expected a feature store, found no such file"),
    "text": (RUN + "--features {text.h5}", "{text.h5}: expected a feature store, found a file that is no HDF5"),
    "a backend": (GOOD + "--backend torch", "Invalid value for '--backend': 'torch' is not one of "),
    "few pages": (
        "search.run --features {store.h5} --study {narrow.toml} --out {pages} --pages 1",
        "--pages: expected at least 4, for the widest head of the space, found 1",
    ),
    "a name to export": (
        "search.export {study} {new}.pt",
        "OUT: expected a name that ends in one of .hdf5, .h5, ",
    ),
    "a folder to export to": ("search.export {study} {gone}/a.h5", "{gone}/a.h5: expected a file in a folder that "),
    "weights without a backbone": (
        "search.export {study} {new}.h5 --weights w.h5",
        "--weights: expected --with-backbone beside it, found none",
    ),
    "an ensemble of one": (
        "search.export {study} {new}.h5 --which ensemble --trial 1",
        "--which: expected no --trial beside it, found --trial 1",
    ),
    "a head that was not kept": (
        "search.export {study} {new}.h5 --trial 99",
        "--trial: expected one of those kept, 0, 1, 2, found 99",
    ),
    "no study to export": ("search.export {gone} {new}.h5", "{gone}: study.json: expected a study directory, found "),
    "no study to report": (
        "search.report {gone}",
        "{gone}: study.json: expected a study directory, found no such file",
    ),
    "a report to nowhere": (
        "search.report {study} --out {gone}/r.html",
        "--out: expected a file in a folder that exis",
    ),
    "no study to show": (
        "search.dashboard {gone}",
        "{gone}: study.json: expected a study directory, found no such file",
    ),
    "no head": ("heads.evaluate {gone} {store.h5}", "{gone}: expected a head"),
    "no head in text": ("heads.evaluate {text.h5} {store.h5}", "{text.h5}: expected a head"),
    "no store to evaluate on": ("heads.evaluate {head.hdf5} {gone}", "{gone}: expected a feature store, found no such"),
    "an unfinished one": (
        "heads.evaluate {head.hdf5} {unfinished.h5}",
        "{unfinished.h5}: complete: expected a finished store, found ",
    ),
    "other features": (
        "heads.evaluate {head.hdf5} {wide.h5}",
        "{wide.h5}: feature_shape: expected (2, 2, 8) as {head.hdf5}, found (2, 2, 16)",
    ),
    "a part of no split": (
        "heads.evaluate {head.hdf5} {store.h5} --part test",
        "{head.hdf5}: split: expected how the store was split, for --part, found none; --part all scores all rows",
    ),
    "a part of an odd split": (
        "heads.evaluate {odd.hdf5} {store.h5} --part test",
        "{odd.hdf5}: split: expected a JSON object that fits, found another (seed -1, which is none)",
    ),
    "a part of another split": (
        "heads.evaluate {split.hdf5} {store.h5} --part test",
        "{store.h5}: split: expected split another as {split.hdf5}, found ",
    ),
    "no such part": ("heads.evaluate {head.hdf5} {store.h5} --part best", "Invalid value for '--part': 'best' is not"),
    "images without a report": (
        "heads.evaluate {head.hdf5} {store.h5} --images {study}",
        "--images: expected --report DIR, which shows them, found none",
    ),
    "images of others": (
        "heads.evaluate {head.hdf5} {store.h5} --images {study} --report {new}",
        "{study}: expected the folder with {store.h5}'s images, such as CNV/CNV-1000-1.png, found none of them",
    ),
    "no images": (
        "heads.evaluate {head.hdf5} {store.h5} --images {gone} --report {new}",
        "{gone}: expected the folder with {store.h5}'s images, such as CNV/CNV-1000-1.png, found no such folder",
    ),
    "a file for a report": (
        "heads.evaluate {head.hdf5} {store.h5} --report {text.h5}",
        "{text.h5}: expected a folder, found a file",
    ),
    "occlusion alone": (
        "heads.predict {head.hdf5} a.png --occlusion",
        "--occlusion: expected --heatmaps DIR, where the maps go, found none",
    ),
    "maps among the images": (
        "heads.predict {head.hdf5} {study} --heatmaps {study}",
        "--heatmaps: expected a folder of its own, apart from the images, found {study}, which is to be predicted",
    ),
    "a view to predict": ("heads.predict {head.hdf5} a.png --views upside-down", "--views: 'upside-down': expected "),
    "another backbone": (
        "heads.predict {head.hdf5} a.png --backbone vgg16",
        "--backbone: expected mobilenet, as {head.hdf5} says, found ",
    ),
    "no batch": (
        "heads.predict {head.hdf5} a.png --batch-size 0",
        "Invalid value for '--batch-size': Input should be greater than or equal to 1",
    ),
    "a dtype": (
        "features.convert {article.h5} {new} --dtype int8",
        "Invalid value for '--dtype': 'int8' is not one of ",
    ),
    "classes of a store": (
        "features.convert {store.h5} {new} --classes a,b",
        "--classes: expected a source of arrays or of the article's layout, found a store, which has its own",
    ),
    "few names": ("features.convert {article.h5} {new} --classes a", "--classes: expected "),
    "nothing to look at": ("features.info {gone}", "{gone}: expected a feature store, found no such file"),
    "no images to extract": ("features.extract {gone} {new}", "{gone}: expected an image folder, found no such folder"),
    "a backbone": ("features.extract {study} {new} --backbone alexnet", "--backbone: expected one of "),
}


def filled(text: str, place: Path) -> str:
    import re

    return re.sub(r"\{([\w.]+)\}", lambda name: str(place / name[1]), text)


@pytest.mark.parametrize(
    ("line", "message"),
    [*COMMANDS.values(), *((f"{RUN}--study {{{name}.toml}}", said) for name, said in STUDIES.items())],
    ids=[*COMMANDS, *(f"study file: {name}" for name in STUDIES)],
)
def test_a_command_says_in_one_line_what_it_cannot_do(place, line, message):
    before = {path.name for path in place.iterdir()}
    module, *arguments = (filled(word, place) for word in line.split())
    status, out, err = invoke(module, *arguments)
    assert (status, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {filled(message, place)}")
    assert "Traceback" not in err
    assert {path.name for path in place.iterdir()} - before <= {"pages"}


@pytest.mark.parametrize(
    "line",
    [
        "search.run --features {store.h5} --study {good.toml} --out",
        RUN + "--images",
        "heads.predict {head.hdf5} {store.h5} --heatmaps",
        "features.extract {study} {new} --table",
        "features.convert {store.h5}",
    ],
)
def test_an_empty_text_for_a_path_is_not_the_current_folder(place, line):
    """As of a shell's variable that is not set."""
    module, *arguments = (filled(word, place) for word in line.split())
    status, out, err = invoke(module, *arguments, "")
    named = arguments[-1] if arguments[-1].startswith("--") else "DESTINATION"
    said = f"error: Invalid value for '{named}': expected a file or a folder, found an empty name (see --help)\n"
    assert (status, out, err) == (2, "", said)


def test_nothing_is_written_where_the_name_is_a_folders(place, monkeypatch):
    before = sorted(place.iterdir())
    monkeypatch.chdir(place)
    status, out, err = invoke("features.convert", "store.h5", ".")
    assert (status, out) == (2, "")
    assert err == "error: .: expected the name of what is to be made, found a folder that is there\n"
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "line",
    [
        RUN + "--study {long}",
        "features.extract {study} {new} --table {long}.csv",
        "features.extract {study} {new} --weights {long}.h5",
        "features.extract {study} {new} --backbone {long}.keras",
        "features.convert {long}.npz {new}",
        "heads.evaluate {long}.hdf5 {store.h5}",
        "heads.evaluate {head.hdf5} {store.h5} --confusion {long}.csv",
        "search.export {study} {long}.hdf5",
        "search.report {study} --out {long}.html",
    ],
)
def test_a_path_that_the_system_does_not_look_at_is_one_line(place, line):
    """As one in a folder that may not be entered, which a superuser may."""
    module, *arguments = (filled(word.replace("{long}", "x" * 300), place) for word in line.split())
    status, out, err = invoke(module, *arguments)
    assert (status in (1, 2), out) == (True, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert err.endswith("File name too long\n")


Door = tuple[Callable[[Path], object], str]
DOORS: dict[str, Door] = {
    "an unknown option of a search": (
        lambda at: search.run_study(at / "store.h5", epocs=3),
        "epocs: expected an option of a search, found none of that name; is epochs meant?",
    ),
    "a number for a store": (lambda at: search.run_study(5), "--features: expected a valid string, found 5"),
    "a text for trials": (
        lambda at: search.run_study(at / "store.h5", trials="x"),
        "--trials: expected a valid integer",
    ),
    "no study": (lambda at: search.open_study(at / "gone"), "{gone}: study.json: expected a study directory, found no"),
    "a trial in words": (
        lambda at: search.open_study(at / "study").export(at / "new.h5", trial="best"),
        "--trial: expected a valid integer",
    ),
    "a trial that was not kept": (
        lambda at: search.open_study(at / "study").export(at / "new.h5", trial=99),
        "--trial: expected one of those kept, 0, 1, 2, found 99",
    ),
    "an unknown option of an export": (
        lambda at: search.open_study(at / "study").export(at / "new.h5", trail=1),
        "trail: expected an option of an export, found none of that name; is trial meant?",
    ),
    "a backend": (
        lambda at: heads.load_head(at / "head.hdf5", backend="torch"),
        "--backend: expected tensorflow or jax, found",
    ),
    "no head": (lambda at: heads.load_head(at / "gone"), "{gone}: expected a head"),
    "no such part": (
        lambda at: heads.load_head(at / "head.hdf5").evaluate(at / "store.h5", "best"),
        "part: expected one of all, train, validation, test, found best",
    ),
    "no such class": (
        lambda at: heads.load_head(at / "head.hdf5").heatmap("a.png", "x"),
        "class_name: expected one of CNV, DME, DRUSEN, NORMAL, found x",
    ),
    "an option of a prediction": (
        lambda at: heads.load_head(at / "head.hdf5").predict("a.png", batch_size="many"),
        "--batch-size: expected a valid integer",
    ),
    "other features": (
        lambda at: heads.load_head(at / "head.hdf5").predict("a.png"),
        "--backbone: expected a backbone with features (2, 2, 8), as {head.hdf5} takes, found ",
    ),
    "views": (
        lambda at: features.extract(at / "study", at / "new", views=5),
        "--views: expected a valid string, found 5",
    ),
    "a dtype": (
        lambda at: features.convert(at / "article.h5", at / "new", dtype="float64"),
        "--dtype: expected 'float16' or 'float32', found 'float64'",
    ),
    "no rows in a batch": (
        lambda at: features.convert(at / "article.h5", at / "new", batch_size=0),
        "--batch-size: expected greater than or equal to 1, found 0",
    ),
    "fewer than none": (
        lambda at: features.convert(at / "store.h5", at / "new", batch_size=-1),
        "--batch-size: expected greater than or equal to 1, found -1",
    ),
    "a file that is there": (
        lambda at: features.convert(at / "store.h5", at / "text.h5"),
        "{text.h5}: expected no such file, found one",
    ),
    "fewer scans than one": (
        lambda at: features.make_scans(at / "new", seed=0, per_class=-2),
        "per_class: expected a whole number of at least 1, found -2",
    ),
    "a seed in words": (
        lambda at: features.make_scans(at / "new", seed="x"),
        "seed: expected a whole number of at least 0, found 'x'",
    ),
    "a folder of something else": (
        lambda at: features.make_scans(at / "study", seed=0),
        "{study}: expected no such folder, or the demonstration's scans, found another",
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_python_gets_the_same_as_an_error(place, name):
    call, message = DOORS[name]
    with pytest.raises(InputError) as caught:
        call(place)
    assert str(caught.value).startswith(filled(message, place))
    assert isinstance(caught.value, BottleneckError)
    assert not (place / "new").exists()
