"""Heads, objectives and values in words."""

from __future__ import annotations

from features.runtime.text import counted, decimal, milliseconds, percent
from heads.metrics.scoring import Objective, is_share
from heads.model.own import OwnSpec, Suggested
from heads.model.spec import HeadSpec
from search.record.costs import StoreCost
from search.record.recommended import ARTICLE, ENSEMBLE, WINNER
from search.record.results import FinalistRecord, HeldOutTest, ScoresOnTest, TrialResult
from search.record.summary import Summary

END_TO_COME = "what comes after them (repeats, last training, test) is still to come"
"""Of a study that was stopped behind its last trial."""


def describe_head(spec: HeadSpec | OwnSpec) -> str:
    """Returns a head in words: what it is made of and how it is trained, without what has no effect.

    Of somebody's own function only its parameters are known.
    """
    if isinstance(spec, OwnSpec):
        named = ", ".join(f"{name} {_short(value)}" for name, value in spec.params.items())
        return f"{spec.function}" + (f": {named}" if named else "")
    made = [f"1x1 convolution to {spec.conv_width} channels"]
    made += ["batch norm"] if spec.batch_norm else []
    made += [spec.activation, *([f"dropout {spec.dropout:.2g}"] if spec.dropout else []), spec.pooling]
    if spec.dense_layers:
        dropout = f" with dropout {spec.dense_dropout:.2g}" if spec.dense_dropout else ""
        made.append(f"{spec.dense_layers} hidden of {spec.dense_units} units{dropout}")
    trained = [f"learning rate {spec.learning_rate:.2g}"]
    trained += [f"SGD with momentum {spec.momentum:.2g}"] if spec.is_sgd else []
    trained += [f"weight decay {spec.weight_decay:.2g}"] if spec.weight_decay else []
    trained += [f"label smoothing {spec.label_smoothing:.2g}"] if spec.label_smoothing else []
    if spec.follows_cosine:
        trained.append("on a cosine to zero")
    else:
        trained.append(
            f"rate times {spec.plateau_factor:.2g} after {counted(spec.plateau_patience, 'epoch')} without progress"
        )
    return f"{', '.join(made)}; {', '.join(trained)}"


def _short(value: Suggested) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def value_in_words(objective: Objective, value: float | None) -> str:
    """Returns an objective's value as people read it: shares in percent, others as numbers."""
    return percent(value) if is_share(objective) else decimal(value)


def mean_in_words(objective: Objective, finalist: FinalistRecord) -> str:
    """Returns mean ± sd over the repeats of a finalist."""
    mean, sd = value_in_words(objective, finalist.mean), value_in_words(objective, finalist.sd)
    # no-break spaces: the numbers belong together
    return mean if finalist.sd is None else f"{mean}\u00a0±\u00a0{sd}"


def seeds_in_words(finalist: FinalistRecord, folds: int) -> str:
    """Returns of how many trainings a finalist's mean is: with folds each is of one fold, from a seed of its own."""
    return f"{counted(finalist.through, 'seed')}{', each of one fold' if folds else ''}"


def validation_in_words(objective: Objective) -> str:
    """What a trial's value is called, on an axis or in a line."""
    return f"validation {objective_in_words(objective)}"


def objective_in_words(objective: Objective) -> str:
    """What an objective is called."""
    return "AUC" if objective == "auc" else objective.replace("_", " ")


def store_in_words(store: StoreCost) -> str:
    """Returns what the features of a store are: which backbone is shown what."""
    return store.backbone + (f", {store.image_size} pixels" if store.image_size else "")


def scored_on_test(test: HeldOutTest) -> list[tuple[str, ScoresOnTest]]:
    """Returns what was shown the test rows, and what it is called: first what is recommended, if not the winner."""
    told = test.recommended
    found: list[tuple[str, ScoresOnTest]] = [("recommended", told)] if told else []
    found.append((test.winner.removeprefix("the "), test))
    kind = told.kind if told else WINNER
    if test.article and not test.is_article and kind != ARTICLE:
        found.append(("article's head", test.article))
    if test.ensemble and kind != ENSEMBLE:
        found.append((f"ensemble of {len(test.ensemble.trials)}", test.ensemble))
    return found


def cost_in_words(summary: Summary, head: TrialResult | None) -> str | None:
    """Returns what an image costs with the head of a trial, and which part of it is the backbone's.

    None where nothing was measured: before the end of a search, and in studies from before that was done.
    """
    cost = summary.cost_of_use
    told = cost.of_store(head.store) if head and cost else None
    if head is None or cost is None or told is None:
        return None
    own = f"head {milliseconds(cost.head(head.number))}" if cost.head(head.number) is not None else "head not known"
    views = counted(told.views, "view")
    if told.milliseconds is None:
        return f"not known: {own}, {views}; the backbone's time is not known"
    whole = cost.of(head.number, head.store)
    parts = f"backbone {milliseconds(told.milliseconds)}, {own}, {views}"
    return parts if whole is None else f"{milliseconds(whole)} on the machine of the search: {parts}"
