"""A head in the middle of its training, outside a bank: ``np.savez`` takes it, and a bank goes on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.json_files import parse_json
from heads.bank.learning_rates import COSINE_FIELDS, FIELDS
from heads.bank.packing import HeadArrays
from heads.bank.shape import STATISTICS
from heads.model.spec import HeadSpec

HeadState = dict[str, npt.NDArray[Any]]
"""All that a head's further training depends on, in the head's own shapes: ``spec`` (its JSON), ``seed``, ``steps``,
``plateau/*`` (its learning rate) and, by name, ``weights/*``, ``best/*``, ``first/*`` and ``second/*`` (the optimiser's
moments)."""


def head_state(
    spec: HeadSpec,
    *,
    seed: npt.ArrayLike,
    steps: npt.NDArray[Any],
    rates: HeadArrays,
    parts: Mapping[str, HeadArrays],
) -> HeadState:
    """Returns the state of a head.

    Args:
        spec: The head.
        seed: As it was given to the bank.
        steps: That it has trained.
        rates: Of ``LearningRates.save``.
        parts: Its arrays, by ``BankShape.state_parts``.
    """
    state: HeadState = {
        "spec": np.array(json.dumps(spec.to_dict(), sort_keys=True)),
        "seed": np.array(seed),
        "steps": steps,
    }
    for part, arrays in {"plateau": rates, **parts}.items():
        state |= {f"{part}/{name}": array for name, array in arrays.items()}
    return state


def part_of(state: HeadState, part: str) -> HeadArrays:
    """Returns the arrays of one of its parts, by name."""
    return {name.removeprefix(f"{part}/"): array for name, array in state.items() if name.startswith(f"{part}/")}


def check_state(spec: HeadSpec, state: HeadState) -> None:
    """A head's state has all of its parts, of shapes that go together; the bank looks at the shapes themselves.

    Raises:
        ValueError: It has not, or is of another head.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, array in state.items():
        part, _, inner = name.partition("/")
        shapes.setdefault(part, {})[inner] = array.shape
    lacking = {"spec", "seed", "steps", "plateau", "weights", "best", "first", "second"} - shapes.keys()
    if lacking:
        raise ValueError(f"expected the whole state of a head, found none of {', '.join(sorted(lacking))}")
    if parse_json(str(state["spec"])) != spec.to_dict():
        raise ValueError("expected the state of this head, found that of another")
    trained = {name: shape for name, shape in shapes["weights"].items() if name not in STATISTICS}
    whole = shapes["best"] == shapes["weights"] and shapes["first"] == shapes["second"] == trained
    single = {shape for name in ("seed", "steps") for shape in shapes[name].values()} | set(shapes["plateau"].values())
    of_rates = COSINE_FIELDS if spec.follows_cosine else FIELDS
    if not whole or "kernel" not in trained or single != {()} or shapes["plateau"].keys() != set(of_rates):
        raise ValueError("expected the whole state of a head, found a part")
