"""Measured beside published, at every cut-off: the rows of `irllrec` that need no texts.

    python benchmarks/studies/published_beside.py [--write docs/irllrec-published.md]

Reads `irllrec-published.csv` (source "paper": IRLLRec's table 2, SIGIR 2025, base models; "code":
the authors' public code at ee8330b, run to its own early stop with its one seed, and the popularity
ranking of the same splits) and the published ranks of `--leaderboards`, and prints a Markdown
table: mean over seeds, the published figure, and how far the first is from the second in per cent.
With `--write` the table of that file is replaced.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from intentbench.reports.archive import read_archive
from intentbench.reports.cells import build_tables
from intentbench.reports.columns import short_name

FIGURES = Path(__file__).with_name("irllrec-published.csv")
METRICS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20")
SOURCES = {"paper": "table 2", "code": "authors' code"}


def table_lines(leaderboards: Path, figures: Path = FIGURES) -> Iterator[str]:
    """The lines of the table."""
    _, _, results = read_archive(leaderboards / "ranks" / "irllrec")
    found = {
        (table.dataset, cell.label): cell for table in build_tables(results) for cell in table.cells
    }
    names = " | ".join(short_name(metric) for metric in METRICS)
    yield f"| dataset | row | seeds | beside | {names} |"
    yield f"| :-- | :-- | --: | :-- | {' | '.join('--:' for _ in METRICS)} |"
    with figures.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            cell = found[line["dataset"], line["row"]]
            means = {metric: cell.means[metric].mean() for metric in METRICS}
            cells = [
                f"{means[metric]:.4f} / {float(line[metric]):.4f} "
                f"({100 * (means[metric] / float(line[metric]) - 1):+.1f})"
                for metric in METRICS
            ]
            about = [line["dataset"], f"`{cell.label}`", str(len(cell.records))]
            yield f"| {' | '.join([*about, SOURCES[line['source']], *cells])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--leaderboards", type=Path, default=Path("leaderboards"))
    parser.add_argument("--write", type=Path, help="a Markdown file that ends with the table")
    options = parser.parse_args()
    table = "".join(f"{line}\n" for line in table_lines(options.leaderboards))
    if options.write is None:
        print(table, end="")
        return
    before, _, _ = options.write.read_text(encoding="utf-8").partition("| dataset |")
    options.write.write_text(before + table, encoding="utf-8")


if __name__ == "__main__":
    main()
