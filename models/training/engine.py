"""Where and how training steps run: Lightning Fabric's device, precision and processes behind a few verbs.

Networks are not wrapped for data parallelism: a step applies one generator several times through several of
its methods, which the hooks of ``DistributedDataParallel`` do not allow. Each process computes the gradients
of its own pictures instead, and ``minimise`` averages them over the processes before the optimiser's step, so
that all hold the same weights after it.

What was run: one process on the CPU, and two processes on the CPU (gloo). Not run for want of hardware: one
GPU, several GPUs, and ``bf16-mixed`` on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class EngineConfig:
    """Where training runs and how it calculates.

    Attributes:
        accelerator: What calculates; ``auto`` takes a GPU where there is one.
        devices: Devices, one process each; each draws pictures of its own, so the batch grows by this factor.
        precision: Arithmetic: 32-bit floats, or bfloat16 where that is safe and 32 bits elsewhere.
        threads: CPU threads; one is best where other programs are busy.

    Raises:
        ValueError: ``devices`` or ``threads`` is below 1.
    """

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int = 2

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        for name in ("devices", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")


class Engine:
    """Runs optimiser steps on a device; with several devices, in one of their processes.

    Args:
        config: Settings. ``threads`` is the command's business: it is a property of the whole process.

    Attributes:
        config: Settings.
        device: Where networks and pictures go.
        rank: Number of this process, from 0.
        world: Number of processes.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        from lightning_fabric import Fabric  # takes seconds to import, and --help must not wait for it

        self.config = config or EngineConfig()
        several = self.config.devices > 1
        self._fabric = Fabric(
            accelerator=self.config.accelerator,
            devices=self.config.devices,
            precision=self.config.precision,
            strategy="ddp" if several else "auto",
        )
        if several:
            self._fabric.launch()
        self.device: torch.device = self._fabric.device
        self.rank: int = self._fabric.global_rank
        self.world: int = self._fabric.world_size

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files: rank 0."""
        return self.rank == 0

    def seed(self, *parts: int) -> tuple[int, ...]:
        """Seed of something random that differs by process; rank 0 has that of a run in one process."""
        return (*parts, self.rank) if self.rank else parts

    def adopt(self, module: Module) -> Module:
        """Move a network to the device, with the weights that rank 0 has."""
        moved = module.to(self.device)
        if self.world > 1:
            for value in moved.state_dict().values():
                value.copy_(self._fabric.broadcast(value, src=0))
        return moved

    def optimiser(self, optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Let the engine do an optimiser's steps."""
        return cast(torch.optim.Optimizer, self._fabric.setup_optimizers(optimiser))

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which losses are computed, for ``bf16-mixed``."""
        found: AbstractContextManager[Any] = self._fabric.autocast()
        return found

    def minimise(self, loss: Tensor, optimiser: torch.optim.Optimizer, clip: float = 0.0) -> None:
        """One step of an optimiser against the gradient of ``loss``, averaged over the processes.

        Args:
            loss: Scalar.
            optimiser: From ``optimiser``.
            clip: Largest L2 norm of the whole gradient; 0 clips nothing.
        """
        optimiser.zero_grad()
        self._fabric.backward(loss)
        parameters = [each for group in optimiser.param_groups for each in group["params"]]
        if self.world > 1:
            self._average_gradients(parameters)
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimiser.step()

    def _average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """One message with all gradients: a step has hundreds of small ones."""
        gradients = [each.grad for each in parameters if each.grad is not None]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        mean = cast(Tensor, self._fabric.all_reduce(whole, reduce_op="mean"))
        parts = torch.split_with_sizes(mean, [each.numel() for each in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def averaged(self, terms: dict[str, float]) -> dict[str, float]:
        """Measurements averaged over the processes, so that all of them decide alike."""
        if self.world == 1:
            return terms
        values = torch.tensor(list(terms.values()), dtype=torch.float64, device=self.device)
        mean = cast(Tensor, self._fabric.all_reduce(values, reduce_op="mean"))
        return dict(zip(terms, mean.tolist(), strict=True))

    def barrier(self) -> None:
        """Wait for the other processes."""
        self._fabric.barrier()

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Write a checkpoint atomically: a kill leaves the old or the new one. Rank 0 writes, all wait."""
        if self.writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(path.suffix + ".partial")
            torch.save(state, temporary)
            temporary.replace(path)
        if self.world > 1:
            self.barrier()

    def load(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint onto the device; it may hold tensors, numbers, text and containers of them."""
        found: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        return found
