"""``--engine fused``: which trial sits where in the bank. Ask, train an epoch, report all, judge all, tell, refill."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from features.runtime.command import say
from features.runtime.stopping import Stop, heeding_stops
from features.runtime.text import counted, percent
from heads.bank.engine import Newcomer
from heads.bank.pages import Placement
from heads.bank.shape import pages_of
from heads.metrics.scoring import DIVERGED, EpochRecord, Probabilities, Score
from heads.model.weights import Weights
from search.record.opened_study import OpenedStudy
from search.record.outages import DATABASE_ERRORS
from search.setup.seeds import fold_seeds
from search.training.bank_shapes import BankShapes
from search.training.banked_trial import BankedTrial
from search.training.banks import Arrival, Banks, Trained
from search.training.checkpoint_sink import CheckpointSink
from search.training.display import Display
from search.training.inheritance import Inheritance, Inherited
from search.training.snapshot import Snapshot, Snapshots
from search.training.throughput import Throughput
from search.trials.ask_tell import Asked, Book
from search.trials.notes import TrialNotes

FLUSH_EVERY = 1.0
"""Seconds between two syncs of the record."""
WAITING = 6
"""Trials that may wait for enough free pages while narrower ones are asked for."""
ASKED_PER_EPOCH = 2
"""Trials asked for while an epoch trains: at some 13 ms each they are ready before it ends, even if it takes 50 ms. A
number and not a time, so that the machine's pace decides nothing."""
A_SMALLER_BANK = 1e13
"""Operations on free pages from which on a smaller bank pays: it takes two compilations, some ten seconds, in which a
slow machine does less than this, and free pages cost less than others. Reckoned, not measured."""


@dataclass(frozen=True)
class Outcome:
    """A trial that is through after an epoch: failed, pruned or run to its end."""

    banked: BankedTrial
    failure: str | None = None
    pruned: bool = False


@dataclass(frozen=True)
class Completed:
    """A trial that ran to its end.

    Attributes:
        banked: The trial.
        weights: Those of its best epoch, or of the last where that counts, one list for each fold.
        probabilities: On the validation rows of each fold, in float32: (rows, classes).
        score: Of these; with folds the mean over them.
    """

    banked: BankedTrial
    weights: list[Weights]
    probabilities: list[Probabilities]
    score: Score


class Pool:
    """Runs the trials of a study many at a time, on the same batches."""

    def __init__(
        self,
        book: Book,
        banks: Banks,
        sink: CheckpointSink,
        display: Display,
        *,
        opened: OpenedStudy,
        snapshots: Snapshots,
        throughput: Throughput,
        inheritance: Inheritance | None = None,
    ) -> None:
        """Prepares a pool; ``run`` does the work.

        Args:
            book: Gives out the trials and takes what becomes of them.
            banks: Empty ones that have room for every head of the space.
            sink: Takes the heads that ran to their end.
            display: Shows how far it is.
            opened: The study and its record.
            snapshots: Where the bank is saved.
            throughput: Counts time and work.
            inheritance: What processes have left that worked on the same study.
        """
        self.book = book
        self.banks = banks
        self.sink = sink
        self.display = display
        self.opened = opened
        self.snapshots = snapshots
        self.throughput = throughput
        self.inheritance = inheritance
        self.epoch = 0
        self.trials: list[BankedTrial] = []
        self.waiting: list[Asked] = []
        self._flushed = self._snapshot_at = time.monotonic()

    def run(self, *, until_half_empty: bool = False) -> bool:
        """Trains until every trial has been told.

        Args:
            until_half_empty: Whether to stop once no trial is left to come in and a smaller bank would go on faster, by
                more than its compilation takes: every page costs its time, also one that nobody owns.

        Returns:
            Whether every trial has been told.

        Raises:
            KeyboardInterrupt: After Ctrl-C, or SIGTERM, once the epoch has ended and a snapshot is on the disk; without
                one where the record is in a database that is away.
            BottleneckError: It could not be written, or the record could not.
        """
        self.display.detail = self._describe
        with (
            ThreadPoolExecutor(1, thread_name_prefix="ask") as asker,
            heeding_stops(heard=lambda again: self.opened.hurry(at_once=again)) as stop,
            stop.instead_of(*DATABASE_ERRORS),
        ):
            with self.throughput.bookkeeping():
                if not self.trials or not self.snapshots.beside_journal:
                    self._take_snapshot()  # mostly of the empty bank: a run killed at once begins anew from here
                self._refill()
                self._flush()
            while self.trials or self._find_more(stop):
                # Before an epoch and not after it, so that a run that goes on from here decides alike.
                if until_half_empty and self._is_half_empty():
                    return False
                # Trials are asked for while the machine computes; what they are drawn from is the study as it stands
                # now, so that a thread's pace decides nothing.
                ahead = asker.submit(self._ask_ahead)
                with self.throughput.training():
                    trained = self._train()
                with self.throughput.bookkeeping():
                    ahead.result()
                    outcomes = self._settle(trained)
                with self.throughput.training():
                    completed = self._take_out(outcomes)
                with self.throughput.bookkeeping():
                    self._tell(outcomes, completed)
                    self._refill()
                with self.throughput.bookkeeping():  # of its own: what a snapshot says of the time is complete
                    self._save()
                if stop.asked:
                    self._take_snapshot()
                    self.snapshots.wait()
                    stop.take_effect()
            with self.throughput.bookkeeping():
                self._flush()
        return True

    def _find_more(self, stop: Stop) -> bool:
        """Waits for trials that other processes may leave, if they are at it; whether there are some now.

        Whoever sums up what all have measured may do so meanwhile, from their snapshots.
        """
        if self.opened.crew is not None:
            with self.throughput.bookkeeping():
                self._flush()
            self._take_snapshot()
            self.snapshots.wait()
        while self.book.wait():
            if stop.asked:
                stop.take_effect()
            with self.throughput.bookkeeping():
                self._refill()
            if self.trials:
                return True
        return False

    def _is_half_empty(self) -> bool:
        """Whether nobody comes in, and a smaller bank pays; by counts and no clock, so that a replay decides alike."""
        used, pages = self.banks.used, self.banks.pages
        if not self.book.is_exhausted or self.waiting or 2 * used > pages:
            return False
        left = max(self.book.epochs_left(banked.asked, banked.epochs) for banked in self.trials)
        return left * self.banks.epoch_flops * (pages - used) >= A_SMALLER_BANK * used

    def _describe(self) -> str:
        rate = self.throughput.operations_per_second / 1e9
        idle = self.throughput.bookkeeping_seconds / max(self.throughput.seconds, 1e-9)
        return (
            f"{len(self.trials)} heads at once on {self.banks.used} of {self.banks.pages} pages, {rate:.0f} GFLOP/s,"
            f" {percent(idle, 1)} bookkeeping"
        )

    # --- trials in ----------------------------------------------------------------------------------------------

    def _ask_ahead(self) -> None:
        """Has trials ready for the places that are freed at the next rung: half of those that train."""
        for _ in range(ASKED_PER_EPOCH):
            if len(self.waiting) > len(self.trials) // 2 or (asked := self.book.ask()) is None:
                return
            self.waiting.append(asked)

    def _refill(self) -> None:
        """Fills free pages: of the trials that wait, the widest that fits; a new one where none does."""
        room = self.banks.room
        chosen: list[Asked] = []
        while room.is_left:
            fitting = [asked for asked in self.waiting if room.fits(asked.store, asked.spec)]
            if fitting:
                best = max(fitting, key=lambda asked: (pages_of(asked.spec), -asked.ordinal))
                self.waiting.remove(best)
                chosen.append(best)
                room.take(best.store, best.spec)
            elif len(self.waiting) < WAITING and (asked := self.book.ask()) is not None:
                self.waiting.append(asked)
            else:
                break
        inherited = {asked.number: left for asked in chosen if (left := self._inherited(asked))}
        with self.throughput.moving():
            placed = self.banks.insert([self._arrival(asked, inherited.get(asked.number)) for asked in chosen])
        if inherited:
            say(f"note: {counted(len(inherited), 'trial')} gone on with, begun by another process")
        if not self.trials:
            self.epoch = self._epoch_of(chosen, inherited)
        for asked, slot in zip(chosen, placed, strict=True):
            left = inherited.get(asked.number)
            banked = replace(left.banked, slot=slot) if left else BankedTrial(asked, slot, self.epoch)
            if left:
                self.book.repeat_reports(asked, left.trial, upto=banked.epochs)
            TrialNotes.write(asked.trial, first_epoch=banked.first_epoch)
            self.trials.append(banked)

    def _inherited(self, asked: Asked) -> Inherited | None:
        return self.inheritance.of(asked) if self.inheritance is not None else None

    def _epoch_of(self, chosen: Sequence[Asked], inherited: Mapping[int, Inherited]) -> int:
        """The epoch that an empty bank goes on with: the batches that come next are those that would have come.

        Where nobody left a snapshot, as a process that was killed while it wrote one, that is the epoch in which the
        first of the trials had begun.
        """
        if inherited:
            return next(iter(inherited.values())).bank_epoch
        if self.inheritance is None:
            return self.epoch
        begun = (self.inheritance.first_epoch(asked) for asked in chosen)
        return min((epoch for epoch in begun if epoch is not None), default=self.epoch)

    def _arrival(self, asked: Asked, left: Inherited | None) -> Arrival:
        if left is not None:
            return Arrival(asked.store, Newcomer(spec=asked.spec, states=left.states))
        epochs = self.book.config.epochs
        seeds = fold_seeds(asked.seed, self.banks.folds)
        return Arrival(asked.store, Newcomer(spec=asked.spec, seeds=seeds, epochs=epochs))

    # --- an epoch -----------------------------------------------------------------------------------------------

    def _train(self) -> dict[str, Trained]:
        compiled = self.banks.traces
        trained = self.banks.train(self.epoch, self.trials)
        self.throughput.epoch(
            heads=len(self.trials),
            pages=self.banks.used,
            room=self.banks.pages,
            operations=sum(one.operations for one in trained.values()),
            compilations=self.banks.traces - compiled,
        )
        self.epoch += 1
        return trained

    def _settle(self, trained: Mapping[str, Trained]) -> list[Outcome]:
        """Reports every head, then judges every head; returns those that are through."""
        failed, sound, improved = [], [], []
        for banked in self.trials:
            banked.epochs += 1
            slot, mine = banked.slot, trained[banked.store]
            score, train_loss = mine.score_of(slot), mine.loss_of(slot)
            if not (np.isfinite(train_loss) and score.finite):
                failed.append(Outcome(banked, failure=f"{DIVERGED} in epoch {banked.epochs}: loss not finite"))
                continue
            sound.append(banked)
            banked.rates.append(mine.rate_of(slot))
            record = EpochRecord(banked.epochs, train_loss, score, banked.rates[-1])
            if record.replaces(banked.best, last_counts=banked.asked.last_counts):
                banked.best = record
                improved.append(banked)
            self.book.report(banked.asked, record)
        self.banks.keep(improved)
        # All have been reported, so each is judged among its whole cohort.
        return failed + [outcome for banked in sound if (outcome := self._judge(banked))]

    def _judge(self, banked: BankedTrial) -> Outcome | None:
        if self.book.is_through(banked.asked, banked.epochs, banked.best):
            return Outcome(banked)
        if self.book.should_prune(banked.asked):
            self.book.prune(banked.asked, epochs=banked.epochs)  # at once: the last survivor must be known
            return Outcome(banked, pruned=True)
        return None

    def _take_out(self, outcomes: Sequence[Outcome]) -> list[Completed]:
        """Takes out the heads that came to their end and scores them in full precision: what their files will give."""
        trials = [outcome.banked for outcome in outcomes if not (outcome.failure or outcome.pruned)]
        weights = [self.banks.take_out(banked) for banked in trials]
        completed = []
        for banked, folds, predicted in zip(trials, weights, self.banks.predict_exactly(trials, weights), strict=True):
            probabilities, scores = zip(*predicted, strict=True)
            completed.append(Completed(banked, folds, list(probabilities), Score.mean(scores)))
        return completed

    def _tell(self, outcomes: Sequence[Outcome], completed: Sequence[Completed]) -> None:
        """Tells what became of the trials that are through, and frees their pages."""
        self.display.epoch(len(self.trials))
        if not outcomes:
            return
        for one in completed:
            self.sink.offer(one.banked.asked, one.weights, one.score, one.probabilities)
            self._complete(one)
        for outcome in outcomes:
            if outcome.failure:
                self.book.fail(outcome.banked.asked, outcome.failure, epochs=outcome.banked.epochs)
        gone = {outcome.banked.asked.number for outcome in outcomes}
        with self.throughput.moving():
            self.banks.remove(outcome.banked for outcome in outcomes)
        self.trials = [banked for banked in self.trials if banked.asked.number not in gone]
        if not self.snapshots.beside_journal:
            self.sink.write_out()
        self.display.finished(*(outcome.banked.asked.number for outcome in outcomes))

    def _complete(self, completed: Completed) -> None:
        banked, weights, score = completed.banked, completed.weights, completed.score
        assert banked.best is not None
        best = replace(banked.best, validation=score)
        TrialNotes.write(banked.asked.trial, learning_rates=banked.rates[: best.epoch])
        parameters = sum(array.size for array in weights[0])
        self.book.complete(banked.asked, best, epochs=banked.epochs, parameters=parameters)

    # --- the record ---------------------------------------------------------------------------------------------

    def _save(self) -> None:
        now = time.monotonic()
        if now - self._flushed >= FLUSH_EVERY:
            self.sink.write_out()
            self._let_go(self.opened.hand_over())
            self._flushed = now
        if now - self._snapshot_at >= self.snapshots.every:
            self._take_snapshot()
            self._snapshot_at = now

    def _flush(self) -> None:
        self.sink.write_out()
        self._let_go(self.opened.flush())

    def _let_go(self, lost: Collection[int]) -> None:
        """Frees the places of trials that others have taken over: nothing more is told of them."""
        if not lost:
            return
        gone = [banked for banked in self.trials if banked.asked.number in lost]
        self.banks.remove(gone)
        self.trials = [banked for banked in self.trials if banked.asked.number not in lost]
        self.waiting = [asked for asked in self.waiting if asked.number not in lost]

    def _take_snapshot(self) -> None:
        self._flush()
        self.snapshots.save(self.snapshot())

    def snapshot(self) -> Snapshot:
        """Returns everything that ``restore`` needs to go on from here."""
        return Snapshot(
            finished=sum(trial.state.is_finished() for trial in self.book.study.get_trials(deepcopy=False)),
            epoch=self.epoch,
            shapes=BankShapes(self.banks.shapes, self.banks.pages),
            trials=[replace(banked, rates=list(banked.rates)) for banked in self.trials],
            waiting=[asked.number for asked in self.waiting],
            throughput=replace(self.throughput),
            placements=[self.banks.placement_of(banked) for banked in self.trials],
            states=[self.banks.save_state(banked) for banked in self.trials],
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Goes on where a snapshot was taken."""
        placements: Sequence[Placement | None] = snapshot.placements or [None] * len(snapshot.trials)
        newcomers = [
            Arrival(banked.store, Newcomer(spec=banked.asked.spec, states=states, placement=placement))
            for banked, states, placement in zip(snapshot.trials, snapshot.states, placements, strict=True)
        ]
        slots = self.banks.insert(newcomers)
        self.trials = [replace(banked, slot=slot) for banked, slot in zip(snapshot.trials, slots, strict=True)]
        self.waiting = [self.book.resumed_trial(number) for number in snapshot.waiting]
        self.epoch = snapshot.epoch
