"""Several stores of a study: their names, and that they are of the same images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import build_header, build_store, fill_store
from hypothesis import given
from hypothesis import strategies as st
from made_data import made_data

from features.runtime.errors import InputError
from heads.files.metadata import HeadMetadata
from search.setup.stores import StudyData, named_paths, part_paths, require_same_images, split_name, with_name

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)


@given(names=st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_a_store_has_the_name_that_it_is_given(names):
    given_paths = [f"{name}=folder/{number}.h5" for number, name in enumerate(names)]
    assert named_paths(given_paths) == {name: Path(f"folder/{number}.h5") for number, name in enumerate(names)}


def test_else_it_has_its_files_name():
    assert named_paths(["x/small.h5", "large=y/small.h5"]) == {"small": Path("x/small.h5"), "large": Path("y/small.h5")}


@pytest.mark.parametrize("name", ["my scans", "scans (1)", "Größe 2,5"])
def test_what_a_file_is_called_is_a_name_that_can_be_given_again(tmp_path, name):
    first = named_paths([str(tmp_path / f"{name}.h5")])
    assert first == {name: tmp_path / f"{name}.h5"}
    assert named_paths([f"{name}={path}" for name, path in first.items()]) == first


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path, monkeypatch):
    path = tmp_path / "lr=1.h5"
    path.write_bytes(b"")
    assert named_paths([str(path)]) == {"lr=1": path}
    monkeypatch.chdir(tmp_path)
    assert split_name("lr=1.h5") == (None, "lr=1.h5")
    assert split_name("other=1.h5") == ("other", "1.h5")
    assert split_name("a=lr=1.h5") == ("a", "lr=1.h5")
    assert split_name("a=b=1.h5") == ("a", "b=1.h5")  # where neither is there


def test_names_with_equals_signs_can_be_given_again(tmp_path, monkeypatch):
    paths = {name: tmp_path / "k=v" / f"{name}.h5" for name in ("lr=1", "lr=2", "a=b=c")}
    first = named_paths([str(path) for path in paths.values()])
    assert first == paths
    told = [with_name(name, path) for name, path in first.items()]
    assert named_paths(told) == first  # also where none is there any more
    assert part_paths(tuple(first), told[::-1], option="--test") == first
    assert split_name(with_name("lr=1", "s3://bucket/k=v.h5")) == ("lr=1", "s3://bucket/k=v.h5")


@pytest.mark.parametrize("path", ["lr=1.h5", "k=v/a.h5", "folder/lr=1.h5", "a.h5"])
def test_a_path_without_a_name_stays_one(path):
    name, told = split_name(with_name("", Path(path)))
    assert (name, Path(told)) == (None, Path(path))


@given(name=NAMES)
def test_what_is_behind_a_name_may_be_an_address(name):
    assert split_name(f"{name}=s3://bucket/a=b.h5") == (name, "s3://bucket/a=b.h5")
    assert split_name("s3://bucket/a=b.h5") == (None, "s3://bucket/a=b.h5")


@pytest.mark.parametrize(
    ("given_paths", "said"),
    [
        (["x/a.h5", "y/a.h5"], "--features: expected stores of different names, found a twice"),
        (["x/a.h5", "b=x/a.h5"], "expected different stores, found x/a.h5 twice"),
    ],
)
def test_two_of_one_name_or_file_are_refused(given_paths, said):
    with pytest.raises(InputError, match=said):
        named_paths(given_paths)


def test_one_file_in_two_spellings_is_one(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"")
    (tmp_path / "linked.h5").symlink_to(tmp_path / "a.h5")
    for other in (f"{tmp_path}/../{tmp_path.name}/a.h5", tmp_path / "linked.h5"):
        with pytest.raises(InputError, match=r"expected different stores, found .* twice"):
            named_paths([f"a={tmp_path / 'a.h5'}", f"b={other}"])


def test_stores_of_a_part_are_told_by_order_or_by_name():
    expected = {"a": Path("va.h5"), "b": Path("vb.h5")}
    assert part_paths(("a", "b"), ["va.h5", "vb.h5"], option="--validation") == expected
    assert part_paths(("a", "b"), ["b=vb.h5", "a=va.h5"], option="--validation") == expected
    assert part_paths(("a", "b"), None, option="--validation") == {"a": None, "b": None}


@pytest.mark.parametrize("told", [["va.h5"], ["a=va.h5"], ["a=va.h5", "c=vc.h5"], ["a=va.h5", "vb.h5"]])
def test_a_part_needs_a_store_for_each(told):
    with pytest.raises(InputError, match=r"--test: expected one for each of --features \(a, b\)"):
        part_paths(("a", "b"), told, option="--test")


@pytest.fixture
def first(tmp_path):
    return made_data(build_store(tmp_path / "a.h5", rows=48))


def test_other_features_of_the_same_images_are_taken(first, tmp_path):
    other = made_data(build_store(tmp_path / "b.h5", rows=48, shape=(3, 3, 4), views=("identity", "flip"), seed=1))
    require_same_images({"a": first, "b": other})
    data = StudyData({"a": first, "b": other})
    assert (data.names, data.first, data.of("b")) == (("a", "b"), first, other)
    assert data.only(["b"]).names == ("b",)


def test_a_head_is_shown_the_rows_of_its_own_store_though_another_has_features_of_that_shape(first, tmp_path):
    header = replace(build_header(rows=48), preprocessing="unit")
    fill_store(tmp_path / "b.h5", header)
    other = made_data(tmp_path / "b.h5")
    data = StudyData({"a": first, "b": other})
    for one in (first, other):
        assert data.of_head(HeadMetadata.of_store(one.store.header, one.store.fingerprint, versions={})) is one


CHANGES = {
    "images": ({"rows": 51}, "48, as .*a.h5 has, found 51"),
    "image": ({"paths": 3}, "image of row 3: expected DME/DME-1001-1.png, as"),
    "class": ({"labels": 5}, "class of row 5"),
    "patient": ({"patients": 7}, "patient of row 7: expected 1002, .*found other"),
    "classes": ({"classes": ("CNV", "DME", "DRUSEN", "NONE")}, "classes: expected .*NORMAL"),
    "part": ({"parts": ("train",) * 47 + ("test",)}, "part of row 0: expected none, .*found train"),
    "state": ({"skipped": [9]}, "state of row 9: expected was read, .*found was left out"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_first_difference_is_named(first, tmp_path, what):
    change, said = CHANGES[what]
    header = build_header(rows=change.get("rows", 48), **({"classes": change["classes"]} if what == "classes" else {}))
    if what == "image":
        header = replace(header, paths=(*header.paths[:3], "elsewhere.png", *header.paths[4:]))
    if what == "class":
        header = replace(header, labels=(*header.labels[:5], (header.labels[5] + 1) % 4, *header.labels[6:]))
    if what == "patient":
        header = replace(header, patients=(*header.patients[:7], "other", *header.patients[8:]))
    if what == "part":
        header = replace(header, parts=change["parts"])
    fill_store(tmp_path / "b.h5", header, skipped=change.get("skipped", ()))
    with pytest.raises(InputError, match=said):
        require_same_images({"a": first, "b": made_data(tmp_path / "b.h5", ignore_parts=True)})
