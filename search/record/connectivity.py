"""Whether a database has answered a process for long enough for the others' silence to mean something."""

from __future__ import annotations

from features.runtime.command import say

_SLOW_ROUNDS = 3
"""Rounds in a row that are too slow, after which that is said."""


class Connectivity:
    """Since when a process is in touch with a database, by when that has answered.

    Where it was away, or stood still, or this process was asleep, nobody may have given a sign of life: that is a long
    time between two answers, and not a round of many answers that come slowly. Only where a round takes so long that
    the others' signs would come too late, too, nobody is believed to be dead.
    """

    def __init__(self, grace: float, every: float, where: str, *, now: float) -> None:
        """Begins in touch: who comes anew believes what the signs of life say.

        Args:
            grace: Seconds without a sign of life after which others are taken for dead.
            every: Seconds between two rounds.
            where: The database and the study, for messages.
            now: This process's count of seconds, as in all that follows.
        """
        self._grace, self._round_s, self._where = grace, every, where
        self._answered_at = self._round_at = now
        self._steady_since = now - grace
        self._slow, self._said = 0, False

    def begin_round(self, now: float) -> None:
        """The database has answered for the first time after the pause between two rounds."""
        is_slow, self._round_at = now - self._round_at > self._grace - self._round_s, now
        self._slow = self._slow + 1 if is_slow else 0
        if is_slow:
            self._steady_since = now
        if self._slow == _SLOW_ROUNDS and not self._said:
            self._said = True
            say(f"note: {self._where}: answers too slowly for --grace {self._grace:g}: nobody is taken for dead")
        self._answered_at += self._round_s  # which was planned
        self.answered(now)

    def answered(self, now: float) -> None:
        """The database has answered."""
        if now - self._answered_at > self._grace / 2:
            self._steady_since = now
        self._answered_at = now

    def is_steady(self, now: float) -> bool:
        """Notes that it has answered, and says whether it has for long enough for others to give their signs."""
        self.answered(now)
        return now - self._steady_since >= self._grace
