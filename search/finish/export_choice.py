"""Which heads leave a study: what it recommends, or what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.runtime.errors import InputError
from features.runtime.text import counted, listed
from features.store.kind import UNKNOWN
from heads.files.head_file import read_layers, read_metadata
from heads.files.metadata import TAKEN, HeadMetadata
from heads.files.own_file import why_not_plain
from heads.files.plain_layers import excesses
from search.record.head_files import HEADS_FOLDER, OWN, copy_path_of, find_head, kept_numbers, path_of, refit_path_of
from search.record.kept_heads import other_than
from search.record.recommended import ARTICLE, ENSEMBLE, NAMES, REPEATS, WINNER
from search.setup.export_options import ExportOptions, Kind

if TYPE_CHECKING:
    from search.record.study_record import StudyRecord


@dataclass(frozen=True)
class Leaving:
    """What leaves.

    Attributes:
        paths: Files of the heads; several are averaged.
        temperature: What calibrates the average; None of a single head, whose file says it.
        remark: Why it is not what the study recommends; '' where it is, or was asked for.
        caveat: What the study has not done yet for what leaves; '' where it has come to its end, or a trial's own head
            was asked for.
    """

    paths: Sequence[Path]
    temperature: float | None = None
    remark: str = ""
    caveat: str = ""

    @property
    def said(self) -> str:
        """Remark and caveat; '' for neither."""
        return "; ".join(filter(None, (self.remark, self.caveat)))


def what_leaves(record: StudyRecord, choice: ExportOptions) -> Leaving:
    """Returns the heads that leave.

    What is recommended is an average at times that no file can hold; then the single winner leaves, and that is said.

    Raises:
        InputError: What is asked for is not there, or cannot leave so.
    """
    if choice.trial is not None:
        return Leaving([_checked(record, find_head(record.folder, choice.trial), choice.trial)])
    recommended = record.summary.recommendation
    asked = None if choice.which == "recommended" else choice.which
    kind = asked or (recommended.kind if recommended else WINNER)
    found = _of_kind(record, kind)
    if found is None:
        if kind == REPEATS and _is_won_by_own(record):
            why = "an own head: these are not trained again from several seeds"
            raise InputError("--which", expected="a winner that was trained from several seeds", found=why)
        raise InputError("--which", expected=_EXPECTED[kind], found="none")
    why = why_not_together(found.paths, with_backbone=choice.with_backbone)
    if not why:
        return found
    if asked:
        raise InputError("--which", expected="heads that one file can hold", found=why)
    single = _of_kind(record, WINNER)
    assert single is not None
    return replace(single, remark=f"recommended is {NAMES[kind]}, but {why}: this is {NAMES[WINNER]}")


_EXPECTED: dict[Kind, str] = {
    ARTICLE: "a study in which the article's head ran to its end",
    WINNER: "a study in which a trial completed",
    REPEATS: "a study whose finalists were repeated several times",
    ENSEMBLE: "a study that has ended with two finalists or more, the article's head counted only where it won",
}


def _is_won_by_own(record: StudyRecord) -> bool:
    """Whether the winner is a head of somebody's own function."""
    best, article = record.summary.best, record.summary.article
    return bool(record.config.head and best and (article is None or best.number != article.number))


def _of_kind(record: StudyRecord, kind: Kind) -> Leaving | None:
    summary, folder = record.summary, record.folder
    if kind in (WINNER, ARTICLE):
        trial = summary.best if kind == WINNER else summary.article
        if trial is None:
            return None
        tested = summary.test is not None and summary.test.article is not None
        # of the article's head that is not tested nothing says whether it came through when it was trained again
        again = summary.refit is not None and (kind == WINNER or tested)
        path = _trained_again(folder, trial.number) if again else _kept(record, trial.number)
        refitted = path == refit_path_of(folder, trial.number)
        return Leaving([path], caveat=_what_is_to_come(record, kind, refitted=refitted))
    if kind == ENSEMBLE:
        told = summary.ensemble
        return Leaving([_trained_again(folder, number) for number in told.trials], told.temperature) if told else None
    entrant = summary.recommendation.of(REPEATS) if summary.recommendation else None
    if entrant is None:
        return None
    copies = [_trained_again(folder, number, copy) for number in entrant.trials for copy in range(entrant.copies)]
    return Leaving(copies, entrant.temperature)


def _trained_again(folder: Path, number: int, copy: int = 0) -> Path:
    """The file of a head that the record says was trained on all rows: no other one leaves in its place."""
    path = copy_path_of(folder, number, copy)
    if not path.is_file():
        hint = "go on with --resume, which makes it anew"
        raise InputError(path, expected="the head that was trained again", found="no such file", hint=hint)
    return path


def _kept(record: StudyRecord, number: int) -> Path:
    """The file of a head that nobody has asked for by its number."""
    if number in kept_numbers(record.folder):
        return _checked(record, find_head(record.folder, number, refitted=True), number)
    hint = f"what was found is in {record.ended_in}" if record.was_ended_elsewhere else "go on with the search"
    raise InputError(record.folder / HEADS_FOLDER, expected=f"the head of trial {number}", found="none", hint=hint)


def _checked(record: StudyRecord, path: Path, number: int) -> Path:
    """Refuses a file in the place of a trial's own head that is not that head."""
    trial = next((trial for trial in record.study.get_trials(deepcopy=False) if trial.number == number), None)
    if path != path_of(record.folder, number) or trial is None:  # a head is on the disk before its trial is told
        return path
    if found := other_than(path, record.config, trial):
        raise InputError(path, expected=f"the head of trial {number}", found=found)
    return path


def _what_is_to_come(record: StudyRecord, kind: Kind, *, refitted: bool) -> str:
    """Why a single head is less than it will be; '' once the search has ended, and has not gone on since.

    One that was trained again is an earlier end's, or that of one that runs or was stopped: then nothing says how far
    it has come.
    """
    if record.is_concluded:
        return ""
    trials = counted(record.summary.trials, "trial")
    what = f"the best of {trials} so far" if kind == WINNER else NAMES[ARTICLE]
    why = f"what was found is in {record.ended_in}" if record.was_ended_elsewhere else "the search has not ended"
    if refitted:
        made = "as it was trained again on all rows by an earlier end, or by one that is not through"
        return f"{why}: this is {what}, {made}"
    return f"{why}: this is {what}{' of its trial' if kind == ARTICLE else ''}, not repeated, calibrated or tested"


def why_not_together(paths: Sequence[Path], *, with_backbone: bool) -> str:
    """Returns why some heads cannot be one file, in words; '' where they can.

    Args:
        paths: Their files.
        with_backbone: Whether their backbones stand in that file, too.
    """
    if len(paths) < 2:
        return ""
    own = next((path for path in paths if path.suffix == OWN), None)
    if own is not None:
        return f"{own.name} has {why_not_plain(own)}"
    heads = [(path, read_metadata(path)) for path in paths]
    if seen := _seen_otherwise([metadata for _, metadata in heads]):
        return f"its heads were trained on images {seen}; one model takes one"
    kinds = [group[0][1] for group in groups_of_kind(heads)]
    unknown = any(kind.backbone == UNKNOWN for kind in kinds)
    if with_backbone and not unknown:
        return ""
    if differing := _fed_otherwise(kinds, ways_taken([metadata for _, metadata in heads])):
        return f"its heads {differing}{'' if unknown else ', which only --with-backbone brings together'}"
    return _too_large(paths, "a head file" if unknown else "a file without --with-backbone")


def _fed_otherwise(kinds: Sequence[HeadMetadata], ways: Sequence[tuple[Any, ...]]) -> str:
    """What heads take that is not the same for all; '' where it is."""
    if len(kinds) > 1:
        return f"take the features of {listed([_title(kind, kinds) for kind in kinds], 4)}"
    told = " and on ".join(f"{', '.join(views)} ({dtype})" for views, dtype in ways)
    return f"were trained on {told}" if len(ways) > 1 else ""


def _too_large(paths: Sequence[Path], file: str) -> str:
    """What heads have too much of together for one that is read layer by layer; '' for nothing."""
    for what, most, found in excesses([read_layers(path) for path in paths]):
        return f"its heads have {found:,} {what} together, and {file} holds at most {most:,}"
    return ""


def _seen_otherwise(heads: Sequence[HeadMetadata]) -> str:
    """How images became what heads were trained on, where that was not the same for all: no model does that itself."""
    found: dict[str, dict[str, None]] = {}
    for one, other in combinations(heads, 2):
        for name, *values in one.differences(other, if_known=True):
            found.setdefault(name, {}).update(dict.fromkeys(values))
    return next((f"{made} {' and by '.join(found[name])}" for name, made in _MADE.items() if name in found), "")


_MADE = {"resize": "made square by", "intensity": "scaled by"}


def _title(kind: HeadMetadata, kinds: Sequence[HeadMetadata]) -> str:
    """What features are called among others: all that is needed to tell them apart."""
    if kind.backbone == UNKNOWN:
        return f"an unknown backbone (store {kind.store_fingerprint[:16] or UNKNOWN})"
    names = [(one.backbone, one.image_size) for one in kinds]
    alike = [one for one, name in zip(kinds, names, strict=True) if name == (kind.backbone, kind.image_size)]
    differing = {name for other in alike for name, *_ in kind.differences(other)}
    descriptions = {
        "alpha": f"alpha {kind.alpha or 1:g}",
        "weights_sha256": f"weights {kind.weights}",
        "preprocessing": f"preprocessing {kind.preprocessing}",
        "layer": f"layer {kind.layer}" if kind.layer else "its own output",
    }
    more = ", ".join(text for name, text in descriptions.items() if name in differing)
    return f"{kind.backbone} at {kind.image_size} pixels{more and f' ({more})'}"


def groups_of_kind(heads: Sequence[tuple[Path, HeadMetadata]]) -> list[list[tuple[Path, HeadMetadata]]]:
    """Groups heads by the kind of their features, in the order of their first ones."""
    groups: list[list[tuple[Path, HeadMetadata]]] = []
    for path, metadata in heads:
        same = (group for group in groups if not any(group[0][1].other_features(metadata)))
        if (group := next(same, None)) is None:
            groups.append(group := [])
        group.append((path, metadata))
    return groups


def ways_taken(heads: Sequence[HeadMetadata]) -> list[tuple[Any, ...]]:
    """In which views, and as which type, heads take features of their kind; each way once."""
    return list(dict.fromkeys(tuple(getattr(head, name) for name in TAKEN) for head in heads))
