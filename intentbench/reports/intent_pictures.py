"""Pictures of a method's intents: every position a dot, near where its vector is near."""

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Projection = Literal["pca", "tsne"]

DOTS = 2000
"""Positions drawn at most."""

SHADES = 20
"""Categories with a colour of their own; the rest share grey."""


def draw_intents(
    form: Literal["svg", "png", "pdf"],
    title: str,
    vectors: Floats,
    colours: Mapping[str, Ints],
    interests: Floats | None = None,
    projection: Projection = "pca",
) -> bytes:
    """A picture with one panel a colouring, and one of interests beside intents.

    Args:
        form: of the file.
        title: above all panels.
        vectors: (T, D) intents.
        colours: heading of a panel to its categories (T,), -1 for none.
        interests: (T, D), drawn in one projection with the intents.
        projection: "pca" at once, "tsne" in a minute.

    Returns:
        The file's content.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = np.random.default_rng(0).permutation(len(vectors))[:DOTS]
    flat = _project(vectors[rows], projection)
    panels = len(colours) + (interests is not None)
    figure = Figure(figsize=(4.6 * panels, 4.4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    palette = mpl.colormaps["tab20"]
    for axis, (heading, labels) in zip(axes, colours.items(), strict=False):
        label = labels[rows]
        frequent = np.argsort(-np.bincount(label[label >= 0]), kind="stable")[:SHADES]
        grey = ~np.isin(label, frequent)
        _dots(axis, flat[grey], "0.8", "the rest" if grey.any() else None)
        for number, value in enumerate(sorted(frequent)):
            shade = palette(number % SHADES)
            _dots(axis, flat[label == value], shade, str(value) if len(frequent) <= 10 else None)
        axis.set_title(f"{heading} ({len(np.unique(labels[labels >= 0]))})")
        if len(frequent) <= 10:
            axis.legend(markerscale=3, fontsize="small", frameon=False)
    if interests is not None:
        both = _project(np.concatenate([interests[rows], vectors[rows]]), projection)
        _dots(axes[-1], both[: len(rows)], palette(0), "interest R")
        _dots(axes[-1], both[len(rows) :], palette(2), "intent I")
        axes[-1].set_title("interests beside intents")
        axes[-1].legend(markerscale=3, fontsize="small", frameon=False)
    figure.suptitle(f"{title}, {'PCA' if projection == 'pca' else 't-SNE'}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=120)
    return buffer.getvalue()


def _project(vectors: Floats, projection: Projection) -> Floats:
    if projection == "tsne":
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        model = TSNE(2, perplexity=perplexity, init="pca", random_state=0)
    else:
        model = PCA(2, random_state=0)
    flat: Floats = model.fit_transform(vectors)
    return flat


def _dots(axis: Any, places: Floats, colour: Any, label: str | None) -> None:
    axis.scatter(*places.T, s=5, color=colour, label=label, linewidths=0, rasterized=True)
    axis.set_xticks([])
    axis.set_yticks([])
