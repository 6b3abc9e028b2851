"""Do InDiRec's generated views keep the intent of their source?

    python benchmarks/studies/view_alignment.py RUN [RUN …] [--users 5000] [--picture views.svg]

RUN is the folder of a finished trial of InDiRec that generates views of single items. For test
queries, spread evenly over all, a view is generated under the centroid nearest to the query's
state, as `intentbench intents` does. Printed are the share of views whose nearest centroid is that
one, by distance and by angle (an item's vector and a state need not be as long), beside chance,
Σ_k π_k² with π_k the share of queries in cluster k; the mean cosine of a view with its own state,
with another query's, with its centroid, and with another's; and mean lengths. The picture has
states and views of the first RUN, each of length 1, by t-SNE, coloured by the source's cluster.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from datamodules.errors import RequestError
from datamodules.sequence import SequenceDataModule
from intentbench.models.indirec import InDiRec
from intentbench.results.store import CHECKPOINT
from intentbench.runner.recommend import load_trained

SEED = 0


@torch.no_grad()
def generate_views(
    model: InDiRec, data: SequenceDataModule, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """States (Q, D) of test queries, the number (Q,) of their cluster, and views (Q, D).

    Args:
        model: trained.
        data: what it was trained on.
        count: queries at most.

    Raises:
        RequestError: it generates no views of single items, or has no centroids.
    """
    if model.diffusion_target == "sequence" or model.second_view != "generated":
        raise RequestError("generates no views of single items")
    if not model.lambda_diff or not model.members.kmeans.fitted:
        raise RequestError("has no denoiser or no centroids; give a trial with both")
    states = torch.cat([model.encode(batch) for batch in data.test_dataloader()])
    states = states[torch.linspace(0, len(states) - 1, min(count, len(states))).long()]
    nearest = model.members.kmeans.assign(states)
    torch.manual_seed(SEED)
    return states, nearest, model.diffusion.generate(model.members.kmeans.centroids[nearest])


def measure(states: Tensor, nearest: Tensor, views: Tensor, centroids: Tensor) -> dict[str, float]:
    """What is printed, by name.

    Args:
        states: (Q, D).
        nearest: (Q,) the cluster of each.
        views: (Q, D).
        centroids: (K, D).
    """
    share = torch.bincount(nearest, minlength=len(centroids)) / len(nearest)
    other = torch.randperm(len(states), generator=torch.Generator().manual_seed(SEED))
    own = centroids[nearest]
    angles = normalize(views, dim=1) @ normalize(centroids, dim=1).T
    return {
        "same cluster": float((torch.cdist(views, centroids).argmin(1) == nearest).float().mean()),
        "same by angle": float((angles.argmax(1) == nearest).float().mean()),
        "by chance": float(share.square().sum()),
        "cosine with own state": float(cosine_similarity(views, states).mean()),
        "with another's state": float(cosine_similarity(views, states[other]).mean()),
        "with own centroid": float(cosine_similarity(views, own).mean()),
        "with another's centroid": float(cosine_similarity(views, own[other]).mean()),
        "length of a view": float(views.norm(dim=1).mean()),
        "length of a state": float(states.norm(dim=1).mean()),
    }


def draw_views(states: Tensor, nearest: Tensor, views: Tensor, place: Path) -> None:
    """Directions of states and views by t-SNE, side by side, coloured by the source's cluster."""
    both = normalize(torch.cat([states, views]), dim=1).numpy()
    points = TSNE(random_state=SEED, init="pca").fit_transform(both)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True, sharey=True)
    parts = points[: len(states)], points[len(states) :]
    titles = "states of test queries", "views generated for them"
    for panel, title, (across, up) in zip(axes, titles, (part.T for part in parts), strict=True):
        panel.scatter(across, up, c=nearest.numpy(), cmap="tab20", s=5, linewidths=0)
        panel.set(title=title, xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(place)
    plt.close(figure)


def main() -> None:
    """Load each trial, generate, print; draw the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folder of a finished trial of InDiRec")
    parser.add_argument("--users", type=int, default=5000, help="test queries at most")
    parser.add_argument("--picture", type=Path, help="draw the first trial into this file")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    for run in options.runs:
        try:
            model, data = load_trained(run / CHECKPOINT, options.data_root)
            if not isinstance(model, InDiRec):
                raise RequestError(f"a trial of {type(model).__name__}, not of InDiRec")
            states, nearest, views = generate_views(model, data, options.users)
        except RequestError as error:
            raise SystemExit(f"{run}: {error}") from None
        print(f"{run}: {len(states)} queries")
        for name, value in measure(states, nearest, views, model.members.kmeans.centroids).items():
            print(f"  {name:25}{value:8.4f}")
        if options.picture and run == options.runs[0]:
            draw_views(states, nearest, views, options.picture)


if __name__ == "__main__":
    main()
