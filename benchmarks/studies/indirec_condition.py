"""Does InDiRec's condition matter? Squared error of the denoiser under four signals.

    python benchmarks/studies/indirec_condition.py RUN [RUN …] [--users 4000]

RUN is the folder of a finished trial. For the prefixes of the chosen users, the mean over all
steps of ‖x_0 - f(x_t, s, t)‖² with s the row's own signal (a member of its cluster, as the method
retrieves it), that of another row, the learned "nothing" Φ, or the row's own state; beside the
error of predicting the mean item.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from datamodules.errors import RequestError
from intentbench.models.indirec import InDiRec
from intentbench.models.indirec_clusters import InDiRecClusters
from intentbench.results.store import CHECKPOINT
from intentbench.runner.recommend import load_trained


@torch.no_grad()
def measure(model: InDiRec, chosen: Tensor) -> dict[str, float]:
    """Mean squared error by signal, over the prefixes `chosen` (n,) and all steps."""
    members, diffusion = model.members, model.diffusion
    prefixes = members.prefixes
    generator = torch.Generator().manual_seed(0)
    clusters = members.labels[chosen]
    if model.retrieval == "batch":  # as in training: one cluster for 256 rows
        first = torch.arange(len(chosen)) // 256 * 256
        clusters = clusters[torch.randperm(len(chosen), generator=generator)][first]
    noise = torch.rand(len(chosen), generator=generator, dtype=torch.float64)
    own = members.draw(clusters, chosen, noise)
    states = prefixes.encode_all(model.encoder)
    signal, clean = states[own], model.item_table()[prefixes.target[chosen]]
    signals = {
        "own": signal,
        "another row's": signal[torch.randperm(len(own), generator=generator)],
        "nothing": diffusion.denoiser.nothing.expand_as(signal),
        "own state": states[chosen],
    }
    errors = dict.fromkeys(signals, 0.0)
    for step in range(1, diffusion.process.steps + 1):
        steps = torch.full_like(chosen, step)
        noisy = diffusion.process.diffuse(
            clean, steps, torch.randn(clean.shape, generator=generator)
        )
        for name, given in signals.items():
            error = mse_loss(diffusion.denoiser(noisy, given, steps), clean)
            errors[name] += float(error) / diffusion.process.steps
    return errors | {"mean item": float(mse_loss(clean.mean(0).expand_as(clean), clean))}


@torch.no_grad()
def load_clusters(run: Path, data_root: Path | None) -> InDiRec:
    """A trained InDiRec with the clusters of its last epoch.

    Raises:
        RequestError: it is no trial of InDiRec, or its clusters are those of its first epoch.
    """
    model, data = load_trained(run / CHECKPOINT, data_root)
    if not isinstance(model, InDiRec):
        raise RequestError(f"{run}: a trial of {type(model).__name__}, not of InDiRec")
    if isinstance(model, InDiRecClusters):
        if model.members.clustering == "frozen":
            raise RequestError(f"{run}: clusters of its first epoch, which are not kept")
        model.take(data.dataset)
    model.prepare(data.training())
    model.on_epoch()
    return model


def main() -> None:
    """Load each trial, fit its clusters, print the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folder of a finished trial of InDiRec")
    parser.add_argument("--users", type=int, default=4000, help="at most, spread evenly over all")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    for run in options.runs:
        try:
            model = load_clusters(run, options.data_root)
        except RequestError as error:
            raise SystemExit(str(error)) from None
        users = model.members.prefixes.users
        known = users.unique()
        some = known[torch.linspace(0, len(known) - 1, min(options.users, len(known))).long()]
        chosen = torch.isin(users, some).nonzero().squeeze(1)
        count = int(model.members.labels.max()) + 1
        print(f"{run}: {len(chosen)} prefixes of {len(some)} users, {count} clusters")
        errors = measure(model, chosen)
        for name, error in errors.items():
            saved = 1 - error / errors["another row's"]
            print(f"  {name:15}{error:10.5f}  {100 * saved:+6.1f} % less than another row's")


if __name__ == "__main__":
    main()
