"""What a loss on one process's part of a batch needs of the other processes' parts.

Processes share a batch, and their gradients are averaged. The strategy of the runner
(`intentbench.runner.distributed`) weights the loss of each process by its share of the targets,
which makes means over targets right. Everything else in a loss has to be the same on all
processes: terms between rows (contrasts) are computed on the rows of all of them, means over
anything but targets are pooled. As the weights of the processes sum to their number, the gradient
is then that of one process on the whole batch.

With one process every function here returns its argument, untouched.
"""

from collections.abc import Callable  # noqa: TC003  # as in the other files of this package
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_T = TypeVar("_T", bound="DataclassInstance")


def several() -> bool:
    """Whether this is one of several processes."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes, those of process 0 first; gradients reach every process.

    Args:
        rows: (R, …), R may differ between processes.

    Returns:
        (ΣR, …), the same on all processes.
    """
    if not several():
        return rows
    apply: Callable[[Tensor], Tensor] = _Gather.apply
    return apply(rows)


def gather_fields(parts: _T) -> _T:
    """A dataclass of tensors, each gathered."""
    if not several():
        return parts
    return replace(parts, **{f.name: gather(getattr(parts, f.name)) for f in fields(parts)})


def pool_mean(mean: Tensor, weight: Tensor | float) -> Tensor:
    """The mean over all processes of what each has the mean of.

    Args:
        mean: scalar, this process's.
        weight: how much stands behind it, such as a number of rows; may be 0 where the mean
            is finite.

    Returns:
        Σ weight · mean / Σ weight; its gradient reaches every process.
    """
    if not several():
        return mean
    if mean.dtype in (torch.bfloat16, torch.float16):
        mean = mean.float()
    weight = torch.as_tensor(weight, dtype=mean.dtype, device=mean.device)
    total = gather(weight[None]).sum().clamp(min=torch.finfo(mean.dtype).tiny)
    return gather((weight * mean)[None]).sum() / total


def widest(width: int, device: torch.device) -> int:
    """The largest width among the processes."""
    if not several():
        return width
    return int(gather(torch.tensor([width], device=device)).amax())


class _Gather(torch.autograd.Function):
    """Rows padded to the longest part, exchanged, and cut again; backward sums over processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        world, rank = distributed.get_world_size(), distributed.get_rank()
        size = torch.tensor([len(rows)], device=rows.device)
        sizes = [torch.empty_like(size) for _ in range(world)]
        distributed.all_gather(sizes, size)
        counts = torch.cat(sizes).tolist()
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(world)]
        distributed.all_gather(parts, padded)
        begin = sum(counts[:rank])
        ctx.own = slice(begin, begin + len(rows))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # it may have other users
        distributed.all_reduce(gradient)
        return gradient[ctx.own]
