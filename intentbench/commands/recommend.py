"""`intentbench recommend`: lists of recommended items."""

import argparse
import io
import json
import sys
from pathlib import Path

from datamodules.errors import RequestError
from intentbench.commands.outputs import check_file
from intentbench.commands.shared import add_data_root, write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of which model, how many, to where."""
    parser.epilog = (
        "Columns: user, item, score, rank; of methods that predict intents also intent_NAME, the "
        "most likely label of each, and primary_intent, the one heeded most (docs/events.md)."
    )
    parser.add_argument("checkpoint", type=Path, help="best.ckpt in a trial's folder")
    parser.add_argument("-k", type=int, default=20, help="items a user")
    parser.add_argument("-o", "--out", type=Path, required=True, help=".parquet or .csv")
    parser.add_argument(
        "--stage", choices=["next", "test", "validation"], default="next", help="what to predict"
    )
    add_data_root(parser)


def run(options: argparse.Namespace) -> int:
    """Write the lists, print what they are like."""
    if options.out.suffix not in (".parquet", ".csv"):
        raise RequestError(f"{options.out}: say which format you want: .parquet or .csv")
    check_file("--out", options.out)
    from intentbench.runner.recommend import recommend

    found = recommend(options.checkpoint, options.k, options.stage, options.data_root)
    lists = found.frame()
    buffer = io.BytesIO()
    if options.out.suffix == ".csv":
        lists.write_csv(buffer)
    else:
        lists.write_parquet(buffer)
    write_whole(options.out, buffer.getvalue())
    about = {"file": str(options.out), "users": len(found.users), "rows": len(lists)}
    sys.stdout.write(json.dumps(about | found.summary()) + "\n")
    return 0
