"""What a row was made with, against what its benchmark has now."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from intentbench.results.record import TrialRecord

PARTS = ("method", "arguments", "data", "training")
"""Fields of a record that are compared."""

FROM_DATASET = ("n_items", "n_users", "window")
"""Arguments of a method that no spec gives: they follow from the dataset, or from `data`."""

Changes = dict[str, dict[str, Any]]
"""Name of a setting, as `--set` has it below a row, to its value that "was" and is "now"; one of
the two is left out where the setting is not there."""


def changed_settings(record: TrialRecord, now: Mapping[str, Any]) -> Changes:
    """The settings of a trial that its benchmark has otherwise.

    Args:
        record: of the trial.
        now: of `PARTS`, as the benchmark has them; arguments without those `FROM_DATASET`.

    Returns:
        By name; the method alone where that is another, {} where all are the same.
    """
    then = {part: getattr(record, part) for part in PARTS}
    then["arguments"] = {n: v for n, v in record.arguments.items() if n not in FROM_DATASET}
    was, found = (dict(_flat(_plain(settings))) for settings in (then, now))
    sides = {"was": was, "now": found}
    changes = {
        name: {side: values[name] for side, values in sides.items() if name in values}
        for name in dict.fromkeys([*was, *found])
        if was.get(name, ...) != found.get(name, ...)
    }
    return {"method": changes["method"]} if "method" in changes else changes


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted name; a row gives its arguments without a name above them."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, "" if name == "arguments" and not above else f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _plain(value: Any) -> Any:
    """As JSON would give it back: a spec may hold tuples, a record from disk has lists."""
    return json.loads(json.dumps(value))
