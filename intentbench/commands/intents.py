"""`intentbench intents`: export, measure and draw the intents of a trained method."""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_file, check_folder
from intentbench.commands.shared import add_data_root, write_whole

if TYPE_CHECKING:
    from intentbench.reports.intent_pictures import Projection


FEWEST = 2
"""Users whose last positions can be spread over a plane."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of which trial, how much, to where."""
    parser.add_argument("run", type=Path, help="a trial's folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help=".parquet")
    parser.add_argument("--users", type=int, help="users at most; default: all")
    parser.add_argument("--tsne", action="store_true", help="draw by t-SNE too, slower")
    parser.add_argument("--projector", type=Path, metavar="DIR", help="for TensorBoard")
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Write table, numbers and pictures."""
    if options.out.suffix != ".parquet":
        raise RequestError(f"{options.out}: intents are written as .parquet; name such a file")
    if options.users is not None and options.users < 1:
        raise RequestError(f"--users {options.users}: must be at least 1")
    check_file("--out", options.out)
    if options.projector is not None:
        check_folder("--projector", options.projector)
    written, numbers = inspect_intents(
        options.run, options.out, options.data_root, options.users, options.tsne, options.projector
    )
    sys.stdout.write(json.dumps(numbers, indent=1) + "\n")
    sys.stderr.write("".join(f"wrote {path}\n" for path in written))
    return 0


def inspect_intents(
    run: Path,
    out: Path,
    data_root: Path | None,
    users: int | None,
    tsne: bool,
    projector: Path | None,
) -> tuple[list[Path], dict[str, Any]]:
    """Export, measure and draw the intents of a trial.

    Args:
        run: the trial's folder.
        out: the table, `.parquet`; numbers (`.json`) and pictures (`.svg`) go beside it.
        data_root: where data files are looked for.
        users: how many users, spread evenly; None for all.
        tsne: draw by t-SNE too.
        projector: folder for TensorBoard's projector, None for none.

    Returns:
        The files written, and the numbers.

    Raises:
        RequestError: there is no such trial, its method models no intents, or there are
            fewer than `FEWEST` users.
        OSError: a file cannot be written; an older one of that name stays as it was.
    """
    from intentbench.reports.intent_pictures import draw_intents
    from intentbench.results.store import CHECKPOINT
    from intentbench.runner.inspection import intent_frame, measure_intents, write_projector
    from intentbench.runner.intents import check_intents, collect_intents, spread_users
    from intentbench.runner.recommend import load_trained

    model, data = load_trained(run / CHECKPOINT, data_root)
    method = check_intents(model, str(run))
    chosen = spread_users(data.n_users, users)
    if len(chosen) < FEWEST:
        raise RequestError(
            f"{run}: intents of {len(chosen)} users; numbers and pictures need those of {FEWEST} "
            "at least: give a larger --users, or none"
        )
    table = collect_intents(method, data.dataset, data.window, chosen)
    numbers = measure_intents(table, method, data)
    buffer = io.BytesIO()
    intent_frame(table).write_parquet(buffer)
    write_whole(out, buffer.getvalue())
    facts = out.with_suffix(".json")
    write_whole(facts, (json.dumps(numbers, indent=1) + "\n").encode())
    written = [out, facts]
    last = table.last_of_users()
    colours = {"category" if table.own else "category by k-means": last.intent}
    if (planted := last.planted()) is not None:
        colours["planted intent"] = planted
    projections: list[Projection] = ["pca", "tsne"] if tsne else ["pca"]
    for projection in projections:
        picture = out.with_suffix(f".{projection}.svg")
        title = f"{method.CARD.title} on {data.dataset.meta.name}"
        drawn = draw_intents("svg", title, last.vectors, colours, last.interests, projection)
        write_whole(picture, drawn)
        written.append(picture)
    if projector is not None:
        write_projector(projector, last)
        written.append(projector)
    return written, numbers
