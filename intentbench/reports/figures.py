"""Pictures as files: how every figure of a page becomes SVG."""

import io
from typing import Any


def render_svg(figure: Any) -> bytes:
    """A matplotlib figure as SVG; the same figure gives the same bytes with the same matplotlib."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    # text stays text, ids do not depend on the run
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "intentbench"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "intentbench"})
    return buffer.getvalue()
