"""Does a change of code leave the results of published rows as they were?

    python benchmarks/maintenance/same_results.py BEFORE [BOARD ...] [--renew]

A published trial carries the fingerprint of the code that made it, and any change of that code, be
it a comment apart, makes its row stale. Where the change was not meant to alter results, this shows
whether it did: every stale row of the boards is trained for a few epochs on small data by both
codes, with its own arguments and seed, and weights and ranks are compared bit by bit. BEFORE is a
checkout of the code that made the published trials (`git worktree add BEFORE COMMIT`).

With `--renew`, rows that came out equal get the new fingerprint in their published records, and
what was shown goes into `leaderboards/ranks/renewed.json`. The evidence is the small training: what
only happens on other data, or after more epochs, is not covered.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from intentbench.reports.archive import read_archive
from intentbench.results.record import ORACLE, TrialRecord
from intentbench.results.store import CHECKPOINT, load_ranks, load_records, write_atomic

ROOT = Path(__file__).parents[2]
SHORTENED = {"warm_up": 1, "clusters": 8}
"""Arguments that small data or few epochs do not take; after a warm-up comes the rest."""


@dataclass(frozen=True)
class Verdict:
    """What came of one row.

    Attributes:
        board: its leaderboard.
        label: the row.
        before: fingerprint of the code of BEFORE.
        after: fingerprint of today's.
        problem: "" where both codes give the same weights and ranks, else what differs.
    """

    board: str
    label: str
    before: str
    after: str
    problem: str


def main() -> int:
    """Train by both codes, compare, say, and renew if asked; 1 where a row differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("before", type=Path, help="a checkout of the code before the change")
    parser.add_argument("boards", nargs="*", help="names of leaderboards; all if left out")
    parser.add_argument("--rows", help="of these boards, these rows alone: a,b")
    parser.add_argument("--dataset", default="synthetic-tiny")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--renew", action="store_true", help="write the new fingerprints")
    options = parser.parse_args()
    ranks = ROOT / "leaderboards" / "ranks"
    boards = options.boards or sorted(path.name for path in ranks.iterdir() if path.is_dir())
    found = []
    for board in boards:
        before = options.before.resolve()
        rows = options.rows.split(",") if options.rows else None
        found += check_board(ranks / board, before, rows, options.dataset, options.epochs)
    for one in found:
        print(f"{one.board:20} {one.label:28} {one.problem or 'same weights and ranks'}")
    if options.renew:
        renew(ranks, [one for one in found if not one.problem], options)
    return int(any(one.problem for one in found))


def check_board(
    folder: Path, before: Path, rows: list[str] | None, dataset: str, epochs: int
) -> list[Verdict]:
    """Train rows of a board, all where none are named, by both codes."""
    name, _, results = read_archive(folder)
    published = {record.label: record for record, _ in results if record.status == "done"}
    published = {k: v for k, v in published.items() if k != ORACLE and (not rows or k in rows)}
    codes = {label: {r.code for r, _ in results if r.label == label} for label in published}
    with tempfile.TemporaryDirectory() as scratch:
        sides = []
        for number, tree in enumerate((before, ROOT)):
            place = Path(scratch) / str(number)
            spec = shortened_spec(tree, name, published, dataset, epochs)
            sides.append(train(tree, spec, place))
        old, new = sides
        return [
            Verdict(
                name,
                label,
                old[label][1].code if label in old else "",
                new[label][1].code if label in new else "",
                difference(label, codes[label], old, new),
            )
            for label in published
        ]


def shortened_spec(
    tree: Path, board: str, published: Mapping[str, TrialRecord], dataset: str, epochs: int
) -> dict[str, Any]:
    """The board's spec cut down to its published rows, one seed, few epochs and small data."""
    files = [*tree.glob("benchmarks/*.yaml"), *tree.glob("benchmarks/studies/*.yaml")]
    specs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    spec: dict[str, Any] = next(one for one in specs if one.get("name") == board)
    rows = {label: dict(row or {}) for label, row in spec["models"].items()}
    kept = set(published) | {rows[label].get("pretrained") for label in published}
    spec["models"] = {label: row for label, row in rows.items() if label in kept}
    for label, row in spec["models"].items():
        row["training"] = {**row.get("training", {}), "max_epochs": epochs}
        arguments = published[label].arguments if label in published else {}
        row |= {key: value for key, value in SHORTENED.items() if key in arguments}
    spec["training"] = {**spec.get("training", {}), "max_epochs": epochs, "validate_every": 1}
    spec |= {"datasets": [dataset], "per_dataset": {}, "seeds": [0]}
    if spec.get("reference") not in spec["models"]:
        spec.pop("reference", None)
    return spec


def train(tree: Path, spec: dict[str, Any], place: Path) -> dict[str, tuple[Path, TrialRecord]]:
    """Run a spec with the code of a checkout; folder and record of each row."""
    place.mkdir(parents=True)
    (place / "models").symlink_to(tree / "benchmarks" / "models")
    (place / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    command = [sys.executable, "-m", "intentbench.cli", "run", str(place / "spec.yaml")]
    command += ["--out", str(place / "runs"), "--leaderboards", str(place / "boards")]
    command += ["--devices", "cpu", "--trials-per-device", "1"]
    threads = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tree, env={**os.environ, **threads}, check=False)
    return {record.label: (folder, record) for folder, record in load_records(place / "runs")}


def difference(
    label: str,
    published: set[str],
    old: Mapping[str, tuple[Path, TrialRecord]],
    new: Mapping[str, tuple[Path, TrialRecord]],
) -> str:
    """What differs between the two trainings of a row; "" for nothing."""
    for side, name in ((old, "before"), (new, "after")):
        if label not in side:
            return f"not run by the code {name}"
        if side[label][1].status != "done":
            return f"failed by the code {name}: {side[label][1].reason}"
    (old_folder, old_record), (new_folder, new_record) = old[label], new[label]
    if not published & {old_record.code, new_record.code}:
        return f"published by other code than that of BEFORE, {old_record.code}"
    old_ranks, new_ranks = load_ranks(old_folder), load_ranks(new_folder)
    if any(not np.array_equal(old_ranks[name], new_ranks[name]) for name in old_ranks):
        return "other ranks"
    one, other = (
        torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
        for folder in (old_folder, new_folder)
    )
    if one.keys() != other.keys():
        return f"other weights: {sorted(one.keys() ^ other.keys())}"
    unlike = [name for name in one if not torch.equal(one[name], other[name])]
    return f"other values in {', '.join(unlike)}" if unlike else ""


def renew(ranks: Path, equal: list[Verdict], options: argparse.Namespace) -> None:
    """Write new fingerprints into published records, and what was shown."""
    changed = []
    for one in equal:
        for path in (ranks / one.board).glob(f"*/{one.label}.json"):
            records = json.loads(path.read_text(encoding="utf-8"))
            old = [record for record in records if record["code"] == one.before != one.after]
            if not old:
                continue
            changed.append(one)
            for record in old:
                record["code"] = one.after
            text = json.dumps(records, indent=1, sort_keys=True) + "\n"
            write_atomic(path, text.encode())
        board = ranks / one.board / "board.json"
        plan = json.loads(board.read_text(encoding="utf-8"))
        plan["plan"]["code"][one.label] = one.after
        write_atomic(board, (json.dumps(plan, indent=1, sort_keys=True) + "\n").encode())
    log = ranks / "renewed.json"
    known = json.loads(log.read_text(encoding="utf-8")) if log.exists() else []
    shown = f"{options.epochs} epochs on {options.dataset}, seed 0, CPU"
    known += [
        {"board": one.board, "row": one.label, "from": one.before, "to": one.after, "shown": shown}
        for one in dict.fromkeys(changed)
    ]
    write_atomic(log, (json.dumps(known, indent=1) + "\n").encode())
    print(f"renewed {len(set(changed))} rows; `intentbench report leaderboards/ranks/NAME` next")


if __name__ == "__main__":
    sys.exit(main())
