"""A leaderboard as CSV, for spreadsheets, and as JSON, with everything that was computed."""

import csv
import io
import json
from dataclasses import asdict
from itertools import combinations
from json.encoder import encode_basestring
from math import isfinite
from typing import Any

from intentbench.reports.cells import shared_protocol
from intentbench.reports.groups import GroupedRow, Groups
from intentbench.reports.intent_tables import intent_means
from intentbench.reports.leaderboard import ALPHA, Leaderboard, Row, Section
from intentbench.reports.overall import overall_json
from intentbench.reports.provenance import published_range
from intentbench.stats.contrast import find_relative_ends

FIELDS = (
    "dataset",
    "method",
    "metric",
    "mean",
    "std",
    "seeds",
    "ci_low",
    "ci_high",
    "reference",
    "p_holm",
    "significant",
    "published",
)
"""Columns of the CSV. `method` is the label of the row. `ci_low` and `ci_high` bound the absolute
difference to `reference`; they and whatever follows from the test stand with the primary metric
only. A column of p-values is named after its correction: `p_bh` in place of `p_holm`."""

_text, _scalar = encode_basestring, json.JSONEncoder().encode
_DIGITS = 10  # of a float in JSON: sums may differ in the last bits between machines


def render_csv(board: Leaderboard) -> str:
    """A line a dataset, row and metric; rows without a result are left out."""
    buffer, corrected = io.StringIO(), f"p_{board.plan.correction}"
    fields = [corrected if name == "p_holm" else name for name in FIELDS]
    writer = csv.DictWriter(buffer, fields, lineterminator="\n", restval="")
    writer.writeheader()
    for section in board.sections:
        for row in section.rows:
            for metric in row.means:
                deviation, figure = row.deviations[metric], row.published.get(metric)
                line = {
                    "dataset": section.table.dataset,
                    "method": row.label,
                    "metric": metric,
                    "mean": f"{row.means[metric]:.6f}",
                    "std": "" if deviation is None else f"{deviation:.6f}",
                    "seeds": len(row.records),
                    "published": "" if figure is None else f"{figure['value']:g}",
                }
                tested = metric == section.table.primary
                writer.writerow(line | (_tested(section, row, corrected) if tested else {}))
            for measure, (value, deviation) in intent_means(row).items():
                line = {
                    "dataset": section.table.dataset,
                    "method": row.label,
                    "metric": measure,
                    "mean": f"{value:.6f}",
                    "std": "" if deviation is None else f"{deviation:.6f}",
                    "seeds": len(row.records),
                }
                writer.writerow(line)
    return buffer.getvalue()


def _groups(groups: Groups, rows: tuple[GroupedRow, ...], unit: str) -> dict[str, Any]:
    """The metric of each row in each group of users or targets, and what stands beside it."""
    return {
        "cuts": groups.cuts,
        unit: groups.sizes,
        "rows": {
            row.label: {
                "means": row.means,
                "differences": [found.figures() for found in row.differences or ()],
            }
            for row in rows
        },
    }


def _tested(section: Section, row: Row, corrected: str) -> dict[str, str]:
    contrast = section.difference(row)
    if section.family is None or contrast is None:
        return {"reference": section.reference} if row.ranked else {}
    p = section.family.adjusted[row.label, section.reference]
    return {
        "ci_low": f"{contrast.low:.6f}",
        "ci_high": f"{contrast.high:.6f}",
        "reference": section.reference,
        corrected: "" if p is None else f"{p:.6g}",
        "significant": "" if p is None else str(p < ALPHA).lower(),
    }


def render_json(board: Leaderboard) -> str:
    """Everything behind the page, every pair of models included."""
    primary = board.primaries[0]
    content = {
        "name": board.name,
        "plan": board.plan.to_json(),
        "preliminary": board.preliminary,
        "metric": primary,
        "alpha": ALPHA,
        "family": board.plan.family,
        "correction": board.plan.correction,
        "datasets": [_section(section, primary) for section in board.sections],
        **({"overall": overall_json(board.across)} if board.across else {}),
        "absent": board.absent,
    }
    return _encode(content) + "\n"


def _section(section: Section, primary: str) -> dict[str, Any]:
    """A dataset; its metric stands with it where it is another than the board's."""
    own = section.table.primary
    records, family = section.records, section.family
    resolution = family.resolution() if family else None
    return {
        "dataset": section.table.dataset,
        **({"metric": own} if own != primary else {}),
        "data_fingerprint": records[0].data_fingerprint if records else None,
        "statistics": records[0].statistics if records else {},
        "protocol": shared_protocol(records[0]) if records else {},
        "users": section.table.n_users,
        "targets": len(section.table.user),
        "reference": section.reference,
        "tests": family.n_tests if family else 0,
        "lead": family.lead if family else "",
        "resolution": asdict(resolution) if resolution else None,
        "rows": [_row(section, row) for row in section.rows],
        "pairs": _pairs(section),
        **({"noise": [asdict(study) for study in section.noise]} if section.noise else {}),
        **({"groups": _groups(section.groups, section.grouped, "users")} if section.groups else {}),
        **(
            {"popularity": _groups(section.target_groups, section.target_grouped, "targets")}
            if section.target_groups
            else {}
        ),
    }


def _row(section: Section, row: Row) -> dict[str, Any]:
    family, cell = section.family, row.cell
    return {
        "label": row.label,
        "method": cell.any_record.method if cell else None,
        "arguments": cell.any_record.arguments if cell else {},
        "data": cell.any_record.data if cell else {},
        "training": cell.any_record.training if cell else {},
        "seeds": [record.seed for record in row.records],
        "seeds_asked": row.seeds,
        "failed": {record.seed: record.reason for record in cell.failed} if cell else {},
        "ceiling": row.ceiling,
        "stale": row.stale,
        **({"other_settings": row.changed} if row.changed else {}),
        "tier": family.tiers.get(row.label) if family else None,
        "mark": family.mark(row.label, section.reference) if family and row.ranked else "",
        "metrics": {
            metric: {
                "mean": row.means[metric],
                "std": row.deviations[metric],
                "published": row.published.get(metric),
                **_published_range(row, metric),
            }
            for metric in row.means
        },
        "trials": [
            {
                "trial": record.trial,
                "seed": record.seed,
                "metrics": record.metrics,
                "cost": asdict(record.cost),
                "environment": record.environment,
                "code": record.code,
                "finished": record.finished,
            }
            for record in row.records
        ],
    }


def _published_range(row: Row, metric: str) -> dict[str, Any]:
    """The ends of several published figures; nothing where all are one."""
    ends = published_range(row, metric)
    return {"published_range": ends} if ends else {}


def _pairs(section: Section) -> list[dict[str, Any]]:
    """Each pair once, the one with the higher mean first."""
    family = section.family
    if family is None:
        return []
    pairs = list(combinations(family.labels, 2))
    find_relative_ends(family.contrasts[pair] for pair in pairs)
    return [
        {
            "a": a,
            "b": b,
            **family.contrasts[a, b].figures(),
            "p_adjusted": family.adjusted[a, b],
            **vars(family.effects[a, b]),
        }
        for a, b in pairs
    ]


def _encode(value: Any, margin: str = "\n") -> str:
    """As `json.dumps(value, indent=1)`, in a third of the time: that encodes in Python, too.

    Floats are rounded; those that JSON cannot say become null.
    """
    inner = margin + " "
    if isinstance(value, dict):
        parts = [f"{_text(str(name))}: {_encode(entry, inner)}" for name, entry in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}{margin}}}" if parts else "{}"
    if isinstance(value, list | tuple):
        parts = [_encode(entry, inner) for entry in value]
        return f"[{inner}{f',{inner}'.join(parts)}{margin}]" if parts else "[]"
    if isinstance(value, float):
        return repr(float(f"{value:.{_DIGITS}g}")) if isfinite(value) else "null"
    return _text(value) if isinstance(value, str) else _scalar(value)
