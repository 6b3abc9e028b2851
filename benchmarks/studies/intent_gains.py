"""Does modelling intent help? Intent methods that were trained, beside their controls.

    python benchmarks/studies/intent_gains.py [-o docs/intent-gains.svg]

Draws them from the published ranks of `--leaderboards`, and prints the same as a table. A control
has what the method has but its intents: loss, rows, kind of encoder, base. Verdicts are those of
each page's corrected test; "not tested" where one seed a side leaves the variance of seeds unknown,
and the interval, over users alone, is too narrow.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from intentbench.reports.archive import read_archive
from intentbench.reports.columns import interval, short_name
from intentbench.reports.figures import (
    add_panels,
    add_titles,
    draw_differences,
    label_inches,
    label_rows,
    note_rows,
    relative_limits,
    render_svg,
    text_inches,
)
from intentbench.reports.leaderboard import Leaderboard, Section, build_leaderboard
from intentbench.stats.contrast import Contrast

PICTURE = Path("docs/intent-gains.svg")


class Question(NamedTuple):
    """A method and its control on one page.

    Attributes:
        method: as read.
        board: the page.
        dataset: of the page.
        label: its row.
        control: the row that lacks its intents.
    """

    method: str
    board: str
    dataset: str
    label: str
    control: str


QUESTIONS = (
    Question("InDiRec, its code", "amazon", "beauty", "indirec_code", "sasrec_ce_prefix"),
    Question("InDiRec, its code", "indirec-ablation", "synthetic", "code", "sasrec_ce_prefix"),
    Question("InDiRec, its paper", "indirec-ablation", "synthetic", "paper", "sasrec_ce_prefix"),
    Question("InDiRec, repaired", "indirec-ablation", "synthetic", "indirec", "sasrec_ce_prefix"),
    Question("IDCLRec", "amazon", "beauty", "idclrec", "sasrec_ce_prefix"),
    Question("IDCLRec", "idclrec-ablation", "synthetic", "idclrec", "sasrec_ce_prefix"),
    Question("IGR-SR", "amazon", "beauty", "igr_sr", "sasrec_ce_prefix"),
    Question("IGR-SR", "igr-sr-components", "synthetic", "igr_sr", "sasrec_ce_prefix"),
    *(
        Question(f"IntentRec {label.upper()}", "behaviours", dataset, row, "intentrec_v0")
        for dataset in ("ml-100k", "trivago", "yelp-actions-20core")
        for label, row in (("v1", "intentrec_v1"), ("v2", "intentrec_v2"), ("v3", "intentrec"))
    ),
    Question("IntentRec V3, tied", "behaviours", "ml-100k", "intentrec_tied", "intentrec_v0_tied"),
    Question("IntentRec V3, tied", "behaviours", "trivago", "intentrec_tied", "intentrec_v0_tied"),
    Question("IRLLRec, λ/30", "irllrec-text", "ml-100k-cf", "irllrec_weak", "lightgcn_full"),
    Question("IRLLRec, λ/30", "irllrec-text", "ml-1m-cf", "irllrec_weak", "lightgcn_full"),
    Question("IRLLRec", "irllrec-text", "ml-100k-cf", "irllrec", "lightgcn_full"),
    Question("IRLLRec, code", "irllrec-text", "ml-100k-cf", "irllrec_released", "lightgcn_full"),
    Question(
        "IRLLRec, λ/30, SimGCL", "irllrec-components", "ml-100k-cf", "simgcl_irllrec", "simgcl"
    ),
    Question("ICLRec", "amazon", "beauty", "iclrec", "sasrec_bce_bert"),
    Question("ELCRec", "amazon", "beauty", "elcrec", "sasrec_bce_bert"),
)

VERDICTS = {
    "^": "above",
    "v": "below",
    "=": "not separated",
    "~": "separated, under 1 %",
    "": "not tested",
}
COLOURS = {"^": "C0", "v": "C3", "=": "0.45", "~": "0.45", "": "0.7"}


class Answer(NamedTuple):
    """What a page says of a question.

    Attributes:
        question: what was asked.
        metric: primary one of the page.
        seeds: of the row and of the control.
        contrast: row against control.
        mark: by the page's corrected test.
    """

    question: Question
    metric: str
    seeds: tuple[int, int]
    contrast: Contrast
    mark: str

    @property
    def name(self) -> str:
        """Method, data, seeds."""
        fewest = min(self.seeds)
        return f"{self.question.method}, {self.question.dataset}, {fewest} seed{'s'[: fewest > 1]}"


def answer(question: Question, board: Leaderboard) -> Answer:
    """Read a question's answer off its page."""
    section = next(s for s in board.sections if s.table.dataset == question.dataset)
    if section.family is None:
        raise ValueError(f"{question.board}: {question.dataset} has under two ranked rows")
    pair = question.label, question.control
    return Answer(
        question,
        section.table.primary,
        (_seeds(section, pair[0]), _seeds(section, pair[1])),
        section.family.contrasts[pair],
        section.family.mark(*pair),
    )


def _seeds(section: Section, label: str) -> int:
    return len(next(row.records for row in section.rows if row.label == label))


def read_answers(leaderboards: Path) -> list[Answer]:
    """All answers that the published ranks of a folder give."""
    names = {question.board for question in QUESTIONS}
    boards = {
        name: build_leaderboard(*read_archive(leaderboards / "ranks" / name)) for name in names
    }
    return [answer(question, boards[question.board]) for question in QUESTIONS]


def draw(answers: list[Answer]) -> bytes:
    """The picture as SVG: a row an answer, under its page's main metric."""
    from matplotlib.figure import Figure

    labels = [one.name for one in answers]
    notes = [VERDICTS[one.mark] for one in answers]
    figure: Any = Figure(figsize=(4.6 + text_inches(labels), 1.2 + 0.26 * len(answers)))
    margins = (0.18 + label_inches(labels), 0.5 + label_inches(notes), 0.5, 0.5)
    (axis,) = add_panels(figure, 1, margins, 0.0)
    contrasts = [one.contrast for one in answers]
    colours = [COLOURS[one.mark] for one in answers]
    draw_differences(axis, contrasts, relative_limits(contrasts), colours)
    axis.tick_params(labelsize="small")
    label_rows(axis, labels)
    note_rows(axis, notes, "after correction")
    add_titles(
        figure,
        "Intent methods beside their controls",
        "against the control with its loss, rows and base, % [95 %]",
    )
    return render_svg(figure)


def print_table(answers: list[Answer]) -> None:
    """The same as Markdown."""
    print("| method | page, data | control | metric | seeds | %, [95 %] | after correction |")
    print("|---|---|---|---|--:|--:|---|")
    for one in answers:
        asked = one.question
        seeds = " and ".join(map(str, dict.fromkeys(one.seeds)))
        print(
            f"| {asked.method} | {asked.board}, {asked.dataset} | `{asked.control}` "
            f"| {short_name(one.metric)} | {seeds} | {interval(one.contrast)} "
            f"| {VERDICTS[one.mark]} |"
        )


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--leaderboards", type=Path, default=Path("leaderboards"))
    parser.add_argument("-o", "--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    answers = read_answers(options.leaderboards)
    options.out.write_bytes(draw(answers))
    print_table(answers)


if __name__ == "__main__":
    main()
