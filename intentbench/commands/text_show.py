"""`intentbench text show`: what a finished trial makes of texts, as numbers and pictures."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intentbench.reports.text_pictures import Cloud, Match, draw_densities, draw_matches
from intentbench.results.store import write_atomic
from intentbench.runner.text_spaces import (
    Spaces,
    find_subject,
    find_user,
    match_user,
    measure_match,
    measure_spaces,
    read_spaces,
)

if TYPE_CHECKING:
    from intentbench.runner.text_spaces import Subject

NUMBERS, DENSITIES, MATCHING = "numbers.json", "densities.svg", "matching.svg"
"""Files written."""

BEFORE, AFTER = "before training", "after training"
"""Stages that are always shown."""


def show_texts(
    run: Path, out: Path, data_root: Path | None, user: str | None, epochs: int | None
) -> tuple[list[Path], dict[str, Any]]:
    """Measure and draw what a trial makes of texts.

    Args:
        run: the trial's folder.
        out: folder that gets `NUMBERS` and the pictures.
        data_root: where data files are looked for.
        user: original id of the user whose matching is drawn; None for one of median activity.
        epochs: show the matching after so many epochs too, for which the method is trained again;
            None for not.

    Returns:
        The files written, and the numbers.

    Raises:
        RequestError: there is no such trial or no such user, or its method reads no texts.
    """
    subject = find_subject(run, data_root)
    row = find_user(subject.data, user)
    trained = read_spaces(subject.trained, subject.data)
    stages = {BEFORE: read_spaces(subject.untrained(), subject.data)}
    if epochs is not None:
        seconds = epochs * subject.record.cost.seconds_per_epoch
        sys.stderr.write(
            f"training again, {epochs} epochs; the trial took {seconds:.0f} s for as many\n"
        )
        model = subject.after_epochs(epochs)
        stages[f"after {epochs} epoch{'s' * (epochs > 1)}"] = read_spaces(model, subject.data)
    stages[AFTER] = trained
    numbers = _numbers(subject, stages, row)
    name = f"{subject.trained.CARD.title} on {subject.record.dataset}"
    pages = {
        out / NUMBERS: (json.dumps(numbers, indent=1, ensure_ascii=False) + "\n").encode(),
        out / DENSITIES: draw_densities(name, _clouds(trained, numbers)),
        out / MATCHING: draw_matches(
            f"{name}: user {numbers['user']['id']}, {numbers['user']['interactions']} interactions",
            trained.matched,
            _matches(stages, numbers, row),
        ),
    }
    for path, content in pages.items():
        write_atomic(path, content)
    return list(pages), numbers


def _numbers(subject: "Subject", stages: dict[str, Spaces], row: int) -> dict[str, Any]:
    """Everything that the pictures say in numbers."""
    record, data = subject.record, subject.data
    trained = stages[AFTER]
    return {
        "trial": f"{record.dataset}/{record.label}/{record.trial}",
        "best_epoch": record.best_epoch,
        "spaces": measure_spaces(trained, data),
        "matched": list(trained.matched),
        "users": trained.n_users,
        "user": {
            "id": data.dataset.original_ids("users")[row],
            "interactions": int(data.training().offsets.diff()[row]),
        },
        "stages": {
            name: {**match_user(spaces, row), "alignment": measure_match(spaces)}
            for name, spaces in stages.items()
        },
    }


def _clouds(spaces: Spaces, numbers: dict[str, Any]) -> list[list[Cloud]]:
    """A row of panels for users, one for items."""
    both = numbers["stages"][AFTER]["alignment"]
    rows = []
    for side in ("users", "items"):
        clouds = []
        for kind in spaces.kinds:
            found = numbers["spaces"][kind]
            caption = f"uniformity {found['uniformity'][side]:.2f}"
            if kind in spaces.matched:
                other = next(name for name in spaces.matched if name != kind).split()[-1]
                caption += f", alignment with {other} {both[side]:.2f}"
            else:
                caption += f", alignment of pairs {found['alignment']:.2f}"
            clouds.append(Cloud(f"{kind} of {side}", caption, spaces.side(kind, side)))
        rows.append(clouds)
    return rows


def _matches(stages: dict[str, Spaces], numbers: dict[str, Any], row: int) -> list[Match]:
    """A panel a stage."""
    matches = []
    for name, spaces in stages.items():
        found = numbers["stages"][name]
        caption = (
            f"dot {found['dot']:.3g}, cosine {found['cosine']:.3f}\n"
            f"own text ranks {found['rank']:,} of {spaces.n_users:,}"
        )
        matches.append(Match(name, caption, *spaces.user(row)))
    return matches
