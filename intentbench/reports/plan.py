"""What a benchmark asked for, as far as its page needs to know."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Plan:
    """The request behind a leaderboard; what is left empty is taken from the trials.

    Attributes:
        title: heading of the page.
        reference: label that differences are taken against; "" takes the best of each dataset.
        datasets: all that were to be run, in the order of the page.
        labels: all that were to be run.
        seeds: of stochastic methods.
        command: what runs the benchmark again.
        groups: groups of users by activity that are shown; 0 or 1 shows none.
        code: label to fingerprint of its code today; a cell made with other code is called stale.
    """

    title: str = ""
    reference: str = ""
    datasets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    command: str = ""
    groups: int = 0
    code: dict[str, str] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """As a file has it; groups are said where there are some."""
        fields = asdict(self)
        if not self.groups:
            del fields["groups"]
        return fields

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Plan":
        """From what `to_json` and JSON made of one."""
        lists = {name: tuple(raw[name]) for name in ("datasets", "labels", "seeds")}
        return cls(**{**raw, **lists})
