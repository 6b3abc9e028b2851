"""Variants of methods whose loss has other terms than the tiny arguments give: for C16."""

from dataclasses import replace
from typing import Any

from intentbench.models.cl4srec import CL4SRec
from intentbench.models.idclrec import IDCLRec
from intentbench.models.igr_sr import IGRSR
from intentbench.models.indirec import InDiRec
from intentbench.models.rearec import ReaRec
from intentbench.models.sasrec import SASRec


def _with(card: Any, **changes: Any) -> Any:
    return replace(card, tiny={**card.tiny, **changes})


class SampledSASRec(SASRec):
    CARD = _with(SASRec.CARD, loss="bce1")
    divisible = True


class FlatCL4SRec(CL4SRec):
    """All states of a row are contrasted, and rows have several targets."""

    CARD = _with(CL4SRec.CARD, loss="bce1", layout="all", pool="flatten")
    divisible = True


class SequenceInDiRec(InDiRec):
    """Whole rows are diffused, and pairs of rows are left out of the contrast."""

    CARD = _with(InDiRec.CARD, diffusion_target="sequence", negatives_exclude="both")
    divisible = True


class RowIDCLRec(IDCLRec):
    """Rows have several targets; the adjustment is a mean over positions."""

    CARD = _with(IDCLRec.CARD, layout="all", lambda_d=0.5)
    divisible = True


class RowIGRSR(IGRSR):
    CARD = _with(IGRSR.CARD, layout="all")
    divisible = True


class ProgressiveReaRec(ReaRec):
    """Noisy states are contrasted with those of the other rows."""

    CARD = _with(ReaRec.CARD, variant="prl")
    divisible = True


class PlainCL4SRec(CL4SRec):
    """A parameter has no part in the loss."""

    CARD = _with(CL4SRec.CARD, contrast_weight=0.0)
    divisible = True


class Unweighted(SASRec):
    """Says that it can be shared, and cannot: a term is a mean over rows, which is not pooled."""

    CARD = _with(SASRec.CARD)
    divisible = True

    def loss(self, batch: Any) -> dict[str, Any]:
        total = super().loss(batch)["total"]
        longest = self.encoder.items(batch.items[:, 0]).square().sum(1).mean()
        return {"total": total + 10 * longest}
