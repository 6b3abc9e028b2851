"""Rows that were made with other settings than their benchmark has now, as lines below a table."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from intentbench.reports.columns import code
from intentbench.reports.leaderboard import Section
from intentbench.reports.plan import Plan

SHOWN = 5
"""Settings that are named before the others are counted."""


def other_settings_lines(section: Section, plan: Plan) -> list[str]:
    """Rows with other settings, which these are, and what makes the rows anew.

    Args:
        section: of the page.
        plan: of the page.

    Returns:
        A line for the rows that differ in the same settings.
    """
    alike: dict[str, list[str]] = {}
    for row in section.rows:
        if row.changed:
            texts = [f"{code(name)} {_describe(change)}" for name, change in row.changed.items()]
            more = len(texts) - SHOWN
            texts[SHOWN:] = [f"and {more} more"] if more > 0 else []
            alike.setdefault("; ".join(texts), []).append(row.label)
    lines = []
    for changes, labels in alike.items():
        named = ", ".join(map(code, labels))
        line = f"**Other settings:** {named} made with others than the spec has now: {changes}."
        if plan.command:
            chosen = shlex.join(["--datasets", section.table.dataset, "--models", ",".join(labels)])
            line += f" Anew with {code(f'{plan.command}{plan.place} {chosen}')}."
        lines.append(line)
    return lines


def _describe(change: Mapping[str, Any]) -> str:
    was, now = (
        code(json.dumps(change[side], ensure_ascii=False)) if side in change else "not there"
        for side in ("was", "now")
    )
    return f"was {was}, now {now}"
