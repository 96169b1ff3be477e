"""What the user named, as images: files, folders, addresses."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from features.images.entries import every_file, is_image, to_install, what_is_there
from features.images.pages import Pages, page_numbers, source_of
from features.images.reading import ImageFile, Page
from heads.prediction.download import RemoteError, fetch, is_url

_FETCHES = 8
"""Addresses that are read at the same time."""


@dataclass(frozen=True)
class NamedImage:
    """One image to be predicted.

    Attributes:
        name: As the user knows it: a path, or an address.
        path: Where its content is, and on which page.
        reason: Why there is none, or ''.
    """

    name: str
    path: ImageFile
    reason: str = ""


def find_sources(
    arguments: Sequence[str],
    downloads: Path,
    *,
    leave_out: Path | None = None,
    pages: Pages = "first",
    notes: list[str] | None = None,
) -> list[NamedImage]:
    """Turns arguments into images: addresses are read, folders walked.

    A folder's images come sorted, without hidden entries and what systems leave behind. Links are followed.

    Args:
        arguments: Files, pages of them (``scan.tif#2``), folders; http and https addresses, of files or their pages.
        downloads: Folder for what is read from addresses; the caller removes it.
        leave_out: A folder that is not walked where it lies in one of the arguments: that of the maps, which are
            pictures, too.
        pages: Whether a file with several pages is its first, or a source for each of them: ``scan.tif#2``.
        notes: Filled with what would have files read that are passed over beside a folder's images, a line each.

    Returns:
        At least one source for each argument, in their order; a folder without images is one that has a reason.
    """
    hidden = None if leave_out is None else leave_out.resolve()
    with ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch") as pool:
        try:
            fetched = {
                number: pool.submit(_download, text, downloads / f"{number}")
                for number, text in enumerate(arguments)
                if is_url(text)
            }
            sources: list[NamedImage] = []
            others: list[Path] = []
            for number, text in enumerate(arguments):
                sources += [fetched[number].result()] if number in fetched else _local(Path(text), hidden, others)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if notes is not None:
        notes += to_install(map(str, others))
    return [page for source in sources for page in _pages(source)] if pages == "all" else sources


def _pages(source: NamedImage) -> list[NamedImage]:
    if source.reason or isinstance(source.path, Page):
        return [source]
    numbers = page_numbers(source.path)
    if len(numbers) == 1:
        return [source]
    return [NamedImage(f"{source.name}#{number}", Page(source.path, number)) for number in numbers]


def _download(url: str, path: Path) -> NamedImage:
    try:
        path.write_bytes(fetch(url))
    except RemoteError as error:
        return NamedImage(url, path, str(error))
    except OSError as error:  # a full disk
        return NamedImage(url, path, f"cannot be kept in {path.parent}: {error.strerror}")
    named = source_of(path.parent, url)
    return NamedImage(url, Page(path, named.number) if isinstance(named, Page) else path)


def _local(path: Path, hidden: Path | None, others: list[Path]) -> list[NamedImage]:
    """The images that a path means; ``others`` is filled with the files beside those of a folder."""
    try:
        folder = path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        return [NamedImage(str(path), path, f"{error.strerror}")]
    if not folder:
        return [NamedImage(str(path), path if path.is_file() else source_of(path.parent, path.name))]
    problems: list[OSError] = []
    found: list[NamedImage] = []
    passed_over: list[Path] = []
    for file in every_file(path, leave_out=hidden, on_problem=problems.append):
        if is_image(file):
            found.append(NamedImage(str(file), file))
        else:
            passed_over.append(file)
    found += [NamedImage(str(error.filename), path, f"{error.strerror}") for error in problems]
    if not found:
        return [NamedImage(str(path), path, _without_images(path))]
    others += passed_over
    return found


def _without_images(folder: Path) -> str:
    held, hint = what_is_there(folder)
    return "a folder without images" + held.removeprefix("none") + (f"; {hint}" if hint else "")
