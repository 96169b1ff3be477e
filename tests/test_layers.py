"""Imports flow one way, between packages and between the rooms of each, without circles; what is light stays light."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

ROOMS = (
    *("features.runtime", "features.hdf5", "features.store", "features.rows", "features.compression"),
    *("features.images", "features.extraction", "features.leaks", "features"),
    *("heads.metrics", "heads.html", "heads.model", "heads.files", "heads.bank", "heads.saliency"),
    *("heads.prediction", "heads.evaluation", "heads"),
    *("search.setup", "search.trials", "search.record", "search.training", "search.finish", "search.review"),
    *("search.workers", "search"),
)
"""From the ground up: a room imports from those before it. A package's own modules (commands, the door) come last."""
COMMANDS = {
    *("features.extract", "features.compress", "features.convert", "features.info", "heads.evaluate", "heads.predict"),
    *("search.run", "search.cluster", "search.export", "search.report", "search.dashboard"),
}
PACKAGES = ("features", "heads", "search")
OUTSIDE = {"features": {"optuna", "ray"}, "heads": {"optuna", "ray"}, "search": set()}
"""What a package must not import beside the packages above it."""
LIGHT = (
    *("features", "heads", "search"),
    *("features.store.reader", "features.rows.split", "features.rows.feed", "features.images.folder"),
    *("features.images.views", "features.extraction.backbones", "features.convert", "features.info"),
    *("features.compress", "heads.model.spec", "heads.metrics.scoring", "search.workers.extraction"),
)
HEAVY = {"keras", "tensorflow", "jax", "ray"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def room_of(module: str) -> str:
    parts = module.split(".")
    folder = MODULES[module].name == "__init__.py" or len(parts) > 2
    return ".".join(parts[:2]) if folder and len(parts) > 1 else parts[0]


def imported(source: str) -> Iterator[str]:
    """Dotted names that a module imports anywhere, inside functions too; of ``from a import b`` both a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "") if not node.level else "."
            yield from (f"{node.module}.{alias.name}" for alias in node.names if not node.level)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            by_name = ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module")
            yield from [str(node.args[0].value)] * by_name


def imports_of(module: str) -> set[str]:
    """The modules of ours that a module imports: of ``from room import module`` the module, not the room as well."""
    named = set(imported(MODULES[module].read_text(encoding="utf-8")))
    deeper = {name.rpartition(".")[0] for name in named if name in MODULES}
    return {name for name in named & MODULES.keys() if name not in deeper} - {module}


IMPORTS = {module: imports_of(module) for module in MODULES}


def test_imports_of_every_form_are_seen():
    source = """
import numpy.linalg as la
from heads.model.spec import HeadSpec
def f():
    import search.training.pool, optuna
    importlib.import_module("keras.ops")
    from . import sibling
"""
    assert set(imported(source)) == {
        *("numpy.linalg", "heads.model.spec", "heads.model.spec.HeadSpec", "search.training.pool", "optuna"),
        *("keras.ops", "."),
    }


def test_every_room_is_listed_and_holds_something():
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", [module for module in MODULES if IMPORTS[module]])
def test_a_module_imports_from_its_own_room_and_those_below(module: str):
    at = ROOMS.index(room_of(module))
    backward = {other for other in IMPORTS[module] if ROOMS.index(room_of(other)) > at}
    assert not backward, f"{module} imports {backward}"


def test_no_module_is_part_of_a_circle():
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names it


def test_nobody_imports_a_command():
    """``features.extract`` is the command where it is imported, the function where it is not: it never is."""
    assert not {module for module in MODULES if IMPORTS[module] & COMMANDS}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_nothing_strange(package: str):
    for module, path in MODULES.items():
        if module.split(".")[0] == package:
            tops = {name.split(".")[0] for name in imported(path.read_text(encoding="utf-8"))}
            assert not tops & ({"tests", "benchmarks", "conftest", ""} | OUTSIDE[package]), path


def test_the_light_modules_load_no_backend():
    code = f"import sys, {', '.join(LIGHT)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_all_packages_and_their_files_are_installed():
    """They are listed by hand, as study files are installed under a name that is not their folder's."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    places = {name: ROOT / told["package-dir"].get(name, name.replace(".", "/")) for name in told["packages"]}
    found = {name.removesuffix(".__init__") for name, path in MODULES.items() if path.name == "__init__.py"}
    assert places.keys() == found | {"search.studies"}
    listed = {
        path for name, kinds in told["package-data"].items() for kind in kinds for path in places[name].glob(kind)
    }
    others = {
        path for package in PACKAGES for path in (ROOT / package).rglob("*.*") if path.suffix not in (".py", ".pyc")
    }
    assert {path for path in others if path.is_file()} | {*(ROOT / "studies").glob("*.toml")} == listed
