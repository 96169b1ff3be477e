"""What a notebook user writes: ``from features import ...``."""

from __future__ import annotations

import inspect
import random
import subprocess
import sys
from pathlib import Path

import made_backbone
import pytest
from commands import words
from conftest import ROOT
from made_images import noise, put_image

import features
from features import BottleneckError, FeatureStore, InputError, extract, network_layers
from features.extraction import extraction
from features.runtime.options import tell_options

pytestmark = pytest.mark.usefixtures("drawn_once")

SMALL = made_backbone.SMALL | {"weights": "random"}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for row in range(8):
        name, number = ("CNV", "NORMAL")[row // 4], row % 4
        put_image(folder / name / f"{name}-{number // 2}-{number}.png", noise(row, 40, 40))
    (folder / "CNV" / "CNV-9-1.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("beside the classes")
    return folder


@pytest.fixture(scope="module")
def store(images, tmp_path_factory) -> FeatureStore:
    return extract(str(images), str(tmp_path_factory.mktemp("out") / "s.h5"), views=["identity", "flip"], **SMALL)


def test_a_folder_becomes_a_store_to_look_at(store):
    assert isinstance(store, FeatureStore)
    assert store.complete
    assert store.header.views == ("identity", "flip")
    frame = store.to_frame()
    assert len(frame) == 9
    assert frame.groupby("class")["patient"].nunique().to_dict() == {"CNV": 3, "NORMAL": 2}
    assert frame.loc[frame["state"] == "skipped", "path"].tolist() == ["CNV/CNV-9-1.png"]


@pytest.mark.slow
def test_the_command_makes_the_same_store(images, store, tmp_path):
    command = [sys.executable, "-m", "features.extract", str(images), str(tmp_path / "c.h5"), *words(SMALL)]
    done = subprocess.run([*command, "--views", "identity,flip"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.h5").read_bytes() == store.path.read_bytes()


def test_it_says_how_far_it_is_unless_told_not_to(images, tmp_path, capsys):
    extract(images, tmp_path / "a.h5", **SMALL)
    out, err = capsys.readouterr()
    assert out == ""
    assert "note: " in err
    assert "extracting" in err
    extract(images, tmp_path / "b.h5", progress=False, **SMALL)
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_random_draws_what_it_would_have_drawn(images, tmp_path, monkeypatch):
    before, build = random.getstate(), extraction.build_backbone
    monkeypatch.setattr(extraction, "build_backbone", lambda spec: [build(spec), random.random()][0])  # as Keras does
    extract(images, tmp_path / "a.h5", progress=False, **SMALL)
    assert network_layers("mobilenet", alpha=0.25, image_size=32)
    assert random.getstate() == before


def test_a_store_that_is_there_is_opened_and_another_one_refused(images, store):
    before = store.path.stat().st_mtime_ns
    again = extract(images, store.path, views="identity,flip", **SMALL)
    assert again.fingerprint == store.fingerprint
    assert store.path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="views") as caught:
        extract(images, store.path, views=["identity"], **SMALL)
    assert caught.value.field == "views"


def test_an_interrupted_extraction_goes_on(images, store, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("features.store.writer.StoreWriter.finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(images, tmp_path / "s.h5", views=["identity", "flip"], **SMALL)
    assert not FeatureStore(tmp_path / "s.h5").complete
    assert extract(images, tmp_path / "s.h5", views=["identity", "flip"], **SMALL).complete
    assert (tmp_path / "s.h5").read_bytes() == store.path.read_bytes()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "--batch-size: expected greater than or equal to 1, found 0"),
        ({"dtype": "float8"}, "--dtype: expected 'float16' or 'float32', found 'float8'"),
        ({"backbone": "alexnet"}, "--backbone: expected one of"),
        ({"views": ["sideways"]}, "--views"),
        ({"backend": "jax"}, "--backend: expected tensorflow, already in use, found jax"),
    ],
)
def test_what_does_not_fit_is_refused_in_the_words_of_the_command(images, tmp_path, options, text):
    import keras  # noqa: F401  a backend is in use

    with pytest.raises(InputError) as caught:
        extract(images, tmp_path / "s.h5", **SMALL | options)
    assert str(caught.value).startswith(text)
    assert isinstance(caught.value, BottleneckError)
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_there_is_not_is_a_mistake_in_the_call(images, tmp_path):
    with pytest.raises(InputError, match=r"bakbone: expected an option of an extraction, .*is backbone meant"):
        extract(images, tmp_path / "s.h5", bakbone="vgg16")


@pytest.mark.parametrize(
    ("door", "own", "options"),
    [
        (extract, ["images", "store", "progress", "table"], features.ExtractionOptions),
        (features.compress, ["store", "out", "progress"], features.CompressionOptions),
        (features.convert, ["source", "destination", "progress"], features.ConversionOptions),
    ],
)
def test_options_are_said_once(invoke, door, own, options):
    """The model's fields are the keyword arguments, as help() shows them, and the command's options."""
    parameters = inspect.signature(door).parameters
    assert list(parameters) == [*own, *(name for name in options.model_fields if name not in own)]
    _, told, _ = invoke(f"features.{door.__name__}", "--help")
    for name, field in options.model_fields.items():
        assert f"\n    {name}: " in inspect.getdoc(door)
        assert parameters[name].default == field.default
        assert f"--{name.replace('_', '-')}" in told
    assert "--no-" not in told


@pytest.mark.parametrize("read", [str, inspect.cleandoc], ids=["up to Python 3.12", "from 3.13 on"])
def test_options_stand_in_a_docstring_however_python_keeps_it(read):
    def door() -> None: ...

    door.__doc__ = read("""Does it.

    Args:
        progress: Whether to show it.
        options: Those of the command:

    {options}

    Returns:
        Nothing.
    """)
    tell_options(door, features.CompressionOptions)
    kept = inspect.getdoc(door)
    assert "\n    channels: " in kept
    assert "{" not in kept
    assert kept.startswith("Does it.\n\nArgs:\n    progress: ")
    assert kept.endswith("\n\nReturns:\n    Nothing.")


ORDERS = (
    "from features import extract; import features.extract",
    "import features.extract",
    "from features.extract import describe",
    "import features.compress, features.convert",
)


@pytest.mark.parametrize("order", ORDERS)
def test_a_name_is_the_function_whoever_imported_the_command(order):
    code = f"{order}\nimport features, inspect\nfrom features import compress, convert, extract\n"
    code += "assert all(map(inspect.isfunction, (compress, convert, extract))) and features.extract is extract"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_the_package_loads_next_to_nothing():
    code = "import sys; before = set(sys.modules); import features; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"keras", "tensorflow", "jax", "PIL", "numpy", "h5py", "pandas", "pydantic", "typer", "rich"}
    code = f"import sys, features; [getattr(features, n) for n in {features.__all__!r}]; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_names_are_listed_and_others_refused():
    assert set(features.__all__) <= set(dir(features))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = features.nothing
