"""Which parts of one group make the next batch. Pure.

The due part leads. Others join one by one, next the one that adds the least padding, and of all the batches that come
about in this way the best is taken: that in which the companions save the most against running elsewhere. What a part
costs elsewhere is the going rate for its elements, which is the mean cost of useful work over the last batches, and at
most what it costs alone. To take the best of gain minus rate times time, with the rate that came out last, is
Dinkelbach's way to the best ratio of work to time (Management Science 13, 1967). So batches become small and of like
length where time follows length, large where a fixed cost rules, and nothing joins an overlong part that would pad it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from inference_worker.batching.cost import CostModel
from inference_worker.batching.experience import Experience
from inference_worker.batching.padding import most_rows, widest
from inference_worker.item import Part, Reason, row_size
from inference_worker.models.spec import BatchLimits

#: Batches of so many parts are compared, four in each octave: one in between would hardly be better.
COMPARED = frozenset(range(1, 8)) | {quarter << octave for octave in range(1, 11) for quarter in range(4, 8)}


class Cut(NamedTuple):
    """The run of a group from `start` up to `stop`, and why it goes out like this."""

    start: int
    stop: int
    reason: Reason


class Run(NamedTuple):
    """A run of a group that could be a batch: its padded elements, those that are no padding, its first deadline."""

    start: int
    stop: int
    size: int
    useful: int
    deadline_s: float


def compose(group: Sequence[Part], leader: int, experience: Experience, now_s: float) -> Cut:
    """The batch around the leader, of a group that is sorted by length; where nothing is padded by order."""
    if group[leader].alone:
        return Cut(leader, leader + 1, Reason.ALONE)
    if len(group) == 1:
        return Cut(0, 1, Reason.IDLE)
    runs, reason = _padded(group, leader, experience) if group[leader].shapes else _even(group, experience)
    return _choose(runs, reason, experience.cost, now_s)


def _even(group: Sequence[Part], experience: Experience) -> tuple[list[Run], Reason]:
    """Where nothing is padded: the first ones in their order, up to a limit; and which."""
    limits = experience.spec.batch
    most = min(most_rows(limits, group[0].arrays, ()), experience.ceiling.elements)
    stop, rows, deadline_s = 0, 0, inf
    runs, reason = list[Run](), Reason.IDLE
    for part in group:
        if rows and rows + part.rows > most:
            reason = _limit(limits, rows + part.rows, 1, most)
            break
        stop, rows = stop + 1, rows + part.rows
        if part.deadline_s < deadline_s:
            deadline_s = part.deadline_s
        if stop in COMPARED:
            runs.append(Run(0, stop, rows, rows, deadline_s))
    return _ended(runs, Run(0, stop, rows, rows, deadline_s)), reason


def _padded(group: Sequence[Part], leader: int, experience: Experience) -> tuple[list[Run], Reason]:
    """Around the leader, next to join the part that adds the least padding, up to a limit; and which."""
    limits, ceiling, cost = experience.spec.batch, experience.ceiling.elements, experience.cost
    # One batch instead of two saves one fixed cost: what pads more than that is worth had better stay apart.
    most_padding = cost.fixed_s / cost.element_s if cost.element_s else inf
    part = group[leader]
    start, stop, rows, shapes = leader, leader + 1, part.rows, part.shapes
    row, most = row_size(shapes), most_rows(limits, part.arrays, shapes)
    size, useful, deadline_s = rows * row, part.useful, part.deadline_s
    runs, reason = [Run(start, stop, size, useful, deadline_s)], Reason.IDLE
    while stop - start < len(group):
        # A longer one pads all that are there, a shorter one itself. On a tie the longer: the older of equal length
        # stand to the left.
        longer = (group[stop].length - row) * rows if stop < len(group) else inf
        shorter = (row - group[start - 1].length) * group[start - 1].rows if start else inf
        part, padding = (group[stop], longer) if longer <= shorter else (group[start - 1], shorter)
        if padding > most_padding:
            reason = Reason.COST
            break
        if part.shapes != shapes and (wider := widest(shapes, part.shapes)) != shapes:
            shapes, row, most = wider, row_size(wider), most_rows(limits, part.arrays, wider)
        rows += part.rows
        if rows > most or rows * row > ceiling:
            reason = _limit(limits, rows, row, most)
            break
        if longer <= shorter:
            stop += 1
        else:
            start -= 1
        size, useful = rows * row, useful + part.rows * (part.length or 1)
        if part.deadline_s < deadline_s:
            deadline_s = part.deadline_s
        if stop - start in COMPARED:
            runs.append(Run(start, stop, size, useful, deadline_s))
    return _ended(runs, Run(start, stop, size, useful, deadline_s)), reason


def _ended(runs: list[Run], last: Run) -> list[Run]:
    if not runs or runs[-1].stop - runs[-1].start < last.stop - last.start:
        runs.append(last)
    return runs


def _limit(limits: BatchLimits, rows: int, row: int, most: float) -> Reason:
    """Why a batch has no `rows` rows of `row` elements where `most` rows may be."""
    if rows > limits.rows:
        return Reason.FULL
    if rows <= most:
        return Reason.CEILING
    return Reason.TOKENS if limits.padded is not None and rows * row > limits.padded else Reason.BYTES


def _choose(runs: Sequence[Run], reason: Reason, cost: CostModel, now_s: float) -> Cut:
    """The run that saves most, of equals the largest; or now and then another, to learn what it costs."""
    seconds = [cost.seconds(run.size) for run in runs]
    in_time = _in_time(runs, seconds, now_s)
    if in_time < len(runs):
        runs, seconds, reason = runs[:in_time], seconds[:in_time], Reason.DEADLINE
    worths = [cost.worth_s(run.useful, run.stop - run.start) for run in runs]
    saves = [worth - run_s for worth, run_s in zip(worths, seconds, strict=True)]
    most_s = max(saves)
    best = len(saves) - 1 - saves[::-1].index(most_s)
    if cost.trial_due:
        for number in range(len(runs) - 1, -1, -1):
            # Worth a trial is what would be the best if it took but half as long as it is thought to.
            hopeful = number != best and worths[number] - seconds[number] / 2 >= most_s
            if hopeful and runs[number].size <= 2 * runs[best].size and cost.try_now(runs[number].size):
                return Cut(runs[number].start, runs[number].stop, Reason.TRIAL)
    return Cut(runs[best].start, runs[best].stop, reason if best == len(runs) - 1 else Reason.COST)


def _in_time(runs: Sequence[Run], seconds: Sequence[float], now_s: float) -> int:
    """How many of the runs end before the first deadline in them. A leader that is late by itself hurries nobody."""
    if runs[-1].deadline_s == inf or now_s + seconds[0] > runs[0].deadline_s:
        return len(runs)
    late = (number for number, run in enumerate(runs) if now_s + seconds[number] > run.deadline_s)
    return next(late, len(runs))
