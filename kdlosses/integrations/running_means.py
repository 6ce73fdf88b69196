"""Means of named scalars that stay on their device until somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class RunningMeans:
    """Running means of named scalars since the last `take`; adding waits for nothing, so it may be done in every step.

    Example:
        >>> import torch
        >>> from kdlosses.integrations.running_means import RunningMeans
        >>> means = RunningMeans()
        >>> means.add({"loss": torch.tensor(1.0)})
        >>> means.add({"loss": torch.tensor(4.0)}, weight=2.0)
        >>> means.take()
        {'loss': 3.0}
        >>> means.take()
        {}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weight = 0.0

    def add(self, values: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Count ``values``, 0-d tensors, with ``weight``."""
        for name, value in values.items():
            added = weight * value.detach().float()
            self._sums[name] = self._sums[name] + added if name in self._sums else added
        self._weight += weight

    def take(self, mean_of: Callable[[Tensor], Tensor] = lambda means: means) -> dict[str, float]:
        """The means, and begin anew; the one place that waits for the device.

        Args:
            mean_of: takes the means ``[number of names]`` of this process to those of all.
        """
        if not self._sums:
            return {}
        names, means = list(self._sums), torch.stack(list(self._sums.values())) / self._weight
        self._sums, self._weight = {}, 0.0
        return dict(zip(names, mean_of(means).tolist(), strict=True))
