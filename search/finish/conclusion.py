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

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from features.runtime.errors import BottleneckError
from search.finish.baseline import one_at_a_time
from search.finish.checkpoints import TopCheckpoints
from search.finish.choice import Choice, choose
from search.finish.cost import cost_of_use
from search.finish.export_choice import why_not_together
from search.finish.final_heads import FinalHeads, copies_of, train_final_heads
from search.finish.held_out import RecommendedHeads, ToTest, note_tested, score_on_test
from search.finish.incidents import incidents
from search.finish.recommendation import entrants, recommend
from search.finish.searched import Searched
from search.finish.verdict import verdict
from search.record.crew import Crew
from search.record.recommended import ENSEMBLE, NAMES, REPEATS, Recommendation
from search.record.results import BankFigures, HeldOutTest, LeakCounts
from search.record.summary import Summary, read_summary, summarise, write_summary
from search.setup.audit import read_audit
from search.setup.export_options import Kind
from search.training.stages import OnStage, Stage, untold


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


def conclude(
    choice: Choice,
    checkpoints: TopCheckpoints,
    counted: Summary,
    *,
    earlier: HeldOutTest | None = None,
    on_stage: OnStage = untold,
) -> Summary:
    """Trains, calibrates and tests the final heads.

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
    first = searched.data.first
    final = train_final_heads(choice, checkpoints, on_stage=on_stage)
    ensemble = final.ensemble(first)
    recommended, excluded = _recommend(final, searched)
    if first.test is not None:
        on_stage(Stage.TEST)
    to_test = ToTest(
        heads=final.heads,
        winner=choice.trial,
        article=final.article,
        ensemble=ensemble,
        recommended=_recommended_heads(searched.folder, choice, recommended),
    )
    note_use = partial(note_tested, searched.study) if searched.config.storage else None
    test = score_on_test(searched.data, to_test, earlier=earlier, note_use=note_use, read=checkpoints.read)
    why_excluded = (
        f"{NAMES[kind]} is no candidate to be recommended: no file can hold it, as {why}"
        for kind, why in excluded.items()
    )
    return replace(
        counted,
        finalists=choice.describe(),
        ensemble=ensemble,
        recommendation=recommended,
        refit=final.winner_refit(searched),
        calibration=final.winner_calibration(first),
        test=test,
        verdict=verdict(test, alone=counted.trials == 1),
        notes=(*final.lost.values(), *why_excluded),
    )


def _recommend(final: FinalHeads, searched: Searched) -> tuple[Recommendation | None, dict[Kind, str]]:
    """What is recommended, and why averages are no candidates: one that no file can hold is none."""
    choice, members, copies = final.choice, final.members, final.copies
    winners = copies_of(searched.folder, choice.trial, copies.get(choice.trial, 0))
    averaged: dict[Kind, list[Path]] = {ENSEMBLE: list(members.values()), REPEATS: winners}
    excluded = {kind: why for kind, paths in averaged.items() if (why := why_not_together(paths, with_backbone=True))}
    if REPEATS in excluded:
        copies[choice.trial] = 1
    compared = entrants(choice.finalists, () if ENSEMBLE in excluded else list(members), copies)
    return recommend(compared, searched.data.first, searched.config.objective), excluded


def _recommended_heads(folder: Path, choice: Choice, recommended: Recommendation | None) -> RecommendedHeads | None:
    """The heads of which the average is recommended, or the article's; None where that is the single winner."""
    if recommended is None or recommended.chosen.is_head_of(choice.trial):
        return None
    chosen = recommended.chosen
    paths = [path for number in chosen.trials for path in copies_of(folder, number, chosen.copies)]
    return RecommendedHeads(chosen.kind, chosen.trials, paths, chosen.temperature)
