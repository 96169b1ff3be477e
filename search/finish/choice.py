"""Which trial wins: the finalists, each trained again from several seeds, have the last word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.finish.repeat_plan import plan_repeats
from search.finish.repeat_predictions import unchecked
from search.finish.repeats import Finalist, run_repeats
from search.finish.searched import Searched
from search.record.crew import Crew
from search.record.results import FinalistCost, FinalistPlan, Finalists
from search.training.stages import OnStage, Stage, untold
from search.trials.ranking import ranking


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

    @property
    def sound(self) -> list[Finalist]:
        """Those of which a repeat came through, best first."""
        return [finalist for finalist in self.finalists if finalist.sound]

    @property
    def members(self) -> list[int]:
        """Trials whose heads the ensemble averages: the finalists', the article's head only where it is the winner."""
        return [one.trial for one in self.sound if not one.is_article or one is self.sound[0]]

    def describe(self) -> Finalists | None:
        """Returns what ``summary.json`` says of the finalists; None where there were none."""
        if not self.finalists or self.cost is None:
            return None
        heads = tuple(finalist.record for finalist in self.finalists)
        return Finalists(cost=self.cost, heads=heads, plan=self.plan)


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
