"""``study.json``: everything about a study that is decided before its first trial."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from features.runtime.errors import InputError
from features.runtime.files import write_json
from heads.metrics.scoring import lower_is_better

SCHEMA = 1


FILE = "study.json"


SPLIT_FILE = "split.json"


PACKAGES = ("keras", "numpy", "optuna", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study, resolved.

    Attributes:
        name: Its name in the storage.
        objective: What a trial's value is, of its best epoch, on validation rows (``heads.metrics.scoring``). Ties are
            broken by the loss.
        class_weights: ``none``, or ``balanced``: rows of rare classes count more in the training loss.
        seed: Decides the split, the samples, the initial weights and the batches.
        trials: Trials to run; may grow on ``--resume``.
        epochs: Epochs of a trial that is not pruned, at most.
        patience: Epochs without a better one after which a trial is complete; 0 for never.
        batch_size: Upper bound of the rows in a batch.
        folds: Folds to validate on in turn; 0 for one validation part.
        engine: ``fused`` or ``solo``.
        pages: Pages of the bank in each fold, None with the solo engine.
        dtype: Of the bank's products, None with the solo engine.
        sampler: See ``search.trials.samplers``.
        pruner: See ``search.trials.pruning``.
        backend: Keras backend.
        finalists: How many of the best trials are trained again; 0 for none.
        repeats: How often, each time from another seed.
        storage: Optuna storage URL, ``None`` for the journal in the study directory.
        space: As in a study file.
        stores: Path and fingerprint of the ``features``, ``validation`` and ``test`` stores.
        split: Shares, seed, counts and identity of the three parts; the rows themselves are in split.json.
        versions: Of the packages that matter.
    """

    name: str
    objective: str = "accuracy"
    class_weights: str = "none"
    seed: int
    trials: int
    epochs: int
    patience: int = 0
    batch_size: int
    folds: int
    engine: str
    pages: int | None
    dtype: str | None
    sampler: str
    pruner: str
    finalists: int = 0
    repeats: int = 1
    backend: str
    storage: str | None
    space: dict[str, Any]
    stores: dict[str, dict[str, str] | None]
    split: dict[str, Any]
    versions: dict[str, str]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which way values are better."""
        return "minimize" if lower_is_better(self.objective) else "maximize"

    def write(self, folder: Path) -> None:
        """Writes study.json."""
        write_json(folder / FILE, {"schema": SCHEMA, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> StudyConfig:
        """Reads study.json.

        Raises:
            InputError: It is missing, damaged, or of another schema.
        """
        path = folder / FILE
        if not path.is_file():
            raise InputError(folder, field=FILE, expected="a study directory", found="no such file")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            schema = data.pop("schema")
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(path, expected="a study's JSON", found=f"something else ({error})") from error
        if schema != SCHEMA:
            raise InputError(path, field="schema", expected=str(SCHEMA), found=schema)
        names = {field.name for field in fields(cls)}
        odd = next(iter(names ^ set(data)), None)
        if odd:
            state = "none" if odd in names else "one"
            raise InputError(path, field=odd, expected="a value" if odd in names else "no such key", found=state)
        return cls(**data)

    def check_resumable(self, folder: Path, given: StudyConfig) -> None:
        """Compares this study, on disk, with what a command was told.

        Raises:
            InputError: Naming the first difference that would make it another study. The number of trials,
                what happens to the best of them after the search, versions and paths may differ.
        """
        mine, theirs = _identity(self), _identity(given)
        for key, value in mine.items():
            if theirs.get(key) != value:
                raise InputError(folder / FILE, field=key, expected=value, found=theirs.get(key, "none"))
        extra = next((key for key in theirs if key not in mine), None)
        if extra:
            raise InputError(folder / FILE, field=extra, expected="none", found=theirs[extra])


def package_versions(backend: str) -> dict[str, str]:
    """Versions of the packages that decide a study's numbers."""
    return {name: version(name) for name in (*PACKAGES, backend)}


def _identity(config: StudyConfig) -> dict[str, Any]:
    """What makes two studies the same, one flat level, so that a difference has a name."""
    flat: dict[str, Any] = {
        name: getattr(config, name)
        for name in (
            "objective",
            "class_weights",
            "seed",
            "epochs",
            "patience",
            "batch_size",
            "folds",
            "sampler",
            "pruner",
            "engine",
            "pages",
            "dtype",
            "backend",
            "storage",
        )
    }
    for part, store in config.stores.items():
        flat[f"stores.{part}.fingerprint"] = store["fingerprint"] if store else None
    for name, domain in config.space.items():
        flat[f"space.{name}"] = domain
    for name in ("validation", "test", "identity"):
        flat[f"split.{name}"] = config.split[name]
    return flat
