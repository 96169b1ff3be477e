"""A study by the machines of a Ray cluster: the Python door of ``search.cluster run``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from features.runtime.arithmetic import with_default_errstate
from features.runtime.errors import InputError
from features.runtime.options import option_name, takes_options
from search.running import StoresGiven, make_demonstration_in, quiet_unless
from search.setup.options import RunOptions, options_in_words
from search.setup.resolve import study_of
from search.study import Study
from search.workers.ray_session import LOCAL
from search.workers.study_on_ray import Placement, search_on_ray

NOT_HERE = {
    "join": "every worker joins the study",
    "resume": "a study that has begun goes on with the same options",
    "head": "search.run trains own heads, on one machine",
    "images": "extract them first, with search.cluster extract",
    "channels": "features.compress makes stores of fewer channels",
}
"""Options of a search that one on a cluster has not, and what there is instead."""
HELP_HERE = {
    "features": "Store to train on, or NAME=STORE: a path that all machines see, or an address for fsspec; given "
    "several times, stores of the same images, which the search chooses between. Without it, with --address local, a "
    "built-in demonstration.",
    "storage": "Optuna storage URL of a database that all machines reach; without it, with --address local, SQLite in "
    "study.db of the study directory.",
    "grace": "Seconds without a sign of life after which a worker's trials are handed to others.",
}
"""Help of the options of a search that are others with workers."""


@with_default_errstate
def run_study_on_ray(
    features: StoresGiven = None,
    *,
    address: str = Placement.address,
    workers: int = Placement.workers,
    gpus_per_worker: float = Placement.gpus,
    cpus_per_worker: int | None = Placement.cpus,
    progress: bool = True,
    **options: Any,
) -> Study:
    """Searches for the best head over cached bottlenecks on several machines, or goes on with such a search.

    Each worker is ``python -m search.run --join``, see there and ``docs/cluster.md``. Run again with the same options
    it goes on, whatever has become of workers or driver.

    Args:
        features: Path of the store that every machine sees, or an address for fsspec; or several of the same images: a
            list of them, or by name. Without it, and with ``local``, the built-in demonstration.
        address: ``local`` to start Ray on this machine, ``auto`` for the cluster that it is part of, or HOST:PORT.
        workers: How many work on the study.
        gpus_per_worker: GPUs of each.
        cpus_per_worker: CPUs of each; by default its share of this machine, or one of those that the cluster counts
            and as many threads as there are.
        progress: Whether to say on standard error, or in the notebook, what is found and how far it is.
        options: See ``search.RunOptions``. Not taken are ``join``, ``resume``, ``head``, ``images`` and ``channels``;
            the refusal says what there is instead.

    Returns:
        The study. Its report is in the study directory of the worker that came to its end.

    Raises:
        InputError: An option is unknown, is none on a cluster, or does not fit.
        BottleneckError: Ray is not installed, workers die again and again, or one has refused its input, such as a
            store that is not the same on all machines.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the workers have stopped.
    """
    _refuse_others(options)
    given = RunOptions.given({"features": features, **options})
    with quiet_unless(progress):
        name, folder = study_of(given)
        placement = Placement(address, workers, gpus_per_worker, cpus_per_worker)
        if given.features is None:
            if address != LOCAL:
                hint = "the demonstration is for one machine, with --address local"
                raise InputError("--features", expected="a store, or its address", found="none", hint=hint)
            quick = {} if "folds" in given.model_fields_set else {"folds": 0}  # as in a search of one process
            given = RunOptions.given(
                {**given.model_dump(exclude_unset=True), **quick, "features": [str(make_demonstration_in(folder))]}
            )
        search_on_ray(given, name, folder, placement)
    return Study(folder)


_OPTIONS = options_in_words(but=("features", *NOT_HERE), help_overrides=HELP_HERE)
run_study_on_ray.__doc__ = f"{inspect.getdoc(run_study_on_ray) or ''}\n\n{_OPTIONS}"
takes_options(run_study_on_ray, RunOptions, but=NOT_HERE)


def _refuse_others(options: Mapping[str, Any]) -> None:
    for name, instead in NOT_HERE.items():
        if (found := options.get(name)) is not None and found is not False:
            raise InputError(option_name(name), expected="none on a cluster", found=found, hint=instead)
