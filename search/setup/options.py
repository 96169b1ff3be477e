"""What a search is told, on the command line, by its study file and by its own record: resolved to one config."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.rows.split import SEED, TEST_FRACTION, VALIDATION_FRACTION
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from features.store.source import FeatureSource
from search.setup.config import FILE, StudyConfig, package_versions
from search.setup.data import SearchData
from search.setup.space import RunDefaults, Space, read_study_file

ROOT = Path(__file__).resolve().parents[2]


DEFAULT_STUDY = Path("studies/heads.toml")


STUDIES = Path("studies")


DEFAULTS: dict[str, Any] = {
    "trials": 200,
    "epochs": 50,
    "patience": 0,
    "batch_size": 100,
    "seed": SEED,
    "folds": 0,
    "engine": "fused",
    "sampler": "tpe",
    "pruner": "halving",
    "objective": "accuracy",
    "class_weights": "none",
    "finalists": 5,
    "repeats": 5,
    "validation_fraction": VALIDATION_FRACTION,
    "test_fraction": TEST_FRACTION,
}
"""Where neither the command line nor the study file says anything."""


RECORDED = (
    *("seed", "trials", "epochs", "patience", "batch_size", "folds", "engine", "sampler", "pruner"),
    *("objective", "class_weights", "finalists", "repeats"),
    *("storage", "pages", "dtype"),
)
"""Options that study.json takes over as they are."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """The command line's options; None where an option was not given."""

    features: Path | None
    validation: Path | None
    test: Path | None
    study: Path | None
    out: Path | None
    storage: str | None
    trials: int | None
    epochs: int | None
    patience: int | None
    batch_size: int | None
    seed: int | None
    folds: int | None
    engine: str | None
    pages: int | None
    dtype: str | None
    sampler: str | None
    pruner: str | None
    objective: str | None
    class_weights: str | None
    finalists: int | None
    repeats: int | None
    validation_fraction: float | None
    test_fraction: float | None


@dataclass(frozen=True)
class Options:
    """The resolved options of a search.

    Attributes:
        folder: The study directory.
        recorded: The study to go on with, or None for a new one.
        name: Name of a new study.
        space: What trials draw from.
        values: All of ``DEFAULTS``, and ``storage``, ``pages``, ``dtype``, ``features``, ``validation``, ``test``.
    """

    folder: Path
    recorded: StudyConfig | None
    name: str
    space: Space
    values: dict[str, Any]

    def check_store(self, store: FeatureStore) -> None:
        """Refuses a store that the recorded study was not made with, before it is split.

        Raises:
            InputError: Naming both fingerprints.
        """
        stored = self.recorded.stores["features"] if self.recorded else None
        if stored and stored["fingerprint"] != store.fingerprint:
            expected = f"{stored['fingerprint'][:16]}, of the store that this study was made with"
            raise InputError(store.path, field="fingerprint", expected=expected, found=store.fingerprint[:16])

    def config(self, data: SearchData, backend: str) -> StudyConfig:
        """Returns the config of the study on ``data``; the recorded one, with more trials perhaps, on a resume.

        Raises:
            InputError: The recorded study is another one; the difference is named.
        """
        values = self.values
        if values["folds"] == 1 or (values["folds"] and values["engine"] == "solo"):
            expected = "0, or at least 2 with the fused engine"
            raise InputError("--folds", expected=expected, found=f"{values['folds']} with {values['engine']}")
        config = StudyConfig(
            name=self.name,
            **{key: values[key] for key in RECORDED},
            backend=backend,
            space=self.space.to_dict(),
            stores={
                "features": _store(data.train.store),
                "validation": _store(data.validation.store) if values["validation"] else None,
                "test": _store(data.test.store) if data.test and values["test"] else None,
            },
            split={name: value for name, value in data.split.items() if name != "rows"},
            versions=package_versions(backend),
        )
        if self.recorded is not None:
            self.recorded.check_resumable(self.folder, config)
        return config


def resolve(given: Given, *, resume: bool) -> Options:
    """Joins what was given with the study file and, on a resume, with the study's record.

    Raises:
        InputError: The study file is wrong, or the study directory holds a study already, or none to resume.
    """
    file = read_study_file(find_study_file(given.study or DEFAULT_STUDY))
    folder = given.out or STUDIES / file.name
    recorded = StudyConfig.read(folder) if resume else None
    if not resume and (folder / FILE).exists():
        hint = "pass --resume to go on with it, or --out for another directory"
        raise InputError(folder, expected="no study there yet", found=FILE, hint=hint)
    if folder.exists() and not folder.is_dir():
        raise InputError("--out", expected="a folder", found=f"{folder}, a file")
    if recorded is None:
        return Options(folder, None, file.name, file.space, _values(given, file.run, {}))
    use_file = given.study is not None
    space = file.space if use_file else Space.from_dict(recorded.space, str(folder / FILE))
    return Options(folder, recorded, recorded.name, space, _values(given, RunDefaults(), _recorded_values(recorded)))


def find_study_file(path: Path) -> Path:
    """Returns the path, looked for in the current directory, then beside the code, then among the installed package."""
    places = (path, ROOT / path, ROOT / "search" / path)
    return next((place for place in places if place.exists()), path)


def _values(given: Given, file: RunDefaults, recorded: dict[str, Any]) -> dict[str, Any]:
    """The command line has the first word, then the record, then the study file, then the defaults."""
    unset = ("storage", "pages", "dtype", "features", "validation", "test")
    values: dict[str, Any] = {**dict.fromkeys(unset), **DEFAULTS}
    for source in (file.model_dump(), recorded, asdict(given)):
        values |= {name: value for name, value in source.items() if name in values and value is not None}
    return values


def _recorded_values(config: StudyConfig) -> dict[str, Any]:
    paths = {part: Path(store["path"]) for part, store in config.stores.items() if store}
    return (
        asdict(config)
        | {"validation": None, "test": None}
        | paths
        | {
            "validation_fraction": config.split["validation"],
            "test_fraction": config.split["test"],
        }
    )


def _store(store: FeatureSource) -> dict[str, str]:
    return {"path": str(store.path.absolute()), "fingerprint": store.fingerprint}
