"""What a run asks of the processes that compute it together; one process alone has nothing to ask of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


class Processes(Protocol):
    """The processes of a run, as one of them sees them.

    Each makes a share of every step; weights and all that follows from them are the same in each. The methods that
    exchange something must be called by all of them, in the same order.

    Attributes:
        rank: the number of this one, 0 .. ``world_size`` - 1.
        world_size: how many there are.
    """

    rank: int
    world_size: int

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and tells of the run: that of rank 0."""
        return self.rank == 0

    def threads(self, asked: int) -> int:
        """CPU threads that each shall compute with, where the settings ask for ``asked``; 0: as many as it does."""
        ...

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """Those of ``things`` that this one works at: as many for each, give or take one."""
        return things[self.rank :: self.world_size]

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Makes each gradient the sum over all processes, in one exchange; a parameter without one counts as zeros.

        One that has a gradient in none of them has none afterwards.

        Returns:
            The sum of ``loss``, a float32 scalar on the device of the parameters.
        """
        ...

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of them."""
        ...

    def from_main(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the process of rank 0, and only there it is called."""
        ...

    def gathered(self, value: T) -> list[T]:
        """What each of them has, by rank."""
        ...


class OneProcess(Processes):
    """A run that is computed by this process alone."""

    rank, world_size = 0, 1

    def threads(self, asked: int) -> int:
        return asked

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        return loss

    def any(self, flag: bool) -> bool:
        return flag

    def from_main(self, make: Callable[[], T]) -> T:
        return make()

    def gathered(self, value: T) -> list[T]:
        return [value]


ALONE = OneProcess()
