"""How often the intervals and verdicts of ``heads.metrics.intervals`` are right, on patients that are made up.

    python benchmarks/intervals.py [--patients 20,83,421] [--accuracies 0.8,0.95] [--alike 0.5]

Patients have few images, as in the 652 scans (most have one, some a dozen), or some of them have dozens. Whether a head
is right about an image depends on the patient by ``--alike``, and by the rest on the image. Of each kind many test
parts are drawn. Printed is how often the 95% interval holds the head's accuracy, and how often that is below or above
it; and how often two heads, which agree as much as ``--together`` says, are called different by more than chance
explains: where they are equal, and where one is better by ``--points``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from heads.metrics.intervals import Interval, accuracy_interval, difference_interval

FEW, DOZENS = "few images each", "dozens of some"
Right = npt.NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", default="20,83,421", help="in the test part, one number or several")
    parser.add_argument("--accuracies", default="0.8,0.95", help="of the heads, likewise")
    parser.add_argument("--times", type=int, default=400, help="test parts of each kind")
    parser.add_argument(
        "--alike", type=float, default=0.5, help="share that a patient's images have in common, in [0, 1]"
    )
    parser.add_argument("--together", type=float, default=0.6, help="share that two heads have in common, in [0, 1]")
    parser.add_argument("--points", type=float, default=3.0, help="by which one head is better")
    arguments = parser.parse_args()
    print(f"{'':>31}accuracy in interval (below, above)   called different: none is, {arguments.points:g} points are")
    for images in (FEW, DOZENS):
        for patients in map(int, arguments.patients.split(",")):
            for accuracy in map(float, arguments.accuracies.split(",")):
                told = simulated(images, patients, accuracy, arguments)
                print(f"{patients:>5} patients, {images:<16}{100 * accuracy:4.0f}%  {told}", flush=True)


def simulated(images: str, patients: int, accuracy: float, options: argparse.Namespace) -> str:
    """What became of many test parts of one kind, as a line of the table."""
    generator = np.random.default_rng([images == DOZENS, patients, round(1000 * accuracy)])
    better = min(accuracy + options.points / 100, 1.0)
    ends, unequal, ahead = [], [], []
    for _ in range(options.times):
        groups = np.repeat(np.arange(patients), sizes(images, patients, generator))
        head, equal, best = rightness((accuracy, accuracy, better), groups, options, generator)
        ends.append(accuracy_interval(head, groups))
        unequal.append(outside(difference_interval(equal, head, groups)))
        ahead.append(outside(difference_interval(best, head, groups)))
    low, high = np.array(ends).T
    below, above = np.mean(accuracy < low), np.mean(accuracy > high)
    held = f"{1 - below - above:6.1%} ({below:.1%}, {above:.1%})"
    return f"{held:<26}{np.mean(np.abs(unequal)):6.1%}   {np.mean(np.array(ahead) > 0):6.1%}"


def sizes(images: str, patients: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """How many images each patient has: 1.5 on the mean, or 3.6 where one in twenty has some two dozen."""
    if images == FEW:
        return np.minimum(generator.geometric(0.65, patients), 13)
    many = (generator.random(patients) < 0.05) * generator.integers(5, 40, patients)
    return generator.geometric(0.4, patients) + many


def rightness(
    accuracies: Sequence[float],
    groups: npt.NDArray[np.int64],
    options: argparse.Namespace,
    generator: np.random.Generator,
) -> list[Right]:
    """Which rows each of some heads classifies correctly: a normal number of patient and image decides, see above."""

    def drawn(count: int) -> npt.NDArray[np.float64]:
        own, common = generator.standard_normal((len(accuracies), count)), generator.standard_normal(count)
        mixed: npt.NDArray[np.float64] = np.sqrt(1 - options.together) * own + np.sqrt(options.together) * common
        return mixed

    of_patients, of_images = drawn(groups.max() + 1)[:, groups], drawn(len(groups))
    difficulty = np.sqrt(options.alike) * of_patients + np.sqrt(1 - options.alike) * of_images
    return [own < norm.ppf(accuracy) for own, accuracy in zip(difficulty, accuracies, strict=True)]


def outside(interval: Interval) -> int:
    """1 where a difference is called a gain, -1 where it is called a loss, as ``search.finish.held_out`` does."""
    low, high = interval
    return int(low > 0) - int(high < 0)


if __name__ == "__main__":
    main()
