"""What summary.json says of what a study recommends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heads.metrics.scoring import Objective, scores_rows_by_logarithms
from search.record.recorded import Recorded
from search.setup.export_options import Kind

ARTICLE: Final = "article"
WINNER: Final = "winner"
REPEATS: Final = "repeats"
ENSEMBLE: Final = "ensemble"
"""What a study may recommend, the simplest first."""


NAMES: Final[dict[Kind, str]] = {
    ARTICLE: "the article's head",
    WINNER: "the single winner",
    REPEATS: "the average of the winner from several seeds",
    ENSEMBLE: "the average of the finalists",
}
"""In words."""


@dataclass(frozen=True, kw_only=True)
class Contender(Recorded):
    """One of the things that a study may recommend, on the validation rows.

    Attributes:
        kind: ``article``, ``winner``, ``repeats`` (the average of the winner's own) or ``ensemble`` (of the finalists).
        trials: Numbers of the trials whose heads it is made of.
        copies: Heads of each of these.
        value: Mean score of the rows, higher is better.
        behind: That of the best less this one.
        error: Standard error of ``behind``, patients as units.
        temperature: What calibrates it; None where there was nothing to fit it on.
    """

    kind: Kind
    trials: tuple[int, ...]
    copies: int = 1
    value: float
    behind: float
    error: float
    temperature: float | None = None

    def is_head_of(self, trial: int) -> bool:
        """Whether it is the single head of a trial."""
        return self.trials == (trial,) and self.copies == 1


@dataclass(frozen=True, kw_only=True)
class Recommendation(Recorded):
    """What a study recommends.

    Attributes:
        kind: That of one of the contenders.
        contenders: The simplest first.
    """

    kind: Kind
    contenders: tuple[Contender, ...]

    @property
    def chosen(self) -> Contender:
        """What is recommended."""
        return self.of(self.kind) or self.contenders[0]

    def of(self, kind: Kind) -> Contender | None:
        """Returns the contender of a kind; None where there was none."""
        return next((one for one in self.contenders if one.kind == kind), None)


def describe_rule(recommended: Recommendation, objective: Objective) -> str:
    """Returns a sentence on what is recommended, and why."""
    chosen = recommended.chosen
    told = ", ".join(f"{NAMES[one.kind]} {one.value:.4f}" for one in recommended.contenders)
    logarithms = " by the mean logarithm of the true class' calibrated probability"
    by = logarithms if scores_rows_by_logarithms(objective) else ""
    if chosen.behind == 0 and chosen is recommended.contenders[0]:
        why = "the simplest, and none of these is better"
    elif chosen.behind == 0:
        why = "the best of these, and none that is simpler is within a standard error of it"
    else:
        why = (
            f"{chosen.behind:.4f} behind the best, within the standard error of that ({chosen.error:.4f}), and simpler"
        )
    return f"recommended: {NAMES[chosen.kind]}; on the validation rows{by} {told}; it is {why}"
