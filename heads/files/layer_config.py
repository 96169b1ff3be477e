"""The configuration of one layer in a head file, checked value by value; of it nothing is deserialised or run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from features.runtime.errors import InputError
from features.runtime.text import printable, shortened

MAX_PARAMETERS = 2**26
"""256 MB of float32; the largest head of the widest search space has a twentieth of it."""
_INITIALIZERS = (
    *("Zeros", "Ones", "Constant", "GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform"),
    *("LecunNormal", "VarianceScaling", "RandomUniform", "RandomNormal", "TruncatedNormal", "Orthogonal"),
)
_REGULARIZERS = ("L1", "L2", "L1L2", "OrthogonalRegularizer")
_CONSTRAINTS = ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")
"""All accepted by name and never made: the weights are in the file, and only training asks what keeps them small."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_INERT = ("trainable", "batch_input_shape", "batch_shape")
_UNSET = object()


def refuse(path: Path, field: str, expected: str, found: object) -> NoReturn:
    """Says in one line what does not fit in a head file.

    Args:
        path: The file.
        field: The layer, and the key in its configuration.
        expected: The rule, in words.
        found: What the file has there: it is shortened, and nothing in it breaks the line.

    Raises:
        InputError: Always.
    """
    shown = found if isinstance(found, str) else json.dumps(found, default=repr)
    raise InputError(path, field=field, expected=expected, found=shortened(printable(shown), 80))


def keras_object(path: Path, what: str, entry: Any) -> tuple[str, Any, dict[str, Any]]:
    """Takes a serialised object apart, if it says that it is one of Keras' own.

    Args:
        path: The file, for the message.
        what: What the object is, for the message.
        entry: The object, decoded.

    Returns:
        Its class name, its configuration, and what else it says.

    Raises:
        InputError: It is no such object, or of another module than Keras.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str) or "config" not in entry:
        refuse(path, what, "class_name and config", entry)
    rest = {key: value for key, value in entry.items() if key not in ("class_name", "config")}
    kind = entry["class_name"]
    module, registered = rest.pop("module", None), rest.pop("registered_name", None)
    if not (module is None or (isinstance(module, str) and module.split(".")[0] == "keras")):
        refuse(path, what, f"a {kind} of Keras' own", f"one of module {module}")
    if registered not in (None, kind):
        refuse(path, what, f"a {kind} of Keras' own", f"one registered as {registered}")
    return kind, entry["config"], rest


def quoted(name: object) -> str:
    """Returns what a file gives for a name, in quotes and not too long."""
    return shortened(repr(name), 60)


class LayerConfig:
    """The configuration of one layer; every key must be asked for before ``finish``.

    Args:
        path: The file, for messages.
        number: The layer's place in the file, for messages while its name is not known.
        values: The configuration, decoded.
    """

    def __init__(self, path: Path, number: int, values: dict[str, Any]) -> None:
        self.path, self._left = path, dict(values)
        self.name: str = self._left.pop("name", None)
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            refuse(path, f"layer {number}: name", "letters, digits, _, - and .", quoted(self.name))
        self._check_dtype()

    def _check_dtype(self) -> None:
        dtype = self._left.pop("dtype", "float32")
        if isinstance(dtype, dict):
            kind, policy, _ = keras_object(self.path, f"layer {self.name!r}: dtype", dtype)
            dtype = policy.get("name") if kind == "DTypePolicy" and isinstance(policy, dict) else kind
        if dtype not in (None, "float32"):
            self.refuse("dtype", "float32", dtype)

    def refuse(self, key: str, expected: str, found: object) -> NoReturn:
        """As the function, of a key of this layer."""
        refuse(self.path, f"layer {self.name!r}: {key}", expected, found)

    def given(self, key: str) -> Any:
        """The value as it stands in the file, not taken out; None where there is none."""
        return self._left.get(key)

    def take(self, key: str, default: Any = _UNSET) -> Any:
        """The value, unchecked; a key without a default must be there."""
        value = self._left.pop(key, default)
        if value is _UNSET:
            self.refuse(key, "a value", "none")
        return value

    def whole(self, key: str, *, least: int = 1) -> int:
        """A whole number of at least ``least``."""
        value = self.take(key)
        if type(value) is not int or not least <= value <= MAX_PARAMETERS:
            self.refuse(key, f"a whole number from {least} to {MAX_PARAMETERS}", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.take(key, default)
        if type(value) is not bool:
            self.refuse(key, "true or false", value)
        return value

    def number(self, key: str, default: float, *, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in [low, high)."""
        value = self.take(key, default)
        if type(value) not in (int, float) or not (math.isfinite(value) and low <= value < high):
            self.refuse(key, f"a number in [{low:g}, {high:g})", value)
        return float(value)

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """One of some texts."""
        value = self.take(key, default)
        if not isinstance(value, str) or value not in choices:
            self.refuse(key, f"one of {', '.join(choices)}", value)
        return value

    def pair(self, key: str, default: Any = _UNSET) -> tuple[int, int]:
        """Two whole numbers of at least 1; one stands for both."""
        value = self.take(key, default)
        pair = value if isinstance(value, list | tuple) else [value, value]
        if len(pair) != 2 or not all(type(number) is int and 1 <= number <= 2**12 for number in pair):
            self.refuse(key, "two whole numbers of at least 1", value)
        return pair[0], pair[1]

    def only(self, key: str, *allowed: Any) -> None:
        """A key that may be absent, or have one of these values; the first is shown."""
        value = self._left.pop(key, allowed[0])
        if not any(type(value) is type(one) and value == one for one in allowed):
            self.refuse(key, json.dumps(allowed[0]), value)

    def how_trained(self, *names: str) -> None:
        """How weights began, and what kept them small: known by name and never made."""
        for name in names:
            self._only_named(f"{name}_initializer", "an initialiser", _INITIALIZERS)
            self._only_named(f"{name}_regularizer", "a regulariser", _REGULARIZERS)
            self._only_named(f"{name}_constraint", "a constraint", _CONSTRAINTS)

    def _only_named(self, key: str, what: str, names: tuple[str, ...]) -> None:
        """A key that may be absent, or have an object of Keras' own of one of these names."""
        value = self._left.pop(key, None)
        if isinstance(value, dict):
            value = keras_object(self.path, f"layer {self.name!r}: {key}", value)[0]
        known = {spelt for one in names for spelt in (one, _snake(one))}
        if value is not None and (not isinstance(value, str) or value not in known):
            self.refuse(key, f"{what} of Keras' own", value)

    def finish(self) -> None:
        """Refuses what nobody asked for, unless it is off: newer versions of Keras add such keys."""
        self._only_named("activity_regularizer", "a regulariser", _REGULARIZERS)  # any layer may have one
        for key, value in self._left.items():
            if key not in _INERT and value is not None and value is not False:
                self.refuse(quoted(key), "no such key", value)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
