"""A trial beside the published one that it repeats: the same ranks, or how many others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentbench.reports.cells import Ranks, Result
from intentbench.results.record import TrialRecord


@dataclass(frozen=True)
class Reproduction:
    """What came of training a published trial again.

    Attributes:
        published: its record.
        again: that of the new trial.
        targets: ranks that were compared, those under noise too.
        differing: how many of them differ; None where the targets themselves do.
    """

    published: TrialRecord
    again: TrialRecord
    targets: int
    differing: int | None

    @property
    def equal(self) -> bool:
        """Whether every rank is the same."""
        return self.differing == 0


def compare_trials(published: Result, again: Result) -> Reproduction:
    """Compare the ranks of two trials that are done, whatever the order of their targets.

    Raises:
        ValueError: one has no ranks.
    """
    if published[1] is None or again[1] is None:
        raise ValueError("both trials must have ranks")
    old, new = _sorted(published[1]), _sorted(again[1])
    targets = sum(old[name].size for name in ("rank", "noise") if name in old)
    same = old.keys() == new.keys() and all(
        old[name].shape == new[name].shape for name in ("rank", "noise") if name in old
    )
    differing = None
    if same and all(np.array_equal(old[name], new[name]) for name in ("user", "key")):
        differing = sum(
            int((old[name] != new[name]).sum()) for name in ("rank", "noise") if name in old
        )
    return Reproduction(published[0], again[0], targets, differing)


def render_reproduction(found: Reproduction) -> str:
    """What came out, for the terminal."""
    old, new = found.published, found.again
    if found.differing is None:
        ranks = "differ: other targets were ranked"
    elif found.equal:
        ranks = f"equal, all {found.targets:,}"
    else:
        ranks = f"{found.differing:,} of {found.targets:,} differ"
    lines = [f"ranks    {ranks}"]
    if old.trial == new.trial:
        lines.append(f"trial    {old.trial}, the same name")
    else:
        lines.append(f"trial    published {old.trial}, here {new.trial}: not the same request")
    lines.append("code     " + _same(old.code, new.code))
    changes = list(_changes(old.environment, new.environment))
    lines += [f"machine  {line}" for line in changes or ["the same versions and machine"]]
    lines += ["", f"{'':24}{'published':>12}{'here':>12}{'difference':>14}"]
    both = {**old.metrics, **old.intents}, {**new.metrics, **new.intents}
    for name in [name for name in both[0] if name in both[1]]:
        a, b = both[0][name], both[1][name]
        lines.append(f"{name:24}{a:12.6f}{b:12.6f}{b - a:+14.2e}")
    lines.append(
        f"{'seconds':24}{old.cost.seconds:12.1f}{new.cost.seconds:12.1f}"
        f"{new.cost.seconds - old.cost.seconds:+14.1f}"
    )
    return "\n".join(lines) + "\n"


def _sorted(ranks: Ranks) -> dict[str, NDArray[np.integer]]:
    order = np.lexsort((ranks["key"], ranks["user"]))
    names = [name for name in ("user", "key", "rank", "noise") if name in ranks]
    return {name: ranks[name][..., order] for name in names}


def _same(old: Any, new: Any) -> str:
    return f"{old}, the same" if old == new else f"published {old}, here {new}"


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two environments, an entry a line."""
    found = []
    for name in sorted({*old, *new} - {"commit", "dirty"}):  # the code's fingerprint says more
        a, b = old.get(name, "none"), new.get(name, "none")
        if isinstance(a, dict) and isinstance(b, dict):
            found += _changes(a, b)
        elif a != b:
            found.append(f"{name}: {_same(a, b)}")
    return found
