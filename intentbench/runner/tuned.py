"""Values that a search chose, in `models/<method>.tuned.yaml` beside the method's own file.

    quickstart:              # board: values hold under its protocol
      synthetic:             # dataset
        item_knn:            # row
          arguments: {gamma: 0.7, shrink: 10}
          search: {trials: 24, pruned: 0, ...}   # how they were found; see `Budget`

`intentbench tune --write` writes these files, and every reading of a spec reads them: whoever
deletes an entry has the values back that stood there before.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import RequestError
from intentbench.results.store import write_atomic
from intentbench.runner.arguments import resolve_arguments
from intentbench.runner.values import check_keys, read_mapping, read_yaml

HEADER = (
    "# Written by `intentbench tune --write`: values by board, dataset and row; docs/tuning.md.\n"
)


@dataclass(frozen=True)
class Budget:
    """What a search cost and what came of it: the provenance of its values.

    Attributes:
        study: name of Optuna's study.
        sampler: "TPE" or "grid".
        seed: of the sampler and of every training.
        trials: trainings that ended by themselves, and those that were pruned.
        pruned: of these, how many were stopped early.
        failed: further trainings that failed.
        seconds: wall time of all of them.
        metric: what was maximised, on validation.
        value: what the chosen values came to; the mean over users.
        before: what the values came to that stand there untuned; None where that training did not
            complete.
        data: first 16 digits of the fingerprint of the prepared data.
        commit: of the code, "-dirty" behind it where there were uncommitted changes; "" where it
            is no git checkout.
    """

    study: str
    sampler: str
    seed: int
    trials: int
    pruned: int
    failed: int
    seconds: float
    metric: str
    value: float
    before: float | None
    data: str
    commit: str


@dataclass(frozen=True)
class Tuned:
    """Chosen values of a row on a dataset.

    Attributes:
        arguments: those that were searched.
        budget: of the search.
        where: file and key path, the beginning of messages.
    """

    arguments: dict[str, Any]
    budget: Budget
    where: str = ""


def tuned_path(settings: Path, method: str) -> Path:
    """The file of a method's tuned values.

    Args:
        settings: the method's own file, which need not exist.
        method: its key.
    """
    return settings.with_name(f"{method}.tuned.yaml")


def load_tuned(path: Path, board: str, label: str) -> dict[str, Tuned]:
    """The tuned values of a row, by dataset; none where there is no file.

    Raises:
        RequestError: it is no such file; one line with file and key.
    """
    found = {}
    for dataset, rows in read_mapping(_read(path).get(board) or {}, f"{path}: {board}").items():
        where = f"{path}: {board}.{dataset}"
        rows = read_mapping(rows or {}, where)
        if rows.get(label) is not None:  # whoever deletes an entry may leave its key
            found[str(dataset)] = _tuned(rows[label], f"{where}.{label}")
    return found


def save_tuned(path: Path, board: str, dataset: str, label: str, tuned: Tuned) -> None:
    """Put the values of a row into the file; all else in it stays, but for comments.

    Raises:
        RequestError: the file is there and is no such file.
        OSError: it cannot be written.
    """
    content = _read(path)
    entry = {"arguments": tuned.arguments, "search": asdict(tuned.budget)}
    datasets = read_mapping(content.get(board) or {}, f"{path}: {board}")
    rows = read_mapping(datasets.get(dataset) or {}, f"{path}: {board}.{dataset}")
    content[board] = {**datasets, dataset: {**rows, label: entry}}
    text = yaml.safe_dump(content, allow_unicode=True, width=100)
    write_atomic(path, (HEADER + text).encode())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return read_mapping(read_yaml(path) or {}, str(path))


def _tuned(given: Any, where: str) -> Tuned:
    block = read_mapping(given, where, empty=False)
    check_keys(block, ("arguments", "search"), where)
    arguments = read_mapping(block.get("arguments"), f"{where}.arguments", empty=False)
    search = read_mapping(block.get("search"), f"{where}.search", empty=False)
    names = {entry.name for entry in fields(Budget)}
    if search.keys() != names:
        differ = ", ".join(sorted(map(str, search.keys() ^ names)))
        raise RequestError(f"{where}.search: missing or unknown: {differ}; tune the row again")
    budget = Budget(**resolve_arguments(Budget, search, f"{where}.search"))
    return Tuned(dict(arguments), budget, where)
