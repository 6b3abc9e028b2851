"""What do the intents of a trained IGR-SR hold, how stable are they, and are they used?

    python benchmarks/studies/intent_probes.py runs/synthetic/igr_sr/<trial> [--baseline TRIAL]
        [--users 4000] [--data-root DIR] [--out probes.json]

At every test query, T_D are the m projected intents of the input, of width D. Measured are

- probes: accuracy of logistic regression from [T_D] to the category that the user has most of, that
  of the next item, the quintile of the mean price, and on synthetic data what was planted, beside
  the same regression on other vectors: the mean of the m intents (which is as wide as a state), the
  method's own state, the last state of the encoder inside it and of a baseline, noise as wide as
  [T_D], a constant (all that `intents: free` can tell: the most frequent class), and on [T_D] with
  the labels shuffled. Five folds of users; the penalty is chosen on another fold than the one that
  is judged; classes of fewer than 10 queries, or beyond the 20 most frequent, are left out;
- agreement: NMI and ARI of the intent that the last item looks at most with the same labels;
- diversity: mean pairwise cosine and effective rank (centred: 1 to m - 1) of the m intents of one
  input, and of [T_D] over all inputs;
- stability: cosine of [T_D] with itself after 10, 20 and 30 % of the inputs (rounded by chance) are
  swapped for items that the user does not have, and that of the states; also with the mean over all
  inputs taken away, as vectors that share a large constant part look stable whatever they hold;
- use: what ranking loses when T_D is that of another user, the mean over all queries, or zeros. In
  layout "all" each item has intents of its own; here all have those of the whole input.

± is the standard error of the mean difference over queries.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from linear_probes import SEED, Floats, Ints, compare, find_labels, run_probes
from torch import Tensor

from datamodules.errors import RequestError
from datamodules.noise import Noise, perturb
from datamodules.prepared import PreparedDataset
from datamodules.sequence import SequenceDataModule
from datamodules.types import EvaluationBatch
from intentbench.metrics.formulas import compute_metric
from intentbench.metrics.geometry import EPSILON, effective_rank, mean_pairwise_cosine
from intentbench.metrics.intent import ari, nmi
from intentbench.metrics.ranks import ranks_from_scores
from intentbench.models.base import Recommender
from intentbench.models.igr_sr import IGRSR
from intentbench.results.store import CHECKPOINT
from intentbench.runner.intents import spread_users
from intentbench.runner.recommend import load_trained

RATES = (0.1, 0.2, 0.3)
METRICS = ("hit_rate@10", "ndcg@10")
SAME = "same intent chosen"


class Reading(NamedTuple):
    """What stands at the Q test queries, in the order of the data module.

    Attributes:
        users: (Q,).
        keys: (Q,) position of the target among the user's events.
        intents: (Q, m, D) T_D.
        states: (Q, width) by name: "state" of the method, "encoder state" of what is inside it.
        chosen: (Q,) the intent that the last item looks at most; None without cross-attention.
    """

    users: Ints
    keys: Ints
    intents: Floats
    states: dict[str, Floats]
    chosen: Ints | None

    def sources(self) -> dict[str, Floats]:
        """All vectors (Q, …) by name."""
        joined = self.intents.reshape(len(self.intents), -1)
        return {"intents": joined, "mean intent": self.intents.mean(1), **self.states}


@torch.no_grad()
def read(model: IGRSR, data: SequenceDataModule) -> Reading:
    """Intents and states at the test queries."""
    parts: list[dict[str, Tensor]] = []
    for batch in data.test_dataloader():
        # the encoder's query may have a factor more, which carries biases
        inside = model.base.encode(batch)[:, : model.reader.table.shape[1]]
        for i, j, width in batch.groups:
            items, lengths = batch.items[i:j, :width], batch.lengths[i:j]
            intents = model._intents(items, lengths)
            if intents is None:
                raise RequestError("fusion 'none' has no intents; nothing to probe")
            shown = intents if model.layout == "prefix" else model._intents(items, None)
            states, weights = model.reasoner(items, shown, (lengths - 1).clamp(min=0))
            part = {"users": batch.users[i:j], "keys": batch.key[i:j], "intents": intents}
            part |= {"state": states[:, 0], "encoder state": inside[i:j]}
            if weights is not None:  # (layers, b, heads, 1, m)
                part["chosen"] = weights.mean((0, 2))[:, 0].argmax(1)
            parts.append(part)
    joined = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    states = {name: joined[name] for name in ("state", "encoder state")}
    columns = (joined["users"], joined["keys"], joined["intents"])
    return Reading(*columns, states, joined.get("chosen"))


@torch.no_grad()
def read_baseline(model: Recommender, data: SequenceDataModule, reading: Reading) -> Floats:
    """The queries (Q, width) of another method at the same targets."""
    batches = list(data.test_dataloader())
    users, keys = (torch.cat([getattr(b, name) for b in batches]) for name in ("users", "key"))
    if users.tolist() != reading.users.tolist() or keys.tolist() != reading.keys.tolist():
        raise RequestError("the baseline has other test targets")
    vectors: Floats = torch.cat([model.encode(batch) for batch in batches]).numpy()
    return vectors


def measure_agreement(chosen: Ints, labels: Mapping[str, Ints]) -> dict[str, Any]:
    """NMI and ARI of the chosen intents (Q,) with labels, and how far the choice is one."""
    share = np.bincount(chosen) / len(chosen)
    found: dict[str, Any] = {"used": int((share > 0).sum()), "largest share": float(share.max())}
    for name, label in labels.items():
        if (real := label >= 0).any():
            pair = (chosen[real], label[real])
            found[name] = {"nmi": nmi(*pair), "ari": ari(*pair)}
    return found


def measure_diversity(intents: Floats) -> dict[str, float]:
    """Of intents (Q, m, D): likeness within an input, and of inputs."""
    joined = intents.reshape(len(intents), -1)
    return {
        "cosine within an input": float(np.mean([mean_pairwise_cosine(row) for row in intents])),
        "rank within an input": float(np.mean([effective_rank(row) for row in intents])),
        "cosine over inputs": mean_pairwise_cosine(joined),
        "rank over inputs": effective_rank(joined),
    }


def mean_cosines(clean: Floats, noisy: Floats) -> list[float]:
    """Mean cosine of rows (Q, D) of both, as they are and less the mean of the clean ones."""
    return [_cosine(clean, noisy), _cosine(clean - clean.mean(0), noisy - clean.mean(0))]


def _cosine(first: Floats, second: Floats) -> float:
    """Mean over rows; 1 where both are zero, as are constant vectors less their mean."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    same = np.abs(first - second).max(1) < EPSILON
    return float(np.where(same, 1, (first * second).sum(1) / np.maximum(lengths, EPSILON)).mean())


def measure_stability(
    model: IGRSR,
    data: SequenceDataModule,
    clean: Reading,
    baseline: tuple[Recommender, SequenceDataModule] | None = None,
) -> dict[str, Any]:
    """Cosines of what stands at the queries before and after noise, by rate and source."""
    found: dict[str, Any] = {}
    for rate in RATES:
        noisy, share = perturb(data.dataset, Noise("swap", rate, "stochastic", SEED))
        after = read(model, with_dataset(data, noisy))
        if baseline:
            vectors = read_baseline(baseline[0], with_dataset(baseline[1], noisy), clean)
            after.states["baseline state"] = vectors
        pairs = zip(clean.sources().items(), after.sources().values(), strict=True)
        cosines = {name: mean_cosines(first, second) for (name, first), second in pairs}
        found[f"{rate:g}"] = {"inputs touched": share, "cosine, centred": cosines}
        if clean.chosen is not None and after.chosen is not None:
            found[f"{rate:g}"][SAME] = float((clean.chosen == after.chosen).mean())
    return found


def with_dataset(data: SequenceDataModule, dataset: PreparedDataset) -> SequenceDataModule:
    """The same test batches of another dataset."""
    return SequenceDataModule(
        dataset,
        window=data.window,
        evaluation_batch_size=data.evaluation_batch_size,
        mask_history=data.mask_history,
        pad_to_window=data.pad_to_window,
    )


def choose_others(users: Ints) -> Ints:
    """(Q,) a row of another user for each row, each row once, if no user has over half of all."""
    names, user, times = np.unique(users, return_inverse=True, return_counts=True)
    order = np.argsort(np.random.default_rng(SEED).permutation(len(names))[user], kind="stable")
    others = np.empty_like(order)
    others[order] = np.roll(order, times.max())
    return others


@torch.no_grad()
def measure_use(model: IGRSR, data: SequenceDataModule, reading: Reading) -> dict[str, Any]:
    """Ranking metrics as trained and with other intents, and what is lost of "own"."""
    own = torch.from_numpy(reading.intents)
    given = {
        "own": own,
        "another user's": own[torch.from_numpy(choose_others(reading.users))],
        "mean": own.mean(0).expand_as(own),
        "zeros": torch.zeros_like(own),
    }
    ranks: dict[str, list[Tensor]] = {name: [] for name in ("as trained", *given)}
    done = 0
    for batch in data.test_dataloader():
        rows = slice(done, done := done + len(batch.users))
        scores = {name: _score(model, batch, intents[rows]) for name, intents in given.items()}
        for name, score in {"as trained": model.score(batch), **scores}.items():
            ranks[name].append(ranks_from_scores(score, batch.target, batch.masked))
    found: dict[str, Any] = {name: {} for name in ranks}
    for metric in METRICS:
        values = {n: compute_metric(metric, torch.cat(parts).numpy()) for n, parts in ranks.items()}
        for name, value in values.items():
            found[name][metric] = float(value.mean())
            found[name][f"{metric}, less own"] = compare(value, values["own"])
    return found


def _score(model: IGRSR, batch: EvaluationBatch, intents: Tensor) -> Tensor:
    """Scores (B, V + 1) of a batch whose rows have these intents (B, m, D)."""
    states = torch.cat(
        [
            model.reasoner(
                batch.items[i:j, :width], intents[i:j], (batch.lengths[i:j] - 1).clamp(min=0)
            ).states[:, 0]
            for i, j, width in batch.groups
        ]
    )
    return states @ model.item_table().T


# The script -----------------------------------------------------------------------------------


def study(
    model: IGRSR,
    data: SequenceDataModule,
    baseline: tuple[Recommender, SequenceDataModule] | None = None,
    probed: int | None = None,
) -> dict[str, Any]:
    """Everything of the module's docstring.

    Args:
        model: in evaluation mode.
        data: whose test queries are read.
        baseline: another method and its data module of the same dataset.
        probed: queries that probes are made of, spread evenly; None: all.
    """
    reading = read(model, data)
    if baseline:
        reading.states["baseline state"] = read_baseline(*baseline, reading)
    labels = find_labels(data.dataset, reading.users, reading.keys)
    rows = spread_users(len(reading.users), probed)
    sources = {name: vectors[rows] for name, vectors in reading.sources().items()}
    found: dict[str, Any] = {"queries": len(reading.users), "encoder": type(model.base).__name__}
    some = {name: label[rows] for name, label in labels.items()}
    found["probes"] = run_probes(sources, some, reading.users[rows])
    if reading.chosen is not None:
        found["agreement"] = measure_agreement(reading.chosen, labels)
    found["diversity"] = measure_diversity(reading.intents)
    try:
        found["stability"] = measure_stability(model, data, reading, baseline)
    except RequestError as error:  # queries that are inputs of each other
        found["stability"] = {"refused": str(error)}
    found["use"] = measure_use(model, data, reading)
    return found


def print_study(found: Mapping[str, Any]) -> None:
    """The tables of the docstring, one a measure."""
    for name, cell in found["probes"].items():
        print(f"\nprobe: {name} ({cell['queries']} queries, {cell['classes']} classes)")
        for source, accuracy in cell["accuracy"].items():
            gap, error = cell["difference"].get(source, (None, None))
            shown = "" if gap is None else f"  {gap:+.4f} ± {error:.4f} to the encoder's state"
            print(f"  {source:20}{accuracy:8.4f}{shown}")
    for name, value in found.get("agreement", {}).items():
        if name == "used":
            print("\nagreement of the intent that the last item looks at most")
        both = isinstance(value, dict)
        shown = f"NMI {value['nmi']:7.4f}  ARI {value['ari']:7.4f}" if both else f"{value:11.4g}"
        print(f"  {name:20}{shown}")
    print("\ndiversity")
    for name, value in found["diversity"].items():
        print(f"  {name:24}{value:8.4f}")
    print("\nstability: cosine, and less the mean of all inputs")
    for rate, cell in found["stability"].items():
        if rate == "refused":
            print(f"  {cell}")
            continue
        same = f", same intent chosen {cell[SAME]:.4f}" if SAME in cell else ""
        print(f"  swap {rate}: {cell['inputs touched']:.4f} of the inputs{same}")
        for source, (plain, centred) in cell["cosine, centred"].items():
            print(f"    {source:20}{plain:8.4f}{centred:9.4f}")
    print("\nuse: " + ", ".join(METRICS) + ", each with its difference from own")
    for name, cell in found["use"].items():
        shown = ""
        for metric in METRICS:
            gap, error = cell[f"{metric}, less own"]
            shown += f"{cell[metric]:10.4f} ({gap:+.4f} ± {error:.4f})"
        print(f"  {name:15}{shown}")


def main() -> None:
    """Load a trial, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished trial of IGR-SR")
    parser.add_argument("--baseline", type=Path, help="folder of a trial of another method")
    parser.add_argument("--users", type=int, default=4000, help="queries probed, spread evenly")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file of all numbers")
    options = parser.parse_args()
    model, data = load_trained(options.run / CHECKPOINT, options.data_root)
    if not isinstance(model, IGRSR):
        raise SystemExit(f"{options.run}: a trial of {type(model).__name__}, not of IGR-SR")
    baseline = None
    if options.baseline:
        baseline = load_trained(options.baseline / CHECKPOINT, options.data_root)
    try:
        found = study(model, data, baseline, options.users)
    except RequestError as error:
        raise SystemExit(f"{options.run}: {error}") from None
    found = {"run": str(options.run), "baseline": str(options.baseline or ""), **found}
    print(f"{data.dataset.meta.name}: {found['queries']} queries, encoder {found['encoder']}")
    print_study(found)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
