"""A momentum teacher: parameters that follow those of a student slowly (MoCo; ALBEF)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Momentum(nn.Module):
    """θ' ← β θ' + (1 - β) θ, from θ' = θ on.

    The copies are buffers: in the checkpoint, but neither trained nor penalised.

    Args:
        student: name to parameter θ.
        beta: β; at 1 the teacher never moves, at 0 it is the student.
    """

    def __init__(self, student: Mapping[str, Tensor], beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.names = [*student]
        for name, parameter in student.items():
            self.register_buffer(_key(name), parameter.detach().clone())

    def tensors(self) -> dict[str, Tensor]:
        """θ' by the student's names."""
        return {name: self.get_buffer(_key(name)) for name in self.names}

    @torch.no_grad()
    def update(self, student: Mapping[str, Tensor]) -> None:
        """One step towards the student.

        Args:
            student: as at the beginning; other names are not looked at.
        """
        for name, own in self.tensors().items():
            own.lerp_(student[name].detach(), 1 - self.beta)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name has no dots
