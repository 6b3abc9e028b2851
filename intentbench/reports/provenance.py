"""What stands below a table: gaps, resolution, sources, protocol, data and machine, a line each."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from intentbench.metrics.users import SETS
from intentbench.reports.cells import INPUTS, Cell, shared_protocol
from intentbench.reports.columns import code, flags, interval, percent, short_name
from intentbench.reports.leaderboard import Row, Section, all_published
from intentbench.results.record import TrialRecord
from intentbench.stats.effects import ROPE

EXPLAIN = 0.05
"""Relative difference to a published figure from which known deviations are printed."""


STATISTICS = ("users", "items", "interactions")
"""Statistics of a dataset that are printed first."""


def gaps(section: Section, reference: str) -> list[str]:
    """Rows that lack trials, and why.

    Args:
        section: of the page.
        reference: the label that was asked for, "" for none.
    """
    never = [code(row.label) for row in section.rows if row.cell is None]
    lines = [f"**Not run:** {', '.join(never)}."] if never else []
    lacking: dict[str, list[str]] = {}
    for row in section.rows:
        if row.cell is not None and not row.complete:
            lacking.setdefault(_gap(row), []).append(code(row.label))
    lines += [f"**Incomplete:** {', '.join(labels)}: {gap}" for gap, labels in lacking.items()]
    if reference and section.reference and section.reference != reference:
        lines.append(
            f"**The reference {code(reference)} has no result here:** differences are against the "
            f"best row, {code(section.reference)}."
        )
    return lines


def _gap(row: Row) -> str:
    present = {record.seed for record in row.records}
    failed = {record.seed: record.reason for record in row.cell.failed} if row.cell else {}
    reasons = [f"seed {seed} failed: {code(reason)}" for seed, reason in failed.items()]
    absent = [str(seed) for seed in row.seeds if seed not in present | failed.keys()]
    if absent:
        reasons.append(f"seed {', '.join(absent)} not run")
    return f"{len(row.records)}/{row.wanted} seeds; {'; '.join(reasons)}."


def stale_lines(section: Section) -> list[str]:
    """Rows made with other code, and methods whose seed does nothing."""
    lines = []
    if stale := [code(row.label) for row in section.rows if row.stale]:
        lines.append(f"**Stale:** {', '.join(stale)} made with code that has changed since.")
    mixed = [code(row.label) for row in section.rows if len({r.code for r in row.records}) > 1]
    if mixed:
        lines.append(f"**Mixed code:** the seeds of {', '.join(mixed)} ran different code.")
    cells: list[Cell] = [row.cell for row in section.rows if row.cell is not None]
    if idle := [code(cell.label) for cell in cells if cell.seed_changes_nothing]:
        lines.append(
            f"**The seed changes nothing:** every seed of {', '.join(idle)} gives the same ranks, "
            "though the method does not say that it is deterministic."
        )
    return lines


def runner_up_line(section: Section) -> str:
    """Whether the first row is separated from the second; "" where there is no second."""
    family = section.family
    if family is None or family.runner_up is None:
        return ""
    first, second = family.runner_up
    contrast, p = family.contrasts[first, second], family.adjusted[first, second]
    verdict = {
        "": "not tested",
        "=": "not separated",
        "~": f"separated, but by less than {percent(ROPE)}",
    }.get(family.mark(first, second), "separated")
    end = f" {flags(contrast)}".rstrip() if p is None else f" (corrected p {_p(p)})"
    return (
        f"First against second in {short_name(section.table.primary)}: {code(first)} "
        f"{interval(contrast, ' %')} against {code(second)}, {verdict}{end}."
    )


def runner_up_notes(section: Section) -> tuple[str, ...]:
    """What the flags of `runner_up_line` stand for."""
    family = section.family
    if family is None or family.runner_up is None or family.adjusted[family.runner_up] is not None:
        return ()
    return family.contrasts[family.runner_up].notes


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def resolution_line(section: Section) -> str:
    """What these runs can tell apart."""
    found = section.family.resolution() if section.family else None
    if found is None:
        return "Resolution: no pair of models could be tested."
    users = found.users_share
    advice = (
        f"Users give {percent(users)} of the variance: more seeds will not help much."
        if users > 0.5
        else f"Seeds give {percent(1 - users)} of the variance: more of them help."
    )
    pairs = f"{found.pairs} pair{'s' if found.pairs > 1 else ''}"
    name = short_name(section.table.primary)
    return (
        f"Resolution: a true difference of {percent(found.difference, 1)} in {name} would be found "
        f"in 80 % of repetitions (median over {pairs}, before correction). {advice}"
    )


def published_lines(section: Section) -> list[str]:
    """Sources of published figures, and known deviations where the measured one is far off."""
    lines = []
    for row in section.rows:
        figures = {metric: row.published.get(metric) for metric in section.table.headline}
        sources: dict[str, list[str]] = {}
        far = False
        for metric, figure in figures.items():
            if figure is not None:
                sources.setdefault(figure["source"], []).append(short_name(metric))
                far |= abs(row.means[metric] / figure["value"] - 1) > EXPLAIN
        for source, metrics in sources.items():
            lines.append(f"Published {' and '.join(metrics)} of {code(row.label)}: {source}.")
        ranges = [_range(row, metric) for metric in section.table.headline]
        if stated := [text for text in ranges if text]:
            lines.append(f"Published figures of {code(row.label)} differ: {'; '.join(stated)}.")
        if far:
            known = [text.rstrip(".") for text in row.records[0].card.get("deviations", ())]
            lines.append(
                f"{code(row.label)} is more than {percent(EXPLAIN)} off; known deviations: "
                f"{'; '.join(known) or 'none'}."
            )
    return lines


def published_range(row: Row, metric: str) -> tuple[float, float] | None:
    """The lowest and the highest published figure that fit a row; None where all are one."""
    found = [figure["value"] for figure in _fitting(row, metric)]
    return (min(found), max(found)) if len(set(found)) > 1 else None


def _fitting(row: Row, metric: str) -> list[dict[str, Any]]:
    return all_published(row.records[0], metric) if row.records else []


def _range(row: Row, metric: str) -> str:
    """A range of published figures, and how many there are; "" where there is none."""
    if (ends := published_range(row, metric)) is None:
        return ""
    low, high = ends
    return f"{short_name(metric)} {low:.4f} to {high:.4f} ({len(_fitting(row, metric))} figures)"


def sign_lines(section: Section) -> list[str]:
    """What went wrong in training that no metric shows, by row and seed."""
    seen: dict[tuple[str, str], set[int]] = {}  # a seed may have a sign twice
    for record in section.records:
        for sign in record.signs:
            name = sign.partition(":")[0]
            seen.setdefault((record.label, name), set()).add(record.seed)
    return [
        f"Sign of trouble in {code(label)}: {name} (seed {', '.join(map(str, sorted(seeds)))})."
        for (label, name), seeds in seen.items()
    ]


def tuned_lines(section: Section) -> list[str]:
    """Values that a search chose, by row, and what they came to on validation."""
    lines = []
    for row in section.rows:
        if (search := row.tuning.get("search")) is None:
            continue
        chosen = sorted(row.tuning["arguments"].items())  # a file may have another order
        values = ", ".join(f"{name} {value}" for name, value in chosen)
        before = "" if search["before"] is None else f", {search['before']:.4f} with those before"
        lines.append(
            f"Tuned values of {code(row.label)}: {values} ({short_name(search['metric'])} "
            f"{search['value']:.4f} on validation{before}; {search['sampler']}, seed "
            f"{search['seed']}, study {code(search['study'])})."
        )
    return lines


def protocol_line(section: Section) -> str:
    """How targets were ranked, and what the methods were given."""
    records = section.records
    if not records:
        return ""
    parts = [f"{_words(name)} {_text(v)}" for name, v in shared_protocol(records[0]).items()]
    parts += [_by_label(name, records) for name in INPUTS if name not in ("notes", "texts")]
    return f"Protocol: {'; '.join(part for part in parts if part)}.{_set_protocol(section)}"


def texts_line(section: Section) -> str:
    """What each row that reads texts has read; "" where none does."""
    rows: dict[str, list[str]] = {}
    for label, record in {record.label: record for record in section.records}.items():
        if source := record.protocol.get("texts"):
            rows.setdefault(source, []).append(code(label))
    found = (f"{', '.join(sorted(labels))}: {source}" for source, labels in sorted(rows.items()))
    return f"Texts: {'; '.join(found)}." if rows else ""


def _set_protocol(section: Section) -> str:
    """What is peculiar to sets of held-out items; "" elsewhere."""
    if section.table.history != SETS:
        return ""
    masked = section.records[0].protocol.get("mask_history", True)
    candidates = (
        "training items are masked, validation items are not" if masked else "no item is masked"
    )
    return f" Recall and NDCG of each user's set of held-out items; {candidates}."


def _by_label(name: str, records: list[TrialRecord]) -> str:
    """A value that may differ between rows: the commonest, and which rows have another."""
    values = {r.label: _text(r.protocol[name]) for r in records if name in r.protocol}
    if not values:
        return ""
    common = Counter(values.values()).most_common(1)[0][0]
    others = [f"{code(label)}: {value}" for label, value in values.items() if value != common]
    return f"{name} {common}" + (f" ({', '.join(sorted(others))})" if others else "")


def data_lines(section: Section) -> list[str]:
    """Statistics and fingerprint of the data, and what is to be known of them."""
    records = section.records
    if not records:
        return []
    statistics = records[0].statistics
    order = dict.fromkeys([*(k for k in STATISTICS if k in statistics), *statistics])
    numbers = "; ".join(f"{_words(name)} {_text(statistics[name])}" for name in order)
    targets = f"{section.table.n_users:,} users with {len(section.table.user):,} test targets"
    notes = dict.fromkeys(note for r in records for note in r.protocol.get("notes", ()))
    return [
        f"Data: {numbers + '; ' if numbers else ''}{targets}; "
        f"fingerprint {code(records[0].data_fingerprint[:16])}.",
        *(f"Note on the data: {note.rstrip('.')}." for note in notes),
    ]


def environment_lines(section: Section) -> list[str]:
    """Machines and versions, each once with its commits, and the dates of the trials."""
    records = section.records
    if not records:
        return []
    places: dict[str, Counter[str]] = {}
    for record in records:
        commits = places.setdefault(_environment(record.environment), Counter())
        commits[_commit(record.environment)] += 1
    days = sorted(record.finished[:10] for record in records if record.finished)
    when = f" Trials finished {days[0]} to {days[-1]} (UTC)." if days else ""
    several = len(places) > 1
    return [
        "Environment"
        + (f" of {_trials(commits.total())}" if several else "")
        + f": {'; '.join(filter(None, [text, _commits(commits)])) or 'not recorded'}."
        + when
        for text, commits in sorted(places.items())
    ]


def _environment(found: Mapping[str, Any]) -> str:
    packages = found.get("packages", {})
    parts = [f"Python {found['python']}"] if "python" in found else []
    parts += [
        f"{name} {packages[name]}" for name in ("torch", "lightning", "numpy") if name in packages
    ]
    parts += [str(found[name]) for name in ("platform", "cpu") if found.get(name)]
    if "threads" in found:
        parts.append(
            f"device {found.get('device')}, {found['threads']} of {found.get('cores')} cores"
        )
    return "; ".join(parts)


def _commit(found: Mapping[str, Any]) -> str:
    if not found.get("commit"):
        return ""
    changed = " with uncommitted changes" if found.get("dirty") else ""
    return f"{code(found['commit'][:12])}{changed}"


def _commits(found: Counter[str]) -> str:
    if len(found) == 1:
        return "".join(f"commit {commit}" for commit in found if commit)
    named = (f"{commit or 'not known'} ({_trials(n)})" for commit, n in sorted(found.items()))
    return f"commits {', '.join(named)}"


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
