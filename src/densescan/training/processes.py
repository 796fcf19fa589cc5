"""The processes that share a run, and the device of this one: all that is known of accelerate."""

import atexit
from collections.abc import Iterable, Mapping
from datetime import timedelta

import torch
from torch import Tensor, nn

from densescan.sparse.memory import keep_freed

TIMEOUT = timedelta(hours=2)
"""How long processes wait for one another: the main one may be validating or writing a checkpoint."""


class Processes:
    """What launched this process decides: one alone, or several by `torchrun` or `accelerate launch`, on any nodes.

    Every method but `main`, `index` and `count` must be called by all processes alike, in the same order.

    Args: cpu: compute on the processor even where there is a GPU. The first call in a process decides.
    """

    def __init__(self, cpu: bool = False) -> None:
        # Here, for other commands need not wait for it; it has no types.
        from accelerate import PartialState  # type: ignore[import-untyped]
        from accelerate.utils import InitProcessGroupKwargs  # type: ignore[import-untyped]

        state = PartialState(cpu=cpu, **InitProcessGroupKwargs(timeout=TIMEOUT).to_kwargs())
        self.index: int = state.process_index
        self.count: int = state.num_processes
        on_gpu = state.device.type == "cuda" and not cpu
        self.device: torch.device = state.device if on_gpu else torch.device("cpu")
        if not on_gpu:
            keep_freed()
        if self.count > 1:
            atexit.register(state.destroy_process_group)  # its threads would abort an interpreter that ends

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.index == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes of tensors of one shape; bit-equal in all of them."""
        if self.count == 1:
            return tensor
        from accelerate.utils import reduce

        total: Tensor = reduce(tensor, "sum")
        return total

    def sum_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sum over processes of figures of the same names."""
        if self.count == 1:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        return dict(zip(figures, self.sum(values).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised in any process."""
        return self.sum_figures({"flag": float(flag)})["flag"] > 0

    def agree(self, value: int) -> bool:
        """Whether all processes give the same whole number."""
        values = {str(i): float(value) if i == self.index else 0.0 for i in range(self.count)}
        return len(set(self.sum_figures(values).values())) == 1

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self.any(False)

    @torch.no_grad()
    def share(self, nets: Iterable[nn.Module]) -> None:
        """Give all processes the main one's parameters and buffers."""
        if self.count > 1:
            from accelerate.utils import broadcast

            for net in nets:
                for tensor in (*net.parameters(), *net.buffers()):
                    tensor.copy_(broadcast(tensor.detach().clone(), from_process=0))

    @torch.no_grad()
    def average_buffers(self, nets: Iterable[nn.Module]) -> None:
        """Average the buffers of real numbers: running statistics that each process moved by its own crops."""
        if self.count > 1:
            for net in nets:
                for buffer in net.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self.sum(buffer) / self.count)
