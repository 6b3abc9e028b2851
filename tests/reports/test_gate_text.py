import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from intentbench.reports.gate import GateReport, check_runs
from intentbench.reports.gate_baseline import update_baseline
from intentbench.reports.gate_junit import render_junit
from intentbench.reports.gate_text import (
    render_markdown,
    render_text,
    render_update_markdown,
    render_update_text,
)
from tests.reports.fake_runs import GRU, KNN, POPULARITY, SASREC, SASREC_BCE, write_runs

N_USERS = 1_000
LAYOUT = {  # of Jenkins' xUnit plugin, junit-10.xsd: required attributes, others, children
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"skipped", "time", "timestamp", "hostname", "id", "package", "file", "log", "url"},
        {"testsuite", "testcase", "properties", "system-out", "system-err"},
    ),
    "testcase": (
        {"name"},
        {"classname", "time", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> GateReport:
    """One row that passes, one that is worse, one that cannot tell, one that is new."""
    root = tmp_path_factory.mktemp("gate")
    write_runs(root / "old", [KNN, replace(SASREC, seed_spread=0.002)], n_users=N_USERS)
    write_runs(root / "old", [SASREC_BCE], seeds=(0,), n_users=N_USERS)
    weak = replace(SASREC, seed_spread=0.002, strength=SASREC.strength - 0.6)
    write_runs(root / "new", [KNN, weak, POPULARITY], seeds=(3, 4, 5), n_users=N_USERS)
    write_runs(root / "new", [SASREC_BCE], seeds=(1,), n_users=N_USERS)
    update_baseline(root / "old", root / "gate.npz")
    return check_runs(root / "new", root / "gate.npz")


def test_summary_has_the_verdict_first_one_table_and_what_to_do(mixed: GateReport) -> None:
    lines = render_markdown(mixed).splitlines()
    assert lines[0] == "## Regression gate: worse"
    assert lines[2].startswith("1 pass, 1 worse, 1 cannot tell; margin 5.0 %")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert {line.count("|") for line in table} == {12}
    assert lines.index(table[-1]) - lines.index(table[0]) == 4  # one table, in one piece
    rows = {row.split("|")[2].strip(): row for row in table[2:]}
    assert "| pass, same ranks |" in rows["`item_knn`"]
    assert "| **worse** |" in rows["`sasrec_ce_all`"]
    assert "| **cannot tell** |" in rows["`sasrec_bce1`"]
    after = lines[lines.index("**What to do next**") :]
    assert any("mend the change" in line and "--update`" in line for line in after)
    assert any("adding seeds until it passes is not a test" in line for line in after)
    assert any("not judged: `popularity` on `beauty`" in line for line in after)


def test_summary_prints_the_figures_of_the_test(mixed: GateReport) -> None:
    cell = next(cell for cell in mixed.cells if cell.label == "sasrec_ce_all")
    found = cell.test.contrast
    assert found.relative is not None
    assert found.relative_low is not None
    assert cell.test.certifiable is not None
    row = next(line for line in render_markdown(mixed).splitlines() if "`sasrec_ce_all` |" in line)
    for figure in (
        f"| {found.mean_b:.4f} | {found.mean_a:.4f} |",
        f"| {100 * found.relative:+.2f} % |",
        f"| [{100 * found.relative_low:+.2f} %,",
        "| 3 / 3 |",
        f"| {100 * cell.test.certifiable:.1f} % | {cell.test.seeds_needed} |",
    ):
        assert figure in row


def test_terminal_text_tells_the_same(mixed: GateReport) -> None:
    text = render_text(mixed)
    assert text.startswith(f"WORSE: {mixed.runs} against {mixed.baseline}\n")
    assert "beauty, item_knn, ndcg@10: pass (the same ranks)" in text
    assert "beauty, sasrec_ce_all, ndcg@10: worse\n" in text
    assert "sasrec_bce1, ndcg@10: cannot tell (a single seed" in text
    assert len(re.findall("can certify .* seeds needed", text)) == 1  # the only one tested


def test_a_pass_asks_for_nothing(mixed: GateReport) -> None:
    passed = replace(mixed, cells=mixed.cells[:1], unjudged=())
    assert render_markdown(passed).startswith("## Regression gate: pass\n")
    assert render_markdown(passed).endswith("**What to do next**\n\n- Nothing.\n")
    text = render_text(passed)
    assert "Nothing" not in text
    assert text.splitlines()[-1].startswith("  ")  # the last row's own lines
    assert render_text(mixed).splitlines()[-1].startswith("Not in the baseline")


def test_junit_keeps_the_layout(mixed: GateReport) -> None:
    content = render_junit(mixed)
    assert content == render_junit(mixed)
    root = ElementTree.fromstring(content)
    assert root.tag == "testsuites"
    for element in root.iter():
        required, optional, children = LAYOUT[element.tag]
        assert required <= set(element.keys()) <= required | optional, element.tag
        assert {child.tag for child in element} <= children


def test_junit_counts_worse_as_failure_and_cannot_tell_as_error(mixed: GateReport) -> None:
    (suite,) = ElementTree.fromstring(render_junit(mixed))
    found = {case.get("name"): [part.tag for part in case] for case in suite}
    assert found == {
        "item_knn ndcg@10": [],
        "sasrec_bce1 ndcg@10": ["error"],
        "sasrec_ce_all ndcg@10": ["failure"],
        "popularity": ["skipped"],
    }
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert re.search(
        r"baseline 0\.\d+, new 0\.\d+, margin 5.0 %, change -\d", failure.get("message", "")
    )


def test_junit_survives_what_a_reason_may_quote(mixed: GateReport) -> None:
    reason = '\x1b[31mnan\x00 <in> & "scores"\n'
    cells = tuple(replace(c, reason=reason) if c.reason else c for c in mixed.cells)
    error = ElementTree.fromstring(render_junit(replace(mixed, cells=cells))).find(".//error")
    assert error is not None
    assert '[31mnan  <in> & "scores"' in error.get("message", "")


def test_update_says_old_and_new_means(tmp_path: Path) -> None:
    write_runs(tmp_path / "old", [KNN, SASREC])
    write_runs(tmp_path / "new", [SASREC, GRU], seeds=(3, 4))
    update_baseline(tmp_path / "old", tmp_path / "gate.npz")
    changes = update_baseline(tmp_path / "new", tmp_path / "gate.npz")
    gru, knn, sasrec = changes
    lines = render_update_markdown(changes, "gate.npz").splitlines()
    assert lines[0] == "## Baseline accepted: `gate.npz`"
    assert f"| `beauty` | `gru4rec` | NDCG@10 | - | {gru.new:.4f} | new | 2 |" in lines
    assert f"| `beauty` | `item_knn` | NDCG@10 | {knn.old:.4f} | - | gone | 0 |" in lines
    assert sasrec.old is not None
    assert sasrec.new is not None
    change = f"{100 * (sasrec.new / sasrec.old - 1):+.2f} %"
    assert f"{sasrec.old:.4f} | {sasrec.new:.4f} | {change} | 2 |" in "\n".join(lines)
    text = render_update_text(changes, "gate.npz")
    assert (
        f"sasrec_ce_all, ndcg@10: {sasrec.old:.4f} -> {sasrec.new:.4f} ({change}, 2 seeds)" in text
    )
