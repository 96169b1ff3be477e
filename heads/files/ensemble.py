"""Several heads as one: a plain Keras model that averages their class probabilities.

Every member keeps its own layers; they lie side by side in one flat graph, from one input to one ``Average`` layer. So
an ensemble is saved, read, scored and explained as a head is, and its file needs nothing of ours to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import keras

from features.runtime.errors import InputError
from heads.files.head_file import Head
from heads.files.metadata import TAKEN, WHERE_ALIKE, HeadMetadata, shared, trials_of
from heads.files.plain_layers import PlainModel, parse_model
from heads.files.refitted import refit_of_any
from heads.model.keras_internals import architecture

_AVERAGE = "average"
_ALIKE = ("classes", *TAKEN)
"""What members must agree on beside the kind of features: with others an average means nothing."""


def build_ensemble(models: Sequence[Any]) -> Any:
    """Joins heads into one that gives the mean of their class probabilities.

    Args:
        models: At least one head, as ``heads.model.build.build_head`` or ``heads.files.head_file.read_head`` returns
            it, from the same features to as many classes. They may differ in all else, and stay as they are.

    Returns:
        Uncompiled, Functional keras.Model of built-in layers: its one input is ``features``, the layers of member
        ``i`` are named ``head_i_...`` and hold copies of its weights. One member alone needs no average and is a head
        with other names.

    Raises:
        InputError: A model is no head of plain layers, is an ensemble itself, or does not fit the first one; or there
            are more of them than ``heads.files.head_file.read_head`` would read.
    """
    if not models:
        raise ValueError("an ensemble needs at least one head, got none")
    plains = [parse_model(Path(f"head {number}"), architecture(model)) for number, model in enumerate(models)]
    for number, plain in enumerate(plains):
        _check_member(f"head {number}", plain, plains[0])
    chains = tuple(
        tuple(replace(layer, name=f"head_{number}_{layer.name}") for layer in plain.layers)
        for number, plain in enumerate(plains)
    )
    average = _AVERAGE if len(chains) > 1 else ""
    weights = chain.from_iterable(plain.weights_of(model) for plain, model in zip(plains, models, strict=True))
    ensemble = PlainModel("ensemble", "features", plains[0].feature_shape, chains, average).build(weights)
    parse_model(Path("the ensemble"), architecture(ensemble))  # what would not be read again must not be written
    return ensemble


def join_heads(heads: Sequence[Head], *, temperature: float | None = None) -> Head:
    """Joins heads and what is known of them, ready for ``heads.files.head_file.save_head``.

    Args:
        heads: The members, at least one.
        temperature: What calibrates the average.

    Returns:
        The ensemble. Its metadata are what holds of every member; ``trials`` are theirs, where each has one, ``refit``
        says what any of them was trained on, and ``versions`` are the first one's.

    Raises:
        InputError: As ``build_ensemble``; or two heads were trained on features, or for classes, of different kinds,
            or on those of two stores whose backbone is unknown.
    """
    first, *others = members = [head.metadata for head in heads]
    for number, other in enumerate(others, start=1):
        own = ((name, getattr(first, name), getattr(other, name)) for name in _ALIKE)
        for name, expected, found in (*own, *first.other_features(other)):
            if expected != found:
                raise InputError(f"head {number}", field=name, expected=f"{expected} as head 0", found=found)
    kind = {name: getattr(first, name) for name in ("feature_shape", *first.origin, *_ALIKE) if name != "weights"}
    metadata = HeadMetadata(
        **kind,
        **shared(members, WHERE_ALIKE),
        trials=trials_of(members),
        refit=refit_of_any(one.refit for one in members),
        temperature=temperature,
        versions=first.versions,
    )
    return Head(build_ensemble([head.model for head in heads]), metadata)


def members_of(model: Any) -> tuple[Any, ...]:
    """Takes an ensemble apart.

    Args:
        model: A head or an ensemble, as ``heads.files.head_file.read_head`` returns it.

    Returns:
        What it averages, in order: each a keras.Model that is one chain of layers, and shares them with the ensemble;
        of a head that is no ensemble, the head.
    """
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Average):
        return (model,)
    inputs = model.inputs[0]
    return tuple(keras.Model(inputs, outputs, name=f"head_{number}") for number, outputs in enumerate(last.input))


def _check_member(which: str, plain: PlainModel, first: PlainModel) -> None:
    if plain.average:
        raise InputError(which, expected="one chain of layers", found="an ensemble", hint="join its members instead")
    for name in ("feature_shape", "classes"):
        expected, found = getattr(first, name), getattr(plain, name)
        if expected != found:
            raise InputError(which, field=name, expected=f"{expected} as head 0", found=found)
