"""A gate's report as JUnit XML, a test case a cell.

The layout is that of Jenkins' xUnit plugin (`junit-10.xsd`), which GitLab and others read as well.
Worse is a failure. "Cannot tell" is an error, not skipped: tools count a skipped case as no
trouble, and a gate that cannot tell has not passed. Skipped are rows that the baseline lacks.
"""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from intentbench.reports.columns import percent
from intentbench.reports.gate import GateCell, GateReport
from intentbench.results.printable import printable
from intentbench.stats.gate import Verdict

SUITE = "intentbench check"


def render_junit(report: GateReport) -> bytes:
    """The report as a UTF-8 document, without times: the same report gives the same bytes."""
    verdicts = [cell.verdict for cell in report.cells]
    counts = {
        "tests": str(len(verdicts) + len(report.unjudged)),
        "failures": str(verdicts.count(Verdict.WORSE)),
        "errors": str(verdicts.count(Verdict.CANNOT_TELL)),
    }
    root = Element("testsuites", {"name": SUITE, **counts})
    skipped = str(len(report.unjudged))
    suite = SubElement(root, "testsuite", {"name": SUITE, **counts, "skipped": skipped})
    for cell in report.cells:
        case = SubElement(suite, "testcase", classname=printable(cell.dataset))
        case.set("name", printable(f"{cell.label} {cell.metric}"))
        if cell.verdict is Verdict.WORSE:
            _add(case, "failure", "worse", _describe(cell, report.margin))
        elif cell.verdict is Verdict.CANNOT_TELL:
            _add(case, "error", "cannot tell", f"{cell.reason}; {_describe(cell, report.margin)}")
    for dataset, label in report.unjudged:
        case = SubElement(suite, "testcase", classname=printable(dataset), name=printable(label))
        SubElement(case, "skipped", message="not in the baseline")
    indent(root)
    content: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _add(case: Element, kind: str, type_: str, text: str) -> None:
    SubElement(case, kind, type=type_, message=printable(text))


def _describe(cell: GateCell, margin: float) -> str:
    found = cell.test.contrast
    text = f"baseline {found.mean_b:.4f}, new {found.mean_a:.4f}, margin {percent(margin, 1)}"
    if cell.test.p_worse is None:  # nothing is known of seeds: no interval
        return text
    if found.relative is None or found.relative_low is None or found.relative_high is None:
        return text
    interval = f"[{100 * found.relative_low:+.2f} %, {100 * found.relative_high:+.2f} %]"
    return f"{text}, change {100 * found.relative:+.2f} %, 90 % interval {interval}"
