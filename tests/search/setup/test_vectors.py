"""Vectors, maps of 1 x 1: of poolings that are one there one is tried, and that is said; a study begun so keeps all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import build_store
from made_data import made_data
from made_study import SPACE, make_config

from features.runtime.errors import InputError
from search.setup.options import RunOptions
from search.setup.remarks import remarks
from search.setup.resolve import Resolved
from search.setup.space import ARTICLE, Space
from search.setup.stores import StudyData


def data_of(path, shape) -> StudyData:
    build_store(path, rows=120, shape=shape)
    return StudyData.of_one(made_data(path))


def test_of_vectors_pooling_is_left_out_and_of_maps_it_is_not(tmp_path):
    vectors, maps = data_of(tmp_path / "v.h5", (1, 1, 8)), data_of(tmp_path / "m.h5", (2, 2, 8))
    told = Resolved(tmp_path, None, "heads", SPACE, RunOptions())
    fitted = told.fitted_to(vectors)
    assert told.fitted_to(maps) is told
    assert fitted.space.parameters.keys() == SPACE.parameters.keys() - {"pooling"}
    assert fitted.space.fixed["pooling"] == "flatten"
    expressed = fitted.space.parameters_of(ARTICLE)
    assert expressed == {name: one for name, one in SPACE.parameters_of(ARTICLE).items() if name != "pooling"}
    (line,) = remarks(make_config(), fitted.space, vectors)
    same = "v.h5: maps of 1 x 1, which flatten, average, max leave as they are"
    assert line == f"{same}: pooling is not searched over"
    assert fitted.fitted_to(vectors).space == fitted.space  # as on a resume
    old = replace(told, recorded=make_config())
    assert old.fitted_to(vectors) is old


@pytest.mark.parametrize(
    ("choices", "left"),
    [
        (["max", "flatten", "gem"], ("flatten", "gem")),
        (["concat", "max", "average"], ("concat", "max")),
        (["gem", "concat"], ("gem", "concat")),
        (["gem"], "gem"),
    ],
)
def test_poolings_that_change_vectors_stay_choices(choices, left):
    space = Space.from_dict({"pooling": choices, "batch_norm": [True, False]}, "here").for_one_place
    assert left == (space.parameters if len(choices) > 1 else space.fixed)["pooling"]
    assert space.for_one_place == space


def test_of_those_that_do_not_it_is_said_which_is_tried(tmp_path):
    vectors = data_of(tmp_path / "v.h5", (1, 1, 8))
    space = Space.from_dict({"pooling": ["average", "max", "gem"], "conv_width": [64, 128]}, "here")
    told = Resolved(tmp_path, None, "p", space, RunOptions())
    lines = list(remarks(make_config(), told.fitted_to(vectors).space, vectors))
    assert lines[-1].endswith("which flatten, average, max leave as they are: of these average is tried")
    unfolded = list(remarks(make_config(), space, vectors))
    assert not [line for line in unfolded if "1 x 1" in line]


def test_a_space_of_poolings_alone_is_refused(tmp_path):
    space = Space.from_dict({"pooling": ["average", "max"]}, "here")
    assert space.for_one_place.fixed["pooling"] == "average"
    with pytest.raises(InputError, match="expected something to search over beside pooling"):
        Resolved(tmp_path, None, "p", space, RunOptions()).fitted_to(data_of(tmp_path / "v.h5", (1, 1, 8)))
