"""The end of a study: finalists repeated, one chosen, trained on all rows, calibrated, and shown the test rows once.

What a head is called on its way out of the study, and what ``summary.json`` says of it (``search.record``):

=========  =============  ===================================  =====================================================
called     in memory      where                                in ``summary.json``
=========  =============  ===================================  =====================================================
trial      FrozenTrial    Optuna, ``search.trials.notes``      ``TrialResult``: the best one, and the article's head
finalist   Finalist       ``search.finish.repeats``            ``FinalistRecord``: trained again from several seeds
to refit   ToRefit        ``search.finish.refit``              nothing: a finalist or a trial, to be trained on all
refit      Refit          ``search.finish.refit``              ``RefitRecord``: trained on all rows but the test's
candidate  Entrant        ``search.finish.recommendation``     ``Contender``: a head or an average, to be recommended
=========  =============  ===================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from optuna.trial import FrozenTrial

from features.runtime.errors import BottleneckError
from heads.metrics.scoring import Probabilities
from heads.model.spec import HeadSpec
from search.finish.baseline import one_at_a_time
from search.finish.calibration import calibration_of, temperature_of
from search.finish.checkpoints import TopCheckpoints
from search.finish.cost import cost_of_use
from search.finish.export_choice import why_not_together
from search.finish.held_out import RecommendedHeads, note_tested, score_on_test
from search.finish.incidents import incidents
from search.finish.recommendation import entrants, recommend
from search.finish.refit import Refit, ToRefit, refit
from search.finish.repeat_plan import plan_repeats
from search.finish.repeat_predictions import of_each_seed, unchecked
from search.finish.repeats import Finalist, run_repeats
from search.finish.searched import Searched
from search.finish.verdict import verdict
from search.record.crew import Crew
from search.record.head_files import copy_path_of, find_head, head_files
from search.record.recommended import ENSEMBLE, NAMES, REPEATS, Recommendation
from search.record.results import (
    BankFigures,
    Ensemble,
    FinalistCost,
    FinalistPlan,
    Finalists,
    HeldOutTest,
    LeakCounts,
    RefitRecord,
)
from search.record.summary import Summary, read_summary, summarise, withdraw_summary, write_summary
from search.setup.audit import read_audit
from search.setup.data import SearchData
from search.setup.export_options import Kind
from search.setup.left_open import MOST_REPEATS
from search.training.stages import OnStage, Stage, untold
from search.trials.notes import TrialNotes
from search.trials.ranking import article_trial, ranking


@dataclass(frozen=True)
class Choice:
    """What the repeats decided.

    Attributes:
        trial: Number of the winner.
        finalists: Best first; empty where none were asked for.
        cost: What the repeats took; None where there were none.
        plan: What they were to be; None likewise.
    """

    trial: int
    finalists: Sequence[Finalist]
    cost: FinalistCost | None
    plan: FinalistPlan | None = None


def finish_study(
    checkpoints: TopCheckpoints,
    *,
    bank: Callable[[], BankFigures | None] | None = None,
    remarks: Sequence[str] = (),
    snapshot_every: float,
    crew: Crew | None = None,
    on_stage: OnStage = untold,
) -> Summary:
    """Does all that comes after the last trial, and writes summary.json.

    The finalists are repeated and one is chosen; what leaves the study is trained on all rows, calibrated and shown the
    test rows; without finalists it may be a trial's own head, as it is. Beside that stands what was measured of the
    search. Run again on the same study it comes to the same.

    Args:
        checkpoints: Keeps the heads of the study.
        bank: Returns how well the bank was used, asked last, as other processes may come to their ends meanwhile; None
            with the solo engine. Where it was, what the trials would have taken one at a time is estimated, too. Where
            nothing was measured, an earlier end's figures stay.
        remarks: What was said at the start, see ``search.setup.remarks``.
        snapshot_every: Seconds between two snapshots of the repeats.
        crew: The processes that worked on the study, which take their shares of the repeats; None where one did.
        on_stage: Told of each stage as it begins.

    Returns:
        The content of summary.json.

    Raises:
        BottleneckError: No trial completed; the winner could not be trained on all rows; or the directory is
            another search's by now, or the end another process's.
        InputError: There is a summary of an earlier end, and it is damaged.
    """
    searched = checkpoints.searched
    folder, study, config = searched.folder, searched.study, searched.config
    earlier, audited = read_summary(folder), read_audit(folder)

    def reached(stage: Stage) -> None:
        checkpoints.check()
        if crew is not None:
            crew.check()
        on_stage(stage)

    counted = summarise(study, config)
    if counted.best is None:
        reasons = sorted(set(counted.failures.values()))
        raise BottleneckError(f"{folder}: no trial completed ({'; '.join(reasons)[:300]})")
    choice = choose(searched, snapshot_every=snapshot_every, crew=crew, check=checkpoints.check, on_stage=reached)
    counted = summarise(study, config, chosen=choice.trial)
    concluded = conclude(choice, checkpoints, counted, earlier=earlier.test if earlier else None, on_stage=reached)
    figures = (bank() if bank else None) or (earlier.bank if earlier else None)
    summary = replace(
        concluded,
        bank=figures,
        audit=LeakCounts.of(audited) if audited else None,
        one_at_a_time=one_at_a_time(study, config, searched.data) if figures else None,
        cost_of_use=cost_of_use(searched, earlier.cost_of_use if earlier else None),
    )
    notes = (*remarks, *summary.notes, *checkpoints.lost(), *incidents(study, summary, config.objective))
    summary = replace(summary, notes=notes, notes_of_start=len(remarks))
    reached(Stage.SUMMARY)
    write_summary(folder, summary)
    return summary


def choose(
    searched: Searched,
    *,
    snapshot_every: float,
    crew: Crew | None = None,
    check: Callable[[], object] = unchecked,
    on_stage: OnStage = untold,
) -> Choice:
    """Repeats the finalists and chooses the one with the best mean; without finalists the best trial.

    How many there are, and how often, is decided by ``search.finish.repeat_plan.plan_repeats`` where the study leaves
    it open. See ``search.finish.repeats.run_repeats`` for the arguments.
    """
    best = ranking(searched.study)[0].number
    if searched.config.finalists == 0:
        return Choice(best, (), None)
    on_stage(Stage.REPEATS)
    plan = plan_repeats(searched.study, searched.config)
    finalists, cost = run_repeats(
        searched,
        plan=plan,
        snapshot_every=snapshot_every,
        crew=crew,
        check=check,
        on_stage=on_stage,
    )
    return Choice(finalists[0].trial if finalists[0].sound else best, finalists, cost, plan.record)


def conclude(
    choice: Choice,
    checkpoints: TopCheckpoints,
    counted: Summary,
    *,
    earlier: HeldOutTest | None = None,
    on_stage: OnStage = untold,
) -> Summary:
    """Trains, calibrates and tests what leaves the study.

    Without finalists nothing is calibrated: the only rows to fit a temperature on are those that chose the trial.

    Args:
        choice: See ``choose``.
        checkpoints: Keeps the heads of the study.
        counted: What the trials say.
        earlier: What the test rows said at an earlier end of the search.
        on_stage: Told of each stage as it begins.

    Returns:
        ``counted`` with finalists, ensemble, refit, calibration, test and verdict, and notes: of each other head that
        could not be trained on all rows, and of the averages that were no candidates.

    Raises:
        BottleneckError: The winner could not be trained on all rows.
    """
    searched = checkpoints.searched
    folder, study, config, data = searched.folder, searched.study, searched.config, searched.data
    article = article_trial(study)
    to_refit = _to_refit(choice, checkpoints)
    if to_refit:
        on_stage(Stage.REFIT)
    refits, lost = refit(to_refit, config, data, searched.own) if to_refit else ({}, {})
    untrained = {trial: f"trial {trial}: its head could not be trained on all rows: {lost[trial]}" for trial in lost}
    if choice.trial in lost:
        raise BottleneckError(untrained[choice.trial])
    on_stage(Stage.CALIBRATION)
    probabilities = {finalist.trial: finalist.probabilities for finalist in choice.finalists}
    temperatures = {number: temperature_of(found, data.first) for number, found in probabilities.items()}
    _save(refits, choice, temperatures, checkpoints)
    tested = [choice.trial, *([article.number] if article else []), *(f.trial for f in choice.finalists)]
    heads = {
        number: find_head(folder, number, refitted=bool(to_refit))
        for number in dict.fromkeys(tested)
        if not to_refit or number in refits
    }
    members = {number: heads[number] for number in ensemble_members(choice.finalists) if number in refits}
    described = _describe_ensemble(list(members), probabilities, data.first)
    recommended, apart = _recommend(choice, searched, refits, members)
    if data.first.test is not None:
        on_stage(Stage.TEST)
    test = score_on_test(
        data,
        heads,
        winner=choice.trial,
        article=article.number if article and article.number in heads else None,
        ensemble=described,
        recommended=recommended_heads(folder, choice, recommended),
        earlier=earlier,
        used=partial(note_tested, study) if config.storage else None,
        read=checkpoints.read,
    )
    store_of = {trial.number: TrialNotes.of(trial).store for trial in ranking(study)}
    return replace(
        counted,
        finalists=_describe_finalists(choice),
        ensemble=described,
        recommendation=recommended,
        refit=_describe_refit(refits.get(choice.trial), data.of(store_of[choice.trial])),
        calibration=calibration_of(probabilities.get(choice.trial, ()), temperatures.get(choice.trial), data.first),
        test=test,
        verdict=verdict(test),
        notes=(
            *untrained.values(),
            *(
                f"{NAMES[kind]} is no candidate to be recommended: no file can hold it, as {why}"
                for kind, why in apart.items()
            ),
        ),
    )


def _save(
    refits: Mapping[int, Refit], choice: Choice, temperatures: Mapping[int, float | None], checkpoints: TopCheckpoints
) -> None:
    """Writes the heads that were trained on all rows, in the place of those of an earlier end."""
    folder = checkpoints.searched.folder
    if refits or head_files(folder, "refit", "copy"):
        withdraw_summary(folder)
    records = {finalist.trial: finalist.record for finalist in choice.finalists}
    written: list[Path] = []
    for number, made in refits.items():
        written += checkpoints.save_refit(made, records.get(number), temperatures.get(number))
    checkpoints.forget_refits_but(written)


def _recommend(
    choice: Choice, searched: Searched, refits: Mapping[int, Refit], members: Mapping[int, Path]
) -> tuple[Recommendation | None, dict[Kind, str]]:
    """What is recommended, and why averages are no candidates: one that no file can hold is none.

    Args:
        choice: What the repeats decided.
        searched: The study.
        refits: What was trained on all rows, by trial.
        members: The heads that the ensemble averages, by trial.
    """
    copies = {number: made.copies for number, made in refits.items()}
    winners = [copy_path_of(searched.folder, choice.trial, copy) for copy in range(copies.get(choice.trial, 0))]
    averaged: dict[Kind, list[Path]] = {ENSEMBLE: list(members.values()), REPEATS: winners}
    apart = {kind: why for kind, paths in averaged.items() if (why := why_not_together(paths, with_backbone=True))}
    if REPEATS in apart:
        copies[choice.trial] = 1
    compared = entrants(choice.finalists, () if ENSEMBLE in apart else list(members), copies)
    return recommend(compared, searched.data.first, searched.config.objective), apart


def ensemble_members(finalists: Sequence[Finalist]) -> list[int]:
    """Returns the trials whose heads the ensemble averages: the finalists, the article's head only where it is one."""
    sound = [finalist for finalist in finalists if finalist.sound]
    return [finalist.trial for finalist in sound if not finalist.is_article or finalist is sound[0]]


def _to_refit(choice: Choice, checkpoints: TopCheckpoints) -> list[ToRefit]:
    """The heads to train on all rows: the finalists; without these, and with folds, the best trial and the article's.

    Without folds and finalists the trial's own head leaves as it is, where it is on the disk: one that another process
    has trained may be on another machine's, and one may have got lost.
    """
    searched = checkpoints.searched
    if choice.finalists:
        sound = [finalist for finalist in choice.finalists if finalist.sound]
        return [
            ToRefit(one.trial, one.ordinal, one.head, one.epochs, one.rates, one.store, _copies(one, choice))
            for one in sound
        ]
    best, article = ranking(searched.study)[0], article_trial(searched.study)
    leaving = list({trial.number: trial for trial in (best, article) if trial}.values())
    if not searched.config.folds and all(map(checkpoints.kept_head, leaving)):
        return []
    return [_of_trial(trial) for trial in leaving]


def _copies(finalist: Finalist, choice: Choice) -> int:
    """Of the winner as many as it had runs, so that their average can be recommended; of others one."""
    averages = finalist.trial == choice.trial and isinstance(finalist.head, HeadSpec)
    return max(1, min(MOST_REPEATS, len(finalist.probabilities))) if averages else 1


def _of_trial(trial: FrozenTrial) -> ToRefit:
    notes = TrialNotes.of(trial)
    return ToRefit(trial.number, notes.ordinal, notes.head, notes.best_epoch, notes.learning_rates, notes.store)


def _describe_ensemble(
    members: Sequence[int], probabilities: Mapping[int, Sequence[Probabilities]], data: SearchData
) -> Ensemble | None:
    """Which heads ``search.export --which ensemble`` averages, and what calibrates them.

    Averages of the members' repeats are ensembles like it, of heads that were not trained on the validation rows: one
    for each seed with which no member diverged.
    """
    if len(members) < 2:
        return None
    temperature = temperature_of(of_each_seed(probabilities.get(number, ()) for number in members), data)
    return Ensemble(trials=tuple(members), temperature=temperature)


def recommended_heads(folder: Path, choice: Choice, recommended: Recommendation | None) -> RecommendedHeads | None:
    """The heads of which the average is recommended, or the article's; None where that is the single winner."""
    if recommended is None:
        return None
    chosen = recommended.chosen
    if chosen.is_head_of(choice.trial):
        return None
    paths = [copy_path_of(folder, number, copy) for number in chosen.trials for copy in range(chosen.copies)]
    return RecommendedHeads(chosen.kind, chosen.trials, paths, chosen.temperature)


def _describe_finalists(choice: Choice) -> Finalists | None:
    if not choice.finalists or choice.cost is None:
        return None
    heads = tuple(finalist.record for finalist in choice.finalists)
    return Finalists(cost=choice.cost, heads=heads, plan=choice.plan)


def _describe_refit(made: Refit | None, data: SearchData) -> RefitRecord | None:
    if made is None:
        return None
    return RefitRecord(trial=made.trial, rows=made.rows, epochs=made.epochs, parts=data.parts_but_test)
