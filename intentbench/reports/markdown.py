"""A leaderboard as Markdown that GitHub renders."""

import shlex
from dataclasses import replace

from intentbench.metrics.users import SETS
from intentbench.reports.columns import (
    COST,
    EMPTY,
    FLAGS,
    OWN_TEXTS,
    Column,
    accuracy_columns,
    code,
    percent,
    produce,
    published_columns,
    short_names,
)
from intentbench.reports.cost_pictures import costs_line
from intentbench.reports.critical_difference import (
    critical_difference_picture_name,
    has_critical_difference,
)
from intentbench.reports.curves import curves_line
from intentbench.reports.figures import picture_name
from intentbench.reports.group_tables import (
    group_line,
    group_table,
    popularity_line,
    popularity_table,
)
from intentbench.reports.intent_tables import intent_tables
from intentbench.reports.leaderboard import ALPHA, FULL_SEEDS, Leaderboard, Row, Section
from intentbench.reports.noise_tables import (
    noise_caption,
    noise_lines,
    noise_tables,
)
from intentbench.reports.other_settings_lines import other_settings_lines
from intentbench.reports.overall import (
    CORRECTION,
    overall_caption,
    overall_lines,
    overall_table,
)
from intentbench.reports.plan import REFERENCE, Plan
from intentbench.reports.provenance import (
    data_lines,
    environment_lines,
    gaps,
    protocol_line,
    published_lines,
    resolution_line,
    runner_up_line,
    runner_up_notes,
    sign_lines,
    stale_lines,
    texts_line,
    tuned_lines,
)
from intentbench.reports.settings import settings_block
from intentbench.reports.sweeps import sweep_line
from intentbench.results.external import EXTERNAL
from intentbench.stats.contrast import BORROWED, USERS_ONLY
from intentbench.stats.effects import ROPE


def render_markdown(board: Leaderboard, replaced: str = "") -> str:
    """The whole page; the same leaderboard always gives the same text.

    Args:
        board: what it shows.
        replaced: a line about results that stood there before; "" for none.
    """
    lines = [f"# {board.plan.title or board.name}", ""]
    if board.preliminary:
        lines += [
            f"**Preliminary: under {FULL_SEEDS} seeds.** Orders and differences may still change.",
            "",
        ]
    if board.plan.correction != "holm":
        lines += [f"**Exploratory:** marks are corrected after {_correction(board.plan)}.", ""]
    for section in board.sections:
        lines += _section(section, board)
    lines += _overall(board)
    for dataset in board.absent:
        lines += [f"## {dataset}", "", "No trial of this dataset has finished.", ""]
    lines += ["## How to read this page", ""]
    lines += [f"- {line}" for line in [*_caption(board), replaced] if line]
    lines += ["", "## Reproduce", "", "```", *_commands(board), "```"]
    return "\n".join(lines) + "\n"


def _section(section: Section, board: Leaderboard) -> list[str]:
    accuracy = [*accuracy_columns(section.tried), *_telling(published_columns(section.tried))]
    lines = [f"## {section.table.dataset}", "", *_pipe_table(accuracy), ""]
    dataset = section.table.dataset
    if section.family:
        picture = picture_name(board.name, dataset, "intervals")
        lines += [f"![Differences to the reference with their intervals]({picture})", ""]
    ranked = replace(section, rows=tuple(row for row in section.rows if row.ranked))
    if ranked.rows:
        cost = _telling(produce(ranked, COST))
        if len(cost) > 1:  # rows from elsewhere may state none
            lines += ["Cost of a trial:", "", *_pipe_table(cost), ""]
    if costs_line(section):
        picture = picture_name(board.name, dataset, "costs")
        lines += [f"![Accuracy against cost, as measured on these machines]({picture})", ""]
    if curves_line(section):
        picture = picture_name(board.name, dataset, "curves")
        lines += [f"![Validation metric by epoch]({picture})", ""]
    for intent, columns in intent_tables(section):
        lines += [f"Prediction of the next {intent}:", "", *_pipe_table(columns), ""]
    if columns := group_table(section):
        lines += ["By activity of users:", "", *_pipe_table(columns), ""]
        picture = picture_name(board.name, dataset, "groups")
        lines += [f"![Difference by activity of users]({picture})", ""]
    if columns := popularity_table(section):
        lines += ["By popularity of the target's item:", "", *_pipe_table(columns), ""]
        picture = picture_name(board.name, dataset, "popularity")
        lines += [f"![Difference by popularity of the target's item]({picture})", ""]
    for heading, columns in noise_tables(section):
        lines += [f"{heading}:", "", *_pipe_table(columns), ""]
    if section.noise:
        picture = picture_name(board.name, dataset, "noise")
        lines += [f"![Loss against rate of noise]({picture})", ""]
    if line := sweep_line(section):
        picture = picture_name(board.name, dataset, "sweeps")
        lines += [f"![One argument at a time]({picture})", "", line, ""]
    lines += settings_block(section)
    facts = [
        *gaps(section, board.plan.reference),
        *stale_lines(section),
        *other_settings_lines(section, board.plan),
        runner_up_line(section),
        resolution_line(section),
        *published_lines(section),
        costs_line(section),
        curves_line(section),
        group_line(section),
        popularity_line(section),
        *noise_lines(section),
        *sign_lines(section),
        *tuned_lines(section),
        protocol_line(section),
        texts_line(section),
        *data_lines(section),
        *environment_lines(section),
    ]
    return [*lines, *(f"- {fact}" for fact in facts if fact), ""]


def _overall(board: Leaderboard) -> list[str]:
    """All datasets together, where there are several."""
    facts = overall_lines(board)
    if not facts:
        return []
    table = overall_table(board)
    body = [*_pipe_table(table), ""] if table else []
    if has_critical_difference(board.across):
        picture = critical_difference_picture_name(board.name)
        body += [f"![Mean ranks over datasets, and which are not separated]({picture})", ""]
    return ["## Overall", "", *body, *(f"- {fact}" for fact in facts), ""]


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
    notes |= {note for section in board.sections for note in runner_up_notes(section)}
    sets = [section.table.history == SETS for section in board.sections]
    mixed = "test targets (users, where their held-out items are a set)"
    unit = "users" if all(sets) else mixed if any(sets) else "test targets"
    tiers = (
        f"Tier: a shared rank by {name}. The highest model opens a tier and takes in every model "
        "not separated from it; members are tied with the tier's first, not with one another. A "
        "row with one seed has a tier only where it could be tested against all others."
    )
    lines = [
        f"Means over all {unit} and seeds, ± standard deviation over seeds (n - 1). **Best**, "
        "<ins>second</ins>. A seed covers initialisation, order of batches, augmentation and "
        "negatives; the split and the tuning are fixed. Deterministic methods run once.",
        *([] if board.plan.family == REFERENCE else [tiers]),
        f"Difference: mean / mean of the reference - 1 in {name}, with its {percent(1 - ALPHA)} "
        f"interval over users and seeds, not corrected. The mark behind it is corrected "
        f"({_correction(board.plan)}), so it may say `=` where the interval excludes 0. The other "
        "metrics carry no marks.",
        f"Marks: `^` better, `v` worse, `=` not separated, `~` separated, but by less than "
        f"{percent(ROPE)}. Behind the best {name} stands its mark against the second; none where "
        "the two could not be tested.",
        f"Users won / tied / lost: for whom {name}, averaged over seeds, is higher than, equal to "
        "or lower than the reference's.",
        "Ties between scores count half: rank = 1 + items scored higher + half of those scored "
        "equal, rounded up. A target that is masked itself ranks last.",
        "Published: the figure of the source named below the table, and how far the measured "
        "one is from it.",
        "Settings: arguments as they were recorded, defaults included, so that they say which form "
        "of a method ran and on what base, whatever its row is called.",
        "Cost: means over trials, memory the largest. Time a user: median, to score the whole "
        "catalogue, one user alone and 256 together.",
    ]  # fmt: skip
    if any(sets):
        lines.append(
            "Sets of held-out items: Recall@k is the share of a user's held-out items among the "
            "first k; NDCG@k sums 1 / log2(1 + rank) over those among the first k and divides by "
            "the same sum for the best order. Held-out items of one user compete for ranks."
        )
    if any(row.tuning.get("search") for section in board.sections for row in section.rows):
        lines.append(
            "Tuned: the trials of the search that chose a row's arguments, each a training with "
            "one seed, judged on validation alone, and their seconds, which no other cost counts."
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
    if any(row.own_texts for section in board.sections for row in section.rows):
        lines.append(
            f"{OWN_TEXTS} the row has read what stands under Texts, the published figure was made "
            "with the texts of its source. Rows on a control in place of texts have no such figure."
        )
    if line := overall_caption(board):
        lines.append(line)
    if any(row.ceiling for section in board.sections for row in section.rows):
        lines.append(
            "Ceiling: the Bayes-best ranker, which knows how the data were generated. No method "
            "can pass it but by chance; it is not ranked and not tested."
        )
    return lines


def _correction(plan: Plan) -> str:
    """Over what p-values are corrected, how, and what that holds."""
    pairs = "all pairs of models of the dataset"
    if plan.family == REFERENCE:
        pairs = (
            f"the models of the dataset against {code(plan.reference)} (over {pairs} where that "
            "has no result)"
        )
    holds = (
        f"alpha = {ALPHA:g} for the whole family"
        if plan.correction == "holm"
        else f"at most {percent(ALPHA)} of the marks are false on average; a table may have one"
    )
    return f"{CORRECTION[plan.correction]} over {pairs}, {holds}"


def _commands(board: Leaderboard) -> list[str]:
    plan = board.plan
    ranks = ["intentbench", "report", f"{plan.folder}/ranks/{board.name}"]
    out = ["-o", plan.folder] if plan.place else []
    again = f"{shlex.join([*ranks, *out])}   # this page, from stored ranks"
    commands = [f"{plan.command}{plan.place}", again] if plan.command else [again]
    for section in board.sections:
        for row in section.rows:
            if row.ranked and row.records[0].method != EXTERNAL:  # others cannot be run here
                return [*commands, *_cell_commands(board, section.table.dataset, row)]
    return commands


def _cell_commands(board: Leaderboard, dataset: str, row: Row) -> list[str]:
    """One cell anew, by example: what the spec has there, and what was published there."""
    seed, plan = row.records[0].seed, board.plan
    cell = f"{plan.reproduce} {board.name}/{dataset}/{row.label}/{seed}{plan.place}"
    lines = [
        "",
        "# one cell, this one for example: trained again, compared with its ranks",
        cell,
    ]
    if plan.command:
        chosen = f"--datasets {dataset} --models {row.label} --seeds {seed}"
        lines += ["# and as the spec has it now", f"{plan.command}{plan.place} {chosen}"]
    return lines
