"""What summary.json says of a bank."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from heads.bank.matmul_rate import bank_rate
from search.record.results import BankFigures
from search.training.bank_shapes import BankShapes
from search.training.throughput import Throughput


def step_rate(shapes: BankShapes, dtype: str) -> float:
    """Measured rate of the bare products of the banks' first layers, in operations per second; of several the mean."""
    return mean(bank_rate(shape, dtype) for shape in shapes.by_store.values())


def figures_of(shapes: BankShapes, dtype: str, total: Callable[[], Throughput]) -> Callable[[], BankFigures | None]:
    """Measures the machine's rate and returns what describes the banks, once ``total`` is asked what they came to."""
    bare = step_rate(shapes, dtype)
    return lambda: describe_bank(shapes.pages, dtype, total(), bare=bare)


def describe_bank(pages: int, dtype: str, throughput: Throughput, *, bare: float | None) -> BankFigures | None:
    """Returns what summary.json says of a study's bank, or of its banks together.

    Args:
        pages: That may be in use at once.
        dtype: Of its products.
        throughput: What was measured of it.
        bare: The machine's rate of these products alone (``step_rate``); None where nobody wants to wait for it.

    Returns:
        The figures; None where nothing was measured.
    """
    epochs, seconds = throughput.epochs, throughput.seconds
    if not epochs:
        return None
    return BankFigures(
        pages=pages,
        dtype=dtype,
        compilations=throughput.compilations,
        heads_at_once=round(throughput.head_epochs / epochs, 2),
        page_occupancy=round(throughput.occupancy, 4),
        trial_epochs_per_second=round(throughput.head_epochs / seconds, 3) if seconds else None,
        gflops=round(throughput.operations_per_second / 1e9, 1),
        peak_gflops=round(bare / 1e9, 1) if bare else None,
        fraction_of_peak=round(throughput.operations_per_second / bare, 4) if bare else None,
        training_seconds=round(throughput.training_seconds, 3),
        bookkeeping_seconds=round(throughput.bookkeeping_seconds, 3),
        bookkeeping_share=round(throughput.bookkeeping_seconds / seconds, 4) if seconds else None,
    )
