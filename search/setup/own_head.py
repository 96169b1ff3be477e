"""``--head MODULE:FUNCTION``: somebody's own function that makes a head from what it suggests.

``build(trial, feature_shape, classes)`` returns a keras.Model, compiled or not. It is called again with the same
parameters where a head is trained again, trained on all rows, or saved, so it must make the same from the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from features.runtime.errors import InputError
from features.runtime.text import printable
from heads.model.own import OwnSpec
from search.setup.own_function import OwnFunction, OwnHeadRecord, raised
from search.setup.own_trial import OwnTrial

if TYPE_CHECKING:
    import optuna

    from search.setup.data import SearchData

_SUM = 1e-3
"""By which the probabilities of a row may miss 1."""
_REHEARSALS = 3
"""Sets of parameters that are tried before a function is refused."""


class BuildError(InputError):
    """A function did not make a head; says which, where, what was expected, what was found."""


@dataclass(frozen=True)
class OwnHead:
    """A function, and the features that its heads are for.

    Attributes:
        function: The function.
        feature_shape: (height, width, channels) of one bottleneck.
        classes: Number of classes.
    """

    function: OwnFunction
    feature_shape: tuple[int, int, int]
    classes: int

    @classmethod
    def for_data(cls, function: OwnFunction, data: SearchData) -> OwnHead:
        """Returns the function with what it is called with in a study.

        Raises:
            InputError: The store has the directions of some channels only: what leaves could not take all of them.
        """
        header = data.store.header
        if header.projection is not None:
            expected = "all channels of the backbone, beside --head"
            hint = "search over the store that was compressed"
            raise InputError(data.store.path, expected=expected, found=f"{header.projection}", hint=hint)
        return cls(function, header.feature_shape, len(header.classes))

    def suggest(self, trial: optuna.Trial, *, seed: int) -> tuple[OwnSpec, str | None]:
        """Lets the function suggest a trial's parameters.

        Returns:
            What was suggested, and why there is no head of it; None where there is one.
        """
        problem = None
        try:
            self.make(trial, seed=seed)
        except BuildError as error:
            problem = str(error)
        return OwnSpec(self.function.record.function, dict(trial.params)), problem

    def rebuild(self, spec: OwnSpec, *, seed: int, number: int = 0) -> Any:
        """Returns the model of what was suggested once, with first weights that the seed decides.

        Raises:
            BuildError: The function makes none of it.
        """
        from optuna.trial import FixedTrial

        return self.make(FixedTrial(dict(spec.params), number), seed=seed)

    def make(self, trial: Any, *, seed: int) -> Any:
        """Calls the function, and looks at what it returns.

        Args:
            trial: As Optuna has them; the function has an ``OwnTrial`` of it.
            seed: Decides whatever is drawn at random in the function, and by the model later on.

        Returns:
            keras.Model from features to probabilities, built.

        Raises:
            BuildError: It raised, suggested what no record can hold, or returned something else.
        """
        import keras

        from heads.model.stepwise import seeded

        with seeded(seed):
            try:
                model = self.function.call(OwnTrial(trial, self._refusal), self.feature_shape, self.classes)
            except BuildError:
                raise
            except Exception as error:
                raise self._refusal("a keras.Model", raised(error, self.function.record.file)) from error
            if not isinstance(model, keras.Model):
                raise self._refusal("a keras.Model", f"{type(model).__name__} ({printable(repr(model))[:60]})")
            self._check_input(model)
            self._check_output(model)
            self._check_optimizer(model)
        return model

    def _check_input(self, model: Any) -> None:
        shapes = getattr(model, "input_shape", None) if model.built else None
        if shapes is None:
            return  # made as it sees features for the first time
        takes = tuple(shapes[1:]) if isinstance(shapes, tuple) else ()
        pairs = zip(takes, self.feature_shape, strict=False)
        if len(takes) != 3 or any(size not in (None, wanted) for size, wanted in pairs):
            raise self._refusal(f"one input of {self.feature_shape}", f"{takes or shapes}")

    def _check_output(self, model: Any) -> None:
        import keras

        features = np.random.default_rng(0).random((2, *self.feature_shape), np.float32)
        try:
            outputs = model(features, training=False)
            found = np.asarray(keras.ops.convert_to_numpy(outputs), np.float64)
        except Exception as error:
            raise self._refusal(
                f"a model of features {self.feature_shape}", raised(error, self.function.record.file)
            ) from error
        if found.shape != (2, self.classes):
            raise self._refusal(f"outputs of shape (batch, {self.classes})", f"(batch, {_inner(found.shape)})")
        sums = found.sum(axis=1)
        if not (found.min() >= -_SUM and np.abs(sums - 1).max() <= _SUM):
            expected = "probabilities of the classes, a softmax at the end"
            raise self._refusal(expected, f"outputs whose sum is {sums[0]:.4g}")

    def _check_optimizer(self, model: Any) -> None:
        """Keras puts averages in place of the weights where a ``fit`` ends, and here that is after every epoch."""
        optimizer = getattr(model, "optimizer", None)
        if getattr(getattr(optimizer, "inner_optimizer", optimizer), "use_ema", False):
            raise self._refusal("an optimizer that leaves the weights as it trained them", "use_ema=True")

    def not_saved(self, problem: str) -> BuildError:
        """Returns the error of a model that Keras does not save, for a reason in words."""
        return self._refusal("a model that Keras can save", problem)

    def _refusal(self, expected: str, found: str) -> BuildError:
        function = self.function
        name = function.record.function.rpartition(":")[2]
        called = f"{name}(trial, {self.feature_shape}, {self.classes})"
        return BuildError(function.where, field=called, expected=expected, found=found)

    def rehearse(self) -> None:
        """Makes a head, trains it for a step and saves it, before there is a study.

        What a function does not make of one set of parameters it may make of others: a few are tried.

        Raises:
            InputError: It makes no head that can be trained and saved.
        """
        import optuna

        from search.setup.new_study import new_study

        study = new_study(sampler=optuna.samplers.RandomSampler(seed=0))
        problems: list[BuildError] = []
        while len(problems) < _REHEARSALS:
            try:
                self._try(study.ask())
                return
            except BuildError as error:
                problems.append(error)
        raise problems[0]

    def _try(self, trial: optuna.Trial) -> None:
        from heads.files.own_file import why_not_saved
        from heads.model.stepwise import TrainingError, own_trainee, try_step

        model = self.make(trial, seed=0)
        try:
            try_step(own_trainee(model, self.function.where), self.feature_shape, self.classes)
        except TrainingError as error:
            raise self._refusal("a model that can be trained on labels", error.reason) from error
        spec = OwnSpec(self.function.record.function, dict(trial.params))
        problem = why_not_saved(lambda: self.rebuild(spec, seed=1), model, self.feature_shape)
        if problem:
            raise self.not_saved(problem)


def changed_since(recorded: OwnHeadRecord | None, own: OwnHead) -> Iterator[str]:
    """Yields that the function's text is another one than when the study was begun."""
    now = own.function.record
    if recorded is not None and recorded.sha256 != now.sha256:
        then, today = recorded.sha256[:8] or "unknown", now.sha256[:8] or "unknown"
        yield (
            f"{own.function.where} has changed since the study was begun (sha256 {then} then, {today} now): its trials"
            " are not all of the same code"
        )


def _inner(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape[1:]))
