"""HeadSpec: one head and how it is trained."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from heads.model import functions
from heads.model.arguments import require

SCHEMA = 1
PAGE = 16
"""Channels in a page: a head's convolution width is a multiple of it (see docs/bank.md)."""
ACTIVATIONS = functions.SEARCHED_ACTIVATIONS
POOLINGS = tuple(functions.POOLINGS)
MAX_DENSE_LAYERS = 2
OPTIMIZERS = ("adam", "adamw", "sgd")
ADAM_EPSILON = 1e-7
PLATEAU_MIN_DELTA = 1e-4
PLATEAU_MIN_RATE = 5e-5
SCHEDULES = ("plateau", "cosine")
_ADDED = {"optimizer": "adam", "momentum": 0.9, "schedule": "plateau"}
"""Fields that came later, with what earlier heads have: a head that has the same is written, and hashed, as before."""


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One head and how it is trained; the defaults are the article's head.

    Conv2D 1x1 without bias, batch normalisation, activation, dropout, pooling, ``dense_layers`` hidden layers,
    softmax. Adam or SGD; the learning rate is cut on plateaus of the validation loss, and the weights of the best epoch
    are kept, or it follows a cosine down to zero, and the last epoch is what counts.

    Attributes:
        conv_width: Channels of the 1x1 convolution, a positive multiple of 16.
        batch_norm: Whether BatchNormalization (no scale) follows the convolution.
        activation: One of ``ACTIVATIONS``; after the convolution and after each hidden layer.
        dropout: Share of the convolution's outputs dropped in training, in [0, 1).
        pooling: One of ``POOLINGS``: ``flatten`` keeps the positions, ``concat`` leaves two values of each channel
            (average and maximum), the others one.
        dense_layers: Hidden layers between pooling and softmax: 0, 1 or 2.
        dense_units: Units of each hidden layer; without effect where there is none.
        dense_dropout: Share of each hidden layer's outputs dropped in training, in [0, 1); likewise.
        learning_rate: The optimizer's initial rate.
        weight_decay: Decoupled decay per step as a multiple of the learning rate (AdamW, as in Keras); 0 for none.
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1).
        plateau_factor: Factor of ReduceLROnPlateau, in (0, 1); like the next without effect on a cosine.
        plateau_patience: Epochs without improvement of the validation loss before the rate is cut, at least 1.
        optimizer: One of ``OPTIMIZERS``. ``adam`` and ``adamw`` are the same: in Keras, both decouple the decay.
        momentum: Of ``sgd``, in [0, 1), without Nesterov's correction; without effect on the others.
        schedule: One of ``SCHEDULES``: ``plateau``, as ReduceLROnPlateau, or ``cosine``, see ``cosine_rate``.
    """

    conv_width: int = 64
    batch_norm: bool = True
    activation: str = "relu"
    dropout: float = 0.5
    pooling: str = "flatten"
    dense_layers: int = 0
    dense_units: int = 64
    dense_dropout: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    optimizer: str = "adam"
    momentum: float = 0.9
    schedule: str = "plateau"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(field.name, field.type, getattr(self, field.name)))
        width = self.conv_width
        require("conv_width", width, f"a positive multiple of {PAGE}", width >= PAGE and width % PAGE == 0)
        require("activation", self.activation, f"one of {', '.join(ACTIVATIONS)}", self.activation in ACTIVATIONS)
        require("pooling", self.pooling, f"one of {', '.join(POOLINGS)}", self.pooling in POOLINGS)
        require("optimizer", self.optimizer, f"one of {', '.join(OPTIMIZERS)}", self.optimizer in OPTIMIZERS)
        require("schedule", self.schedule, f"one of {', '.join(SCHEDULES)}", self.schedule in SCHEDULES)
        for name in ("dropout", "dense_dropout", "label_smoothing", "momentum"):
            require(name, getattr(self, name), "a number in [0, 1)", 0 <= getattr(self, name) < 1)
        require("dense_layers", self.dense_layers, "0, 1 or 2", 0 <= self.dense_layers <= MAX_DENSE_LAYERS)
        require("dense_units", self.dense_units, "at least 1", self.dense_units >= 1)
        require("learning_rate", self.learning_rate, "a number above 0", self.learning_rate > 0)
        require("weight_decay", self.weight_decay, "a number of at least 0", self.weight_decay >= 0)
        require("plateau_factor", self.plateau_factor, "a number in (0, 1)", 0 < self.plateau_factor < 1)
        require("plateau_patience", self.plateau_patience, "at least 1", self.plateau_patience >= 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the schema number, JSON types only; see ``told`` for what may be left out."""
        return {"schema": SCHEMA, **without_added_defaults(asdict(self))}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HeadSpec:
        """Rebuilds a spec from ``to_dict``'s form.

        Raises:
            ValueError: The schema is another one, a field is unknown, or a value is out of range.
        """
        values = dict(data)
        schema = values.pop("schema", SCHEMA)
        require("schema", schema, str(SCHEMA), schema == SCHEMA)
        known = {field.name for field in fields(cls)}
        for name in values:
            require(name, "an unknown field", f"one of {', '.join(sorted(known))}", name in known)
        return cls(**values)

    @property
    def last_counts(self) -> bool:
        """Whether a head is what its last epoch makes of it; else its best epoch is picked.

        A cosine ends where the noise of the steps does: earlier epochs are on the way there, and to pick the luckiest
        of them would be a choice on the validation rows that the schedule makes needless.
        """
        return self.follows_cosine

    @property
    def follows_cosine(self) -> bool:
        """Whether its learning rate is on a cosine; else it falls on plateaus."""
        return self.schedule == "cosine"

    @property
    def is_sgd(self) -> bool:
        """Whether it is trained by stochastic gradient descent with momentum; else by Adam."""
        return self.optimizer == "sgd"

    @property
    def idle(self) -> frozenset[str]:
        """Fields that have no effect on it."""
        idle = [] if self.dense_layers else ["dense_units", "dense_dropout"]
        idle += ["plateau_factor", "plateau_patience"] if self.follows_cosine else []
        idle += [] if self.is_sgd else ["optimizer", "momentum"]
        return frozenset(idle)

    @property
    def in_effect(self) -> HeadSpec:
        """The same head, the fields that have no effect on it as the article's head has them."""
        return replace(self, **{name: getattr(HeadSpec, name) for name in self.idle})

    @property
    def identity(self) -> str:
        """See ``identity_of``."""
        return identity_of(self.to_dict())


def identity_of(spec: Mapping[str, Any]) -> str:
    """Returns 16 hexadecimal digits that stand for a spec: a hash of its canonical JSON.

    Args:
        spec: As ``to_dict`` returns it.
    """
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def cosine_rate(first: float, epoch: int, epochs: int) -> float:
    """Returns the learning rate of an epoch, from 0, on half a cosine from ``first`` to zero after ``epochs``.

    Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts; one rate for all steps of an epoch.
    """
    return first * 0.5 * (1 + math.cos(math.pi * min(epoch, epochs) / epochs))


def without_added_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns fields of a head without those that came later and are as they were before: what records say of it."""
    return {name: value for name, value in values.items() if name not in _ADDED or value != _ADDED[name]}


def _plain(name: str, kind: object, value: Any) -> Any:
    """Returns ``value`` as the plain Python type of the field, so that equal specs have one canonical form."""
    if kind == "bool":
        require(name, repr(value), "true or false", isinstance(value, bool))
    elif kind == "int":
        whole = not isinstance(value, bool) and hasattr(value, "__index__")
        require(name, repr(value), "a whole number", whole)
        value = int(value)
    elif kind == "float":
        number = not isinstance(value, (bool, str)) and hasattr(value, "__float__")
        require(name, repr(value), "a number", number and math.isfinite(value))
        value = float(value) + 0.0  # -0.0 is 0.0, and has one spelling
    else:
        require(name, repr(value), "a text", isinstance(value, str))
    return value
