"""How well labels of the next event are predicted, beside what needs no model.

One label an event: accuracy, macro-F1, AUROC and negative log-likelihood. Several: hit@1 (the label
ranked first holds), recall@3, label-ranking average precision, and average precision over labels.
Means over labels take those that occur among the targets.

The same is said of two predictors: `majority`, which gives every target the shares of the labels in
training, and `last`, which repeats the labels of the event before (and goes by the shares where
that has none, or to break ties). The former has a likelihood, the latter only a choice.
"""

from math import isnan

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_f1_score,
)
from torchmetrics.utilities import dim_zero_cat

SMALLEST = 1e-12
"""Probabilities below it count as this in a logarithm."""


class IntentScore(Metric):
    """The measures of one intent over all targets, gathered over batches and processes.

    Args:
        n_labels: d.
        single: whether an event has one label.
    """

    full_state_update = False
    cells: list[Tensor]
    frequencies: Tensor

    def __init__(self, n_labels: int, single: bool) -> None:
        super().__init__()
        self.n_labels = n_labels
        self.single = single
        self.frequencies = torch.full((n_labels,), 1 / n_labels)
        # flat, of one type: a process without targets then gathers as the others do
        self.add_state("cells", [], dist_reduce_fx="cat")

    def update(self, shares: Tensor, truth: Tensor, last: Tensor, tied: Tensor) -> None:
        """Add a batch.

        Args:
            shares: (B, d) what the model predicts, in [0, 1].
            truth: (B,) int64 label, -1 for none; or (B, d) bool.
            last: the same of the event before.
            tied: (B,) bool, whether the target has the time of the event before.
        """
        columns = [shares, self._held(truth), self._held(last), tied[:, None]]
        self.cells.append(torch.cat([column.float() for column in columns], 1).flatten())

    def compute(self) -> dict[str, float]:
        """Measures by name; `_majority` and `_last` are those of the two simple predictors.

        `_untied`, of each of the three, is over targets whose time is not that of the event before;
        only where some are. Empty where no target has a label.
        """
        d = self.n_labels
        table = dim_zero_cat(self.cells).view(-1, 3 * d + 1).cpu()
        table = table[table[:, d : 2 * d].any(1)]
        if not len(table):
            return {}
        shares, truth, last, tied = torch.split(table, [d, d, d, 1], 1)
        frequencies = self.frequencies.to(shares).expand_as(shares)
        predictors = {"": shares, "_majority": frequencies, "_last": (last + frequencies) / 2}
        untied = tied[:, 0] == 0
        parts = {"": torch.ones_like(untied)}
        if 0 < int(untied.sum()) < len(table):
            parts["_untied"] = untied
        found = {"targets": float(len(table))}
        for predictor, scores in predictors.items():
            for part, rows in parts.items():
                measures = self._measures(scores[rows], truth[rows], likely=predictor != "_last")
                found |= {f"{name}{predictor}{part}": value for name, value in measures.items()}
        return found

    def _held(self, labels: Tensor) -> Tensor:
        """(B,) labels as (B, d) 0 or 1; no label is a row of 0."""
        if labels.dim() == 2:
            return labels
        return labels[:, None] == torch.arange(self.n_labels, device=labels.device)

    def _measures(self, scores: Tensor, truth: Tensor, likely: bool) -> dict[str, float]:
        """Measures of scores (T, d); `likely`: they are probabilities."""
        if not self.single:
            return multi_decisions(scores, truth)
        found = single_decisions(scores, truth)
        if not isnan(area := mean_auroc(scores, truth)):
            found["auroc"] = area
        if likely:
            found["nll"] = float(-(scores * truth).sum(1).clamp(min=SMALLEST).log().mean())
        return found


def single_decisions(scores: Tensor, truth: Tensor) -> dict[str, float]:
    """Accuracy, and macro-F1 over labels that occur.

    Args:
        scores: (T, d).
        truth: (T, d), one 1 a row.
    """
    d = truth.shape[1]
    chosen, label = scores.argmax(1), truth.argmax(1)
    if d == 1:
        return {"accuracy": 1.0, "macro_f1": 1.0}
    f1 = multiclass_f1_score(chosen, label, num_classes=d, average="none")
    return {
        "accuracy": float(multiclass_accuracy(chosen, label, num_classes=d, average="micro")),
        "macro_f1": float(f1[truth.any(0)].mean()),
    }


def multi_decisions(scores: Tensor, truth: Tensor) -> dict[str, float]:
    """hit@1, recall@3, label-ranking average precision, average precision over labels that occur.

    Args:
        scores: (T, d) in [0, 1].
        truth: (T, d) 0 or 1, at least one 1 a row.
    """
    order = scores.argsort(stable=True, dim=1, descending=True)
    ranked = truth.gather(1, order)
    occurs = truth.any(0)
    return {
        "hit@1": float(ranked[:, 0].mean()),
        "recall@3": float((ranked[:, :3].sum(1) / truth.sum(1)).mean()),
        "label_ranking_average_precision": ranking_precision(scores, truth),
        "average_precision": ranking_precision(scores.T[occurs], truth.T[occurs]),
    }


def ranking_precision(scores: Tensor, truth: Tensor) -> float:
    """Of what ranks as high as something true, the share that is true.

    Mean over what is true in a row, then over rows; a rank counts all that score as much or more.
    With a row a target: label-ranking average precision. With a row a label: average precision,
    mean over labels. torchmetrics has both, in loops over rows.

    Args:
        scores: (R, C).
        truth: (R, C) 0 or 1, at least one 1 a row.
    """
    falling, order = (-scores).sort(1)
    ranks = torch.searchsorted(falling, falling, right=True)
    held = truth.gather(1, order)
    higher = held.cumsum(1).gather(1, ranks - 1)
    return float((held * higher / ranks).sum(1).div(truth.sum(1)).mean())


def mean_auroc(scores: Tensor, truth: Tensor) -> float:
    """One label against the rest, mean over labels that some targets have and some have not.

    Returns:
        NaN where there is no such label.
    """
    count = truth.sum(0)
    told = ((count > 0) & (count < len(truth))).nonzero().flatten().tolist()
    areas = [binary_auroc(scores[:, label], truth[:, label].long()) for label in told]
    return float(torch.stack(areas).mean()) if areas else float("nan")
