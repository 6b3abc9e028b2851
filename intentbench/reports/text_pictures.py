"""Pictures of texts and interactions in one space, as IRLLRec's figures 1c and 5 have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gaussian_kde, vonmises
from sklearn.decomposition import PCA

from intentbench.metrics.hypersphere import unit_rows
from intentbench.reports.figures import render_svg

Floats = NDArray[np.floating[Any]]

DOTS = 2000
"""Rows that a density is estimated from, at most."""

GRID = 80
"""Places along each axis where a density is computed."""

FLAT = 1e-6
"""Spread over reach below which vectors have no density in the plane."""

CONCENTRATION = 25.0
"""Of the von Mises kernels around angles: about 0.2 rad wide."""


@dataclass(frozen=True)
class Cloud:
    """Vectors whose density is drawn.

    Attributes:
        heading: above the panel.
        caption: below it.
        vectors: (T, D), D at least 2.
    """

    heading: str
    caption: str
    vectors: Floats


@dataclass(frozen=True)
class Match:
    """Two vectors that belong together.

    Attributes:
        heading: above the panel.
        caption: below it.
        ours: (D,) from interactions.
        texts: (D,) from texts.
    """

    heading: str
    caption: str
    ours: Floats
    texts: Floats


def draw_densities(title: str, rows: Sequence[Sequence[Cloud]]) -> bytes:
    """Densities in the plane, and below each that of angles, as SVG.

    Vectors at length 1 are projected by PCA, each cloud by its own; the plane's density is by
    Gaussian kernels, that of angles about the mean by von Mises kernels. The same clouds give the
    same bytes with the same libraries.

    Args:
        title: above all.
        rows: clouds, as many in each row.
    """
    from matplotlib.figure import Figure

    across, down = len(rows[0]), len(rows)
    figure = Figure(figsize=(3.0 * across, 0.5 + 4.3 * down), layout="constrained")
    axes = figure.subplots(2 * down, across, squeeze=False, height_ratios=[3, 1] * down)
    flat = [[_project(cloud.vectors) for cloud in clouds] for clouds in rows]
    reach = 1.1 * max(float(np.abs(dots).max()) for row in flat for dots in row) or 1.0
    highest = 0.0
    for row, clouds in enumerate(rows):
        for column, cloud in enumerate(clouds):
            plane, circle = axes[2 * row : 2 * row + 2, column]
            _plane(plane, flat[row][column], reach)
            plane.set_title(f"{cloud.heading}\n{cloud.caption}", fontsize="small")
            highest = max(highest, _angles(circle, flat[row][column]))
            for axis in (plane, circle):
                axis.tick_params(labelsize="x-small", labelleft=column == 0)
    for axis in axes[1::2].flatten():
        axis.set_ylim(0, 1.05 * highest)
    for axis in axes[1::2, 0]:
        axis.set_ylabel("density of angles", fontsize="x-small")
    figure.suptitle(title, fontsize="medium")
    return render_svg(figure)


def draw_matches(title: str, names: tuple[str, str], matches: Sequence[Match]) -> bytes:
    """Outer products of two vectors at length 1, and below each its diagonal, as SVG.

    The diagonal sums to the cosine. All panels share their colours. The same vectors give the same
    bytes with the same libraries.

    Args:
        title: above all.
        names: of the two vectors: rows, columns.
        matches: a panel each.
    """
    from matplotlib.figure import Figure

    products = [
        np.outer(unit_rows(match.ours[None]), unit_rows(match.texts[None])) for match in matches
    ]
    across = len(matches)
    figure = Figure(figsize=(0.9 + 3.2 * across, 5.1), layout="constrained")
    axes = figure.subplots(2, across, squeeze=False, height_ratios=[3, 1], sharex="all")
    limit = max(float(np.quantile(np.abs(product), 0.995)) for product in products) or 1.0
    tallest = max(float(np.abs(product.diagonal()).max()) for product in products) or 1.0
    for column, (match, product) in enumerate(zip(matches, products, strict=True)):
        above, below = axes[:, column]
        image = above.imshow(
            product, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        above.set_title(f"{match.heading}\n{match.caption}", fontsize="small")
        diagonal = product.diagonal()
        colours = np.where(diagonal < 0, "tab:blue", "tab:red")
        below.bar(np.arange(len(diagonal)), diagonal, color=colours, width=0.8)
        below.axhline(0, color="0.7", linewidth=0.8)
        below.set_ylim(-1.1 * tallest, 1.1 * tallest)
        below.set_xlabel(f"dimension of {names[1]}", fontsize="small")
        for axis in (above, below):
            axis.tick_params(labelsize="x-small", labelleft=column == 0)
    axes[0, 0].set_ylabel(f"dimension of {names[0]}", fontsize="small")
    axes[1, 0].set_ylabel("diagonal", fontsize="small")
    bar = figure.colorbar(image, ax=axes[0, :].tolist(), shrink=0.9, pad=0.02)
    bar.ax.tick_params(labelsize="x-small")
    figure.suptitle(title, fontsize="medium")
    return render_svg(figure)


def _project(vectors: Floats) -> NDArray[np.float64]:
    """At most `DOTS` rows at length 1 in the plane of their two principal components."""
    rows = np.random.default_rng(0).permutation(len(vectors))[:DOTS]
    with np.errstate(invalid="ignore"):  # vectors that are all the same have no variance to explain
        projected = PCA(2, svd_solver="full").fit_transform(unit_rows(vectors[rows]))
    flat: NDArray[np.float64] = projected
    return flat


def _plane(axis: Any, flat: NDArray[np.float64], reach: float) -> None:
    places = np.linspace(-reach, reach, GRID)
    x, y = np.meshgrid(places, places)
    if flat.std(0).min() > FLAT * reach:
        density = gaussian_kde(flat.T)(np.stack([x.ravel(), y.ravel()])).reshape(x.shape)
        levels = np.linspace(0, density.max(), 11)[1:]
        axis.contourf(x, y, density, levels, cmap="GnBu")
    else:  # all on one line, or on one point
        axis.plot(*flat.T, "o", markersize=2)
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.locator_params(nbins=5)


def _angles(axis: Any, flat: NDArray[np.float64]) -> float:
    """Draw the density of angles; its largest value."""
    places = np.linspace(-np.pi, np.pi, 181)
    angles = np.arctan2(flat[:, 1], flat[:, 0])
    kernels = vonmises.pdf(places[:, None] - angles, CONCENTRATION)
    density = kernels.mean(1)
    axis.fill_between(places, density, color="tab:blue", alpha=0.25, linewidth=0)
    axis.plot(places, density, color="tab:blue", linewidth=1)
    axis.set_xlim(-np.pi, np.pi)
    axis.set_xticks([-np.pi, 0, np.pi], ["-π", "0", "π"])
    return float(density.max())
