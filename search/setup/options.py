"""The options of a search, each said once.

A field here is an option of the command line and of ``run_study``, and as its ``Option`` says: a key that may stand in
``[run]`` of a study file, a key of ``study.json``, a part of what makes two studies the same, an argument of the
printed command that runs a study again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from features.rows.split import SEED, TEST_FRACTION, VALIDATION_FRACTION
from features.runtime.backend import UNLESS_TOLD, Backend
from features.runtime.options import AsText, checked, text_of
from features.runtime.text import printable
from features.store.reader import FeatureStore
from heads.metrics.scoring import Objective
from search.setup.left_open import (
    FEWEST_EPOCHS,
    FEWEST_IN_BATCH,
    FOLDS,
    LEAST_REPEATS,
    MOST_EPOCHS,
    MOST_FINALISTS,
    MOST_IN_BATCH,
    MOST_REPEATS,
    ONE_PART_FROM,
)

Engine = Literal["fused", "solo"]
DType = Literal["bfloat16", "float32"]
Pruner = Literal["halving", "hyperband", "median", "none"]
Sampler = Literal["tpe", "bohb", "random", "qmc"]
ClassWeights = Literal["none", "balanced"]
DEFAULT_STUDY = Path("studies/heads.toml")
STORE_OPTIONS = ("features", "validation", "test")
"""The options that take stores, and what ``study.json`` calls these."""
STORE_NAME = re.compile(r"[^=/\\]+")
"""One that is given to one store of several; a file's, which a store has else, may have equals signs in it."""
_REQUIRED: Any = object()


AUTO = "auto"


def _number_or_auto(given: Any) -> Any:
    """Makes a number what the command line has of it: a validator of a field."""
    known = isinstance(given, int | np.integer | str) and not isinstance(given, bool)
    text = str(given).strip() if known else ""
    if given is None or text == AUTO:
        return given and text
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) < 10**6):
        raise ValueError(f"expected a number of at least 1, or {AUTO}, found {str(given)[:40]}")
    return str(int(text))


def _store_names(given: Any) -> Any:
    """Makes stores what the command line has of them, ``PATH`` or ``NAME=PATH`` each: a validator of a field."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        strange = next((str(name) for name in given if not STORE_NAME.fullmatch(str(name))), None)
        if strange is not None:
            raise ValueError(f"expected names without =, / and \\, found {printable(strange)[:40] or 'an empty one'}")
        stores = [f"{name}={_path_of(store)}" for name, store in given.items()]
    else:
        alone = isinstance(given, str | os.PathLike | FeatureStore)
        several = not alone and isinstance(given, Iterable)
        stores = [_path_of(store) for store in (given if several else [given])]
    if not stores:  # which is not the same as nothing said: what chose them may have found none
        raise ValueError("expected at least one store, found none")
    return stores


def _said(given: Any) -> Any:
    """Refuses a text without anything in it, as of a shell's variable that is not set: a validator of a field."""
    if given == "":
        raise ValueError("expected something, or not the option, found an empty text")
    return given


def _path_of(store: Any) -> Any:
    return str(store.place) if isinstance(store, FeatureStore) else text_of(store)


Stores = Annotated[list[str] | None, BeforeValidator(_store_names)]
"""Stores, each ``PATH`` or ``NAME=PATH``: see ``search.setup.stores.named_paths``."""


def _number_unless_auto(given: Any) -> Any:
    """Takes the word for what is not given: a validator of a field that the rows decide."""
    text = given.strip() if isinstance(given, str) else None
    if text is not None and text != AUTO and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"expected a number, or {AUTO}, found {given[:40]}")
    return None if text == AUTO else given


@dataclass(frozen=True)
class Option:
    """What the places that know an option need beside its type, its bounds and its default.

    Attributes:
        help: What it does, in a line.
        shown: The default in words, where the value itself would say little.
        in_file: Whether it may stand in ``[run]`` of a study file.
        may_change: Whether a study that goes on may have another value; else it is part of the study's identity.
        printed: Whether the command that a report prints has it.
        before: What it was in studies whose ``study.json`` is older than the option; without it, the file needs one.
    """

    help: str
    shown: str | None = None
    in_file: bool = False
    may_change: bool = False
    printed: bool = True
    before: Any = _REQUIRED


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataOptions(_Options):
    """Where the rows come from, and where the study goes."""

    features: Annotated[
        Stores,
        Option(
            "Store to train on, or NAME=STORE; given several times, stores of the same images, which the search chooses"
            " between. Without it, and without --images, a built-in demonstration."
        ),
    ] = None
    images: Annotated[
        Path | None,
        Option(
            "Folder of images to search over, extracted first unless that is done: into --features, or a store of the "
            "folder's name beside --out. Batch size, dtype and pages of the extraction are the usual ones."
        ),
    ] = None
    validation: Annotated[
        Stores, Option("Store to validate on, for each of --features; else split off --features.")
    ] = None
    test: Annotated[Stores, Option("Store to test on, for each of --features; else split off --features.")] = None
    validation_fraction: Annotated[float, Option("Share to validate on.")] = VALIDATION_FRACTION
    test_fraction: Annotated[float, Option("Share to test on.")] = TEST_FRACTION
    study: Annotated[Path | None, Option("Study file.", shown=str(DEFAULT_STUDY))] = None
    out: Annotated[Path | None, Option("Study directory.", shown="studies/NAME of the study file")] = None


class StudyOptions(_Options):
    """What ``study.json`` keeps as it is."""

    trials: Annotated[int, Option("Heads to try.", in_file=True, may_change=True), Field(ge=1)] = 200
    epochs: Annotated[
        int | None,
        Option(
            "Epochs of a head that is not pruned, at most.",
            shown=f"{FEWEST_EPOCHS} to {MOST_EPOCHS}, by the rows",
            in_file=True,
        ),
        Field(ge=1),
    ] = None
    patience: Annotated[
        int,
        Option("Epochs without a better one after which a head is complete; 0: never.", in_file=True, before=0),
        Field(ge=0),
    ] = 0
    storage: Annotated[
        str | None,
        Option("Optuna storage URL; else a journal in the study directory.", printed=False),
        Field(repr=False),  # it may hold a password
        BeforeValidator(_said),
    ] = None
    folds: Annotated[
        int | None,
        Option(
            "Folds to validate on in turn, by patient; 0: one part; auto: by the rows.",
            shown=f"auto, {FOLDS} where one part would have fewer than {ONE_PART_FROM} rows",
        ),
        Field(ge=0),
        AsText(),
        BeforeValidator(_number_unless_auto),
    ] = None
    ignore_parts: Annotated[
        bool, Option("Split all rows anew, whatever parts --features says that they are in.", before=False)
    ] = False
    engine: Annotated[Engine, Option("How heads are trained.")] = "fused"
    head: Annotated[
        str | None,
        Option(
            "Own heads: MODULE:FUNCTION or FILE.py:FUNCTION of build(trial, feature_shape, classes), which suggests "
            "what it likes and returns a keras.Model; trained one at a time.",
            before=None,
        ),
        BeforeValidator(_said),
    ] = None
    pages: Annotated[
        int | None,
        Option("Pages of 16 channels that train at once.", shown="by the study and the memory"),
        Field(ge=1),
    ] = None
    dtype: Annotated[DType | None, Option("Of products.", shown="the faster")] = None
    pruner: Annotated[Pruner, Option("Who stops weak heads early.", in_file=True)] = "halving"
    sampler: Annotated[Sampler, Option("Who draws heads.", in_file=True)] = "tpe"
    objective: Annotated[Objective, Option("What heads are ranked by.", in_file=True, before="accuracy")] = "accuracy"
    class_weights: Annotated[
        ClassWeights, Option("Whether rows of rare classes count more.", in_file=True, before="none")
    ] = "none"
    finalists: Annotated[
        int | None,
        Option(
            "Best heads to train again after the search; 0: none.",
            shown=f"up to {MOST_FINALISTS}, by the search's trial-epochs",
            in_file=True,
            may_change=True,
            before=0,
        ),
        Field(ge=0),
    ] = None
    repeats: Annotated[
        int | None,
        Option(
            "Seeds to train each of them from; with folds every fold takes one: rounded up to whole runs of all folds.",
            shown=f"{LEAST_REPEATS} to {MOST_REPEATS}, with folds one or two runs, by the search's trial-epochs",
            in_file=True,
            may_change=True,
            before=1,
        ),
        Field(ge=1),
    ] = None
    channels: Annotated[
        str | None,
        Option(
            "Directions of the channels to train in: a number; auto: the fewest that keep the accuracy of a few heads.",
            shown="all channels",
            before=None,
        ),
        BeforeValidator(_number_or_auto),
    ] = None
    batch_size: Annotated[
        int | None,
        Option("Rows in a batch, at most.", shown=f"{FEWEST_IN_BATCH} to {MOST_IN_BATCH}, by the rows", in_file=True),
        Field(ge=1),
    ] = None
    seed: Annotated[int, Option("Decides everything."), Field(ge=0, le=2**31 - 1)] = SEED
    backend: Annotated[Backend | None, Option("Keras backend.", shown=UNLESS_TOLD)] = None


class RunOptions(StudyOptions, DataOptions):
    """The options of a search.

    ``model_fields_set`` tells which were given: what was not is looked up in the study's record and its study file
    (``search.setup.resolve``) before the defaults here hold.
    """

    snapshot_every: Annotated[
        float, Option("Seconds between two snapshots of the bank: what a kill loses, at most."), Field(ge=0)
    ] = 20.0
    resume: Annotated[bool, Option("Go on with a study that was stopped.")] = False
    join: Annotated[
        bool,
        Option(
            "Work on the study of --storage together with other processes that were started like this, on this machine "
            "or others, whichever comes first; each with a copy of --features.",
            printed=False,
        ),
    ] = False
    grace: Annotated[
        float,
        Option(
            "With --join, seconds without a sign of life after which a process's trials are handed to others.",
            printed=False,
        ),
        Field(ge=2),
    ] = 60.0

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> RunOptions:
        """Checks options, those that are None left out: they were not given.

        Raises:
            InputError: There is no such option, or its value does not fit; the option is named.
        """
        given = {name: value for name, value in values.items() if value is not None}
        return checked(cls, given, of="a search")


def option_of(field: FieldInfo) -> Option:
    """Returns what is said of an option beside its type and its bounds."""
    return next(part for part in field.metadata if isinstance(part, Option))


def study_options() -> Iterator[tuple[str, Option]]:
    """Yields the name of each option that ``study.json`` keeps, and what is said of it."""
    for name, field in StudyOptions.model_fields.items():
        yield name, option_of(field)


def help_of(field: FieldInfo, help_text: str | None = None) -> str:
    """Returns what help says of an option, its default included; ``help_text`` instead of its own text."""
    option = option_of(field)
    shown = option.shown
    if shown is None and field.default is not None and field.default is not False:
        shown = str(field.default)
    return (help_text or option.help) + (f" [default: {shown}]" if shown else "")


def options_in_words(*, but: Collection[str], help_overrides: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns the options of a search, but for some, as a section of a docstring; ``help_overrides`` by name."""
    fields = ((name, field) for name, field in RunOptions.model_fields.items() if name not in but)
    lines = (f"    {name}: {help_of(field, help_overrides.get(name))}" for name, field in fields)
    return "\n".join(["Options:", *lines])


def _run_section() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, option in study_options():
        if option.in_file:
            field = StudyOptions.model_fields[name]
            fields[name] = (Annotated[field.annotation, *field.metadata] | None, None)
    return create_model("RunSection", __config__=ConfigDict(extra="forbid", frozen=True, strict=True), **fields)


if TYPE_CHECKING:
    RunSection = BaseModel
else:
    RunSection = _run_section()
"""``[run]``: options that a study file sets; None where it does not. The command line has the last word."""


BEFORE: dict[str, Any] = {name: option.before for name, option in study_options() if option.before is not _REQUIRED}
"""What a ``study.json`` means that is older than some options."""
