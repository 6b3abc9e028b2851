"""A leaderboard as Markdown that GitHub renders."""

from dataclasses import replace

from intentbench.metrics.users import SETS
from intentbench.reports.columns import (
    COST,
    EMPTY,
    FLAGS,
    Column,
    accuracy_columns,
    percent,
    produce,
    published_columns,
    short_names,
)
from intentbench.reports.group_tables import group_line, group_table, groups_picture_name
from intentbench.reports.intent_tables import intent_tables
from intentbench.reports.leaderboard import ALPHA, FULL_SEEDS, Leaderboard, Section
from intentbench.reports.noise_tables import (
    noise_caption,
    noise_lines,
    noise_tables,
    picture_name,
)
from intentbench.reports.provenance import (
    data_lines,
    environment_lines,
    gaps,
    protocol_line,
    published_lines,
    resolution_line,
    sign_lines,
    stale_lines,
    texts_line,
)
from intentbench.reports.sweeps import sweep_line, sweeps_picture_name
from intentbench.stats.contrast import BORROWED, USERS_ONLY
from intentbench.stats.effects import ROPE


def render_markdown(board: Leaderboard) -> str:
    """The whole page; the same leaderboard always gives the same text."""
    lines = [f"# {board.plan.title or board.name}", ""]
    if board.preliminary:
        lines += [
            f"**Preliminary: under {FULL_SEEDS} seeds.** Orders and differences may still change.",
            "",
        ]
    for section in board.sections:
        lines += _section(section, board)
    for dataset in board.absent:
        lines += [f"## {dataset}", "", "No trial of this dataset has finished.", ""]
    lines += ["## How to read this page", ""]
    lines += [f"- {line}" for line in _caption(board)]
    lines += ["", "## Reproduce", "", "```", *_commands(board), "```"]
    return "\n".join(lines) + "\n"


def _section(section: Section, board: Leaderboard) -> list[str]:
    accuracy = [*accuracy_columns(section), *_telling(published_columns(section))]
    lines = [f"## {section.table.dataset}", "", *_pipe_table(accuracy), ""]
    ranked = replace(section, rows=tuple(row for row in section.rows if row.ranked))
    if ranked.rows:
        cost = _telling(produce(ranked, COST))
        lines += ["Cost of a trial:", "", *_pipe_table(cost), ""]
    for intent, columns in intent_tables(section):
        lines += [f"Prediction of the next {intent}:", "", *_pipe_table(columns), ""]
    if columns := group_table(section):
        lines += ["By activity of users:", "", *_pipe_table(columns), ""]
        picture = groups_picture_name(board.name, section.table.dataset)
        lines += [f"![Difference by activity of users]({picture})", ""]
    for heading, columns in noise_tables(section):
        lines += [f"{heading}:", "", *_pipe_table(columns), ""]
    if section.noise:
        picture = picture_name(board.name, section.table.dataset)
        lines += [f"![Loss against rate of noise]({picture})", ""]
    if line := sweep_line(section):
        picture = sweeps_picture_name(board.name, section.table.dataset)
        lines += [f"![One argument at a time]({picture})", "", line, ""]
    facts = [
        *gaps(section, board.plan.reference),
        *stale_lines(section),
        resolution_line(section),
        *published_lines(section),
        group_line(section),
        *noise_lines(section),
        *sign_lines(section),
        protocol_line(section),
        texts_line(section),
        *data_lines(section),
        *environment_lines(section),
    ]
    return [*lines, *(f"- {fact}" for fact in facts if fact), ""]


def _telling(columns: list[Column]) -> list[Column]:
    return [(heading, cells) for heading, cells in columns if any(cell != EMPTY for cell in cells)]


def _pipe_table(columns: list[Column]) -> list[str]:
    """First column to the left, the others to the right."""
    headings = [heading for heading, _ in columns]
    rules = [":--", *("--:" for _ in columns[1:])]
    rows = zip(*(cells for _, cells in columns), strict=True)
    return ["| " + " | ".join(row) + " |" for row in (headings, rules, *rows)]


def _caption(board: Leaderboard) -> list[str]:
    name = short_names(board.primaries)
    notes = {
        note
        for section in board.sections
        for row in section.rows
        if (contrast := section.difference(row)) is not None
        for note in contrast.notes
    }
    sets = [section.table.history == SETS for section in board.sections]
    mixed = "test targets (users, where their held-out items are a set)"
    unit = "users" if all(sets) else mixed if any(sets) else "test targets"
    lines = [
        f"Means over all {unit} and seeds, ± standard deviation over seeds (n - 1). **Best**, "
        "<ins>second</ins>. A seed covers initialisation, order of batches, augmentation and "
        "negatives; the split and the tuning are fixed. Deterministic methods run once.",
        f"Tier: a shared rank by {name}. The highest model opens a tier and takes in every model "
        "not separated from it; members are tied with the tier's first, not with one another.",
        f"Difference: mean / mean of the reference - 1 in {name}, with its {percent(1 - ALPHA)} "
        "interval over users and seeds, not corrected. The mark behind it is corrected (Holm over "
        f"all pairs of models of the dataset, alpha = {ALPHA:g} for the whole family), so it may "
        "say `=` where the interval excludes 0. The other metrics carry no marks.",
        f"Marks: `^` better, `v` worse, `=` not separated, `~` separated, but by less than "
        f"{percent(ROPE)}.",
        f"Users won / tied / lost: for whom {name}, averaged over seeds, is higher than, equal to "
        "or lower than the reference's.",
        "Ties between scores count half: rank = 1 + items scored higher + half of those scored "
        "equal, rounded up. A target that is masked itself ranks last.",
        "Published: the figure of the source named below the table, and how far the measured "
        "one is from it.",
        "Cost: means over trials, memory the largest. Time a user: median, to score the whole "
        "catalogue, one user alone and 256 together.",
    ]  # fmt: skip
    if any(sets):
        lines.append(
            "Sets of held-out items: Recall@k is the share of a user's held-out items among the "
            "first k; NDCG@k sums 1 / log2(1 + rank) over those among the first k and divides by "
            "the same sum for the best order. Held-out items of one user compete for ranks."
        )
    lines += noise_caption(board)
    if BORROWED in notes:
        lines.append(
            f"{FLAGS[BORROWED]} one seed on one side: its seed variance is borrowed from the other."
        )
    if USERS_ONLY in notes:
        lines.append(
            f"{FLAGS[USERS_ONLY]} users only, seeds unknown: a stochastic model with one seed and "
            "none to borrow from; the interval is too narrow and no mark or tier follows from it."
        )
    if any(row.ceiling for section in board.sections for row in section.rows):
        lines.append(
            "Ceiling: the Bayes-best ranker, which knows how the data were generated. No method "
            "can pass it but by chance; it is not ranked and not tested."
        )
    return lines


def _commands(board: Leaderboard) -> list[str]:
    again = f"intentbench report leaderboards/ranks/{board.name}   # this page, from stored ranks"
    return [board.plan.command, again] if board.plan.command else [again]
