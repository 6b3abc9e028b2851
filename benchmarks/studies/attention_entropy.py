"""How evenly IGR-SR's attention looks at its intents, epoch by epoch.

    python benchmarks/studies/attention_entropy.py runs/synthetic/m4_k8/<trial> … > entropy.csv

The mean entropy over layers and heads at the last item, divided by log m: 1 where all intents get
as much, which is the collapse to watch for, 0 where one gets all. Read from
the trials' event files; trials with one intent have none.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.errors import RequestError

TAG = "train/attention_entropy"


def main(arguments: list[str] | None = None) -> None:
    """Print a row a trial: label, seed, first, last and lowest epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("trials", type=Path, nargs="+", help="folders of finished trials")
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["row", "seed", "epochs", "first", "last", "lowest"])
    table.writerows(sorted(summaries(parser.parse_args(arguments).trials)))


def summaries(trials: list[Path]) -> Iterator[tuple[str, int, int, str, str, str]]:
    """A row of the table for each trial that has the numbers.

    Raises:
        RequestError: a folder is no finished trial.
    """
    for folder in trials:
        result = folder / "result.json"
        if not result.is_file():
            raise RequestError(f"{folder}: no finished trial (no {result.name})")
        record = json.loads(result.read_text("utf-8"))
        if values := entropies(folder):
            chosen = (values[0], values[-1], min(values))
            first, last, lowest = (f"{value:.4f}" for value in chosen)
            yield record["label"], record["seed"], len(values), first, last, lowest


def entropies(folder: Path) -> list[float]:
    """The entropy of each epoch; a resumed epoch counts as it went the second time."""
    found: dict[int, float] = {}
    for file in sorted((folder / "events").glob("events.out.*")):
        events = EventAccumulator(str(file)).Reload()
        if TAG in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars(TAG)}
    return [found[step] for step in sorted(found)]


if __name__ == "__main__":
    try:
        main()
    except RequestError as error:
        sys.exit(f"attention_entropy: {error}")
