"""Pictures of texts and interactions: what is drawn, also of vectors without a density."""

import xml.etree.ElementTree as ElementTree

import matplotlib.figure
import numpy as np
import pytest

from intentbench.reports.text_pictures import Cloud, Match, draw_densities, draw_matches


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are saved."""
    kept: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def keep(self: matplotlib.figure.Figure, *arguments: object, **options: object) -> None:
        kept.append(self)
        save(self, *arguments, **options)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return kept


def words(svg: bytes) -> str:
    root = ElementTree.fromstring(svg)
    return " ".join(t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text"))


def cloud(name: str, vectors: np.ndarray) -> Cloud:
    return Cloud(name, "a caption", vectors)


def test_density_of_angles_integrates_to_one(figures: list[matplotlib.figure.Figure]) -> None:
    random = np.random.default_rng(0)
    rows = [
        [cloud("one", random.normal(0, 1, (90, 5))), cloud("two", random.normal(2, 1, (90, 3)))]
    ]
    drawn = draw_densities("title", rows)
    assert drawn == draw_densities("title", rows)
    assert {"title", "one", "two", "caption"} <= set(words(drawn).split())
    for axis in figures[0].axes[2:4]:
        (line,) = axis.lines
        places, density = (np.asarray(values) for values in line.get_data())
        assert np.trapezoid(density, places) == pytest.approx(1, abs=1e-6)
        assert density[0] == pytest.approx(density[-1])  # it wraps around


@pytest.mark.parametrize("collapsed", [np.ones((20, 4)), np.eye(4)[[0, 1] * 10]])
def test_vectors_without_a_density_are_dots(
    collapsed: np.ndarray, figures: list[matplotlib.figure.Figure]
) -> None:
    draw_densities("title", [[cloud("collapsed", collapsed)]])
    (dots,) = figures[0].axes[0].lines
    assert np.shape(dots.get_xdata()) == (20,)


def test_heat_map_is_the_outer_product_and_its_trace_the_cosine(
    figures: list[matplotlib.figure.Figure],
) -> None:
    random = np.random.default_rng(0)
    pairs = random.normal(size=(2, 2, 8))
    drawn = draw_matches(
        "title", ("r", "z"), [Match(f"no {i}", "dot", *p) for i, p in enumerate(pairs)]
    )
    assert "dimension of r" in words(drawn)
    for (ours, texts), above, below in zip(
        pairs, figures[0].axes[:2], figures[0].axes[2:4], strict=True
    ):
        shown = np.asarray(above.images[0].get_array())
        lengths = np.linalg.norm(ours) * np.linalg.norm(texts)
        assert np.allclose(shown, ours[:, None] * texts[None] / lengths)
        heights = [bar.get_height() for bar in below.patches]  # type: ignore[attr-defined]  # rectangles
        assert sum(heights) == pytest.approx(ours @ texts / lengths)
