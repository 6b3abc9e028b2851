"""What a benchmark asked for, as far as its page needs to know."""

import shlex
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from datamodules.errors import RequestError
from intentbench.results.grouping import Grouping
from intentbench.stats.correction import Method

PAIRS, REFERENCE = "pairs", "reference"
FAMILIES = (PAIRS, REFERENCE)
"""What is tested on a dataset: all pairs of models, or each against the reference alone."""

CORRECTIONS: tuple[Method, ...] = get_args(Method)
"""Of p-values within a family: Holm, or Benjamini and Hochberg's, for exploring only."""


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
        reproduce: what trains one published cell again, up to the cell's name.
        folder: of the page and of `ranks/`, as the page's commands name it.
        groups: of users by activity that are shown: how many, or where they are cut.
        family: of `FAMILIES`; that of the reference needs one.
        correction: of `CORRECTIONS`.
        code: label to fingerprint of its code today; a cell made with other code is called stale.
        tuning: dataset to label to how its arguments were chosen: `arguments` and `search` of tuned
            rows, `instead` of others. Empty for datasets of which no row is tuned.
        settings: dataset to label to the settings that the benchmark has now, of rows that were
            made with others; see `intentbench.reports.other_settings.changed_settings`.
    """

    title: str = ""
    reference: str = ""
    datasets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    command: str = ""
    reproduce: str = "intentbench run --reproduce"
    folder: str = "leaderboards"
    groups: Grouping = 0
    family: str = PAIRS
    correction: Method = "holm"
    code: dict[str, str] = field(default_factory=dict, hash=False)
    tuning: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict, hash=False)
    settings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check what is tested.

        Raises:
            RequestError: no such family or correction, or no reference to test against.
        """
        for name, allowed in (("family", FAMILIES), ("correction", CORRECTIONS)):
            if (given := getattr(self, name)) not in allowed:
                raise RequestError(f"{name}: expected {' or '.join(allowed)}, found {given!r}")
        if self.family == REFERENCE and not self.reference:
            raise RequestError("family: reference: name a row as reference, or test all pairs")

    @property
    def place(self) -> str:
        """The option that leads `intentbench run` to the page's folder; "" for the usual one."""
        return "" if self.folder == Plan.folder else f" --leaderboards {shlex.quote(self.folder)}"

    def to_json(self) -> dict[str, Any]:
        """As a file has it; what is not the rule is said, what is the rule is not."""
        fields = asdict(self)
        for name in ("tuning", "settings"):
            if not fields[name]:
                del fields[name]
        for name in ("reproduce", "folder", "groups", "family", "correction"):
            if fields[name] == getattr(Plan, name):
                del fields[name]
        return fields

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "Plan":
        """From what `to_json` and JSON made of one."""
        lists = {name: tuple(raw[name]) for name in ("datasets", "labels", "seeds")}
        if isinstance(raw.get("groups"), list):
            lists["groups"] = tuple(raw["groups"])
        return cls(**{**raw, **lists})
