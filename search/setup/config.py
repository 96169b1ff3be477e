"""``study.json``: everything about a study that is decided before its first trial."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from features.runtime.backend import Backend
from features.runtime.errors import InputError
from features.runtime.files import why_no_file, write_json
from features.runtime.json_files import read_json
from features.runtime.refusal import one_line
from features.runtime.text import counted
from heads.metrics.scoring import lower_is_better
from search.setup.file_names import STUDY_FILE
from search.setup.left_open import SHARE_IN_WORDS
from search.setup.options import BEFORE, StudyOptions, study_options
from search.setup.own_function import OwnHeadRecord
from search.setup.projection import StudyProjection
from search.setup.space import Space
from search.setup.split import StudySplit
from search.setup.storage_url import bare, hidden
from search.setup.store_refs import StoreRef, StudyStores

SCHEMA = 1
SPLIT_FILE = "split.json"
REPORT_FILE = "report.html"
PACKAGES = ("keras", "numpy", "optuna", "scikit-learn")


class StudyConfig(StudyOptions):
    """A study, resolved: its options as they are (``search.setup.options``), and what they were applied to.

    Attributes:
        name: Its name in the storage.
        epochs: Of a head that is not pruned, at most.
        folds: On which heads are judged; 0 for one validation part.
        batch_size: Rows in a batch, at most.
        pages: Pages of the bank in each fold, None with the solo engine.
        dtype: Of the bank's products, None with the solo engine.
        backend: Keras backend.
        space: As in a study file.
        stores: Those that the rows are from; of several ``features`` the first, and what belongs to it.
        store_name: Name of the first store of several; '' where there is one.
        more_stores: Likewise of the others, by name.
        split: How the rows are split; the rows themselves are in split.json.
        versions: Of the packages that matter.
        projection: With ``channels``, the directions that it trains in.
        own_head: With ``head``, what is recorded of the function.
        decided: What was left to the rows, and why it is as it is, in a line each.
    """

    name: str
    epochs: PositiveInt
    folds: NonNegativeInt
    batch_size: PositiveInt
    backend: Backend
    space: dict[str, Any]
    stores: StudyStores
    split: StudySplit
    versions: dict[str, str]
    projection: StudyProjection | None = None
    own_head: OwnHeadRecord | None = None
    store_name: str = ""
    more_stores: dict[str, StudyStores] = Field(default_factory=dict)
    decided: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_it_was(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fills in what a study had before there was an option for it."""
        return BEFORE | values

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which way values are better."""
        return "minimize" if lower_is_better(self.objective) else "maximize"

    @property
    def stores_by_name(self) -> dict[str, StudyStores]:
        """What ``stores`` is, of each store that a trial may name; by '' where there is one."""
        return {self.store_name: self.stores, **self.more_stores}

    @property
    def made_of(self) -> dict[str, Any]:
        """Seed, rows and stores: what tells it from another study of its name and its options."""
        stores = {f"{name}.fingerprint": store and store.fingerprint for name, store in self._each_store()}
        return {"seed": self.seed, **stores, "split.identity": self.split.identity}

    @property
    def repeats_in_words(self) -> str:
        """What comes after the last trial, as far as it is decided before the first."""
        if self.finalists == 0:
            return "no finalists"
        within = f"within {SHARE_IN_WORDS} of the search's trial-epochs"
        heads = f"as many finalists as fit {within}" if self.finalists is None else counted(self.finalists, "finalist")
        if self.repeats is None:
            return heads if self.finalists is None else f"{heads}, as often as fits {within}"
        return f"{heads}, {self.repeats} times each"

    def write(self, folder: Path) -> None:
        """Writes study.json."""
        write_json(folder / STUDY_FILE, self.to_dict(), shared=True)

    def to_dict(self) -> dict[str, Any]:
        """Returns what study.json holds: JSON types, without the secrets of the storage's URL."""
        kept = self.model_dump(mode="json", exclude={"name"})
        return {"schema": SCHEMA, "name": self.name, **kept, "storage": hidden(self.storage) if self.storage else None}

    @classmethod
    def read(cls, folder: Path) -> StudyConfig:
        """Reads study.json.

        Raises:
            InputError: It is missing, damaged, or of another schema.
        """
        path = folder / STUDY_FILE
        if why := why_no_file(path):
            raise InputError(folder, field=STUDY_FILE, expected="a study directory", found=why)
        return cls.of(read_json(path, "a study's JSON"), path)

    @classmethod
    def of(cls, data: Any, path: Path | str) -> StudyConfig:
        """Returns the config that ``to_dict`` has made a dictionary of, at ``path``.

        Raises:
            InputError: It is damaged, or of another schema.
        """
        if not isinstance(data, dict) or "schema" not in data:
            raise InputError(path, expected="a study's JSON", found="something else (no schema)")
        if (schema := data["schema"]) != SCHEMA:
            raise InputError(path, field="schema", expected=str(SCHEMA), found=f"{schema}"[:80])
        data = {name: value for name, value in data.items() if name != "schema"}
        fields = cls.model_fields.items()  # of the options all are noted, those that have a default, too
        noted = [name for name, field in fields if field.is_required() or name in StudyOptions.model_fields]
        missing = next((name for name in noted if name not in {*BEFORE, *data}), None)
        if missing:
            raise InputError(path, field=missing, expected="a value", found="none")
        try:
            config = cls.model_validate(data)
        except ValidationError as error:
            raise one_line(path, error) from error
        config._check_names(path)
        Space.from_dict(config.space, str(path))  # which raises where it is none
        return config

    def _check_names(self, path: Path | str) -> None:
        if self.more_stores and (not self.store_name or self.store_name in self.more_stores):
            raise InputError(path, field="store_name", expected="a name of its own", found=self.store_name or "none")

    def _each_store(self) -> Iterator[tuple[str, StoreRef | None]]:
        """Yields the store of each part, None for one without, with what messages and the record call it."""
        for name, stores in self.stores_by_name.items():
            begin = "stores" if stores is self.stores else f"stores.{name}"
            yield from ((f"{begin}.{part}", store) for part, store in stores.by_part.items())

    def check_resumable(self, where: Path | str, given: StudyConfig) -> None:
        """Compares this study, which is kept at ``where``, with what a command was told.

        Raises:
            InputError: Naming the first difference that would make it another study. The number of trials,
                what happens to the best of them after the search, versions and paths may differ.
        """
        mine, theirs = _identity(self), _identity(given)
        for key in [key for key in mine.keys() ^ theirs.keys() if key.endswith(".content")]:
            mine.pop(key, None), theirs.pop(key, None)  # not known when the other was made
        for key, value in mine.items():
            if theirs.get(key) != value:
                raise InputError(where, field=key, expected=value, found=theirs.get(key, "none"))
        extra = next((key for key in theirs if key not in mine), None)
        if extra:
            raise InputError(where, field=extra, expected="none", found=theirs[extra])


def package_versions(backend: str) -> dict[str, str]:
    """Versions of the packages that decide a study's numbers."""
    return {name: version(name) for name in (*PACKAGES, backend)}


def _identity(config: StudyConfig) -> dict[str, Any]:
    """What makes two studies the same, one flat level, so that a difference has a name."""
    flat: dict[str, Any] = {name: getattr(config, name) for name, option in study_options() if not option.may_change}
    flat["storage"] = bare(config.storage) if config.storage else None
    for name, store in config._each_store():
        flat[f"{name}.fingerprint"] = None
        flat |= {f"{name}.{key}": value for key, value in store.identity.items()} if store else {}
    for name, domain in config.space.items():
        flat[f"space.{name}"] = domain
    for name in ("validation", "test", "identity"):
        flat[f"split.{name}"] = getattr(config.split, name)
    return flat
