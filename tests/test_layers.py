"""Imports flow one way, features <- heads <- search, and what is light stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "features": {"heads", "search", "optuna"},
    "heads": {"search", "optuna"},
    "search": set(),
}
LIGHT = (
    "features.store",
    "features.split",
    "features.feed",
    "features.images",
    "features.views",
    "features.backbones",
    "features.convert",
    "features.info",
    "heads.spec",
    "heads.scoring",
)
HEAVY = {"keras", "tensorflow", "jax"}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def imported(source: str) -> set[str]:
    """Top-level packages that a module imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0] if not node.level else ".")
        elif isinstance(node, ast.Call) and isinstance(node.args[0] if node.args else None, ast.Constant):
            called = ast.unparse(node.func)
            if called in ("__import__", "import_module", "importlib.import_module"):
                names.add(str(node.args[0].value).split(".")[0])
    return names


def test_imports_of_every_form_are_seen():
    source = """
import numpy.linalg as la
from heads.spec import HeadSpec
def f():
    import search.pool, optuna
    importlib.import_module("keras.ops")
    from . import sibling
"""
    assert imported(source) == {"numpy", "heads", "search", "optuna", "keras", "."}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_nothing_above_it(package):
    for path in modules(package):
        names = imported(path.read_text(encoding="utf-8"))
        assert not names & FORBIDDEN[package], path
        assert not names & {"tests", "benchmarks", "."}, path


def test_tests_and_packages_are_told_apart():
    assert {path.parent.name for package in FORBIDDEN for path in modules(package)} == set(FORBIDDEN)


def test_the_light_modules_load_no_backend():
    code = f"import sys, {', '.join(LIGHT)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
