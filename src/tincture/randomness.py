"""Random draws as pure functions of what they are for.

A run never carries the state of a random generator: every draw (noise, timestep, order of the pictures, dropped tags)
asks for a generator by `(seed, purpose, *counters)`, where the counters are, say, the step and the number of the
sample. So a resumed run draws what an uninterrupted one would, any number of processes draw the same numbers for the
same global batch, and a preview cannot disturb training.

Each tuple is hashed to the 128-bit key and the upper 192 bits of the counter of a Philox generator (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011). The lower 64 bits count the draws, so two streams never overlap.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tincture.errors import UsageError

LARGEST_SEED = 2**64 - 1
"""Of the seeds that torch's generators take."""
LARGEST_REQUESTED_SEED = 2**63 - 1
"""Of those that requests may give: many who read JSON know no larger whole numbers."""

# settings take a constant from here without loading numpy, and numbers for pictures are drawn without torch
if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """The stream of random numbers that belongs to `(seed, purpose, *counters)`, from its beginning.

    Args:
        seed: Any int, of any size and sign.
        purpose: What is drawn, such as "noise".
        counters: Any number of ints, such as step and sample; `(1,)` and `(1, 0)` are different streams.
    """
    import numpy as np

    words = np.frombuffer(_digest(40, seed, purpose, counters), dtype="<u8").astype(np.uint64)
    counter = np.concatenate([np.zeros(1, dtype=np.uint64), words[2:]])
    return np.random.Generator(np.random.Philox(key=words[:2], counter=counter))


def normal(shape: Sequence[int], seed: int, purpose: str, *counters: int) -> Tensor:
    """Standard normal numbers of `shape`: float32, on the CPU."""
    import numpy as np
    import torch

    drawn = generator(seed, purpose, *counters).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(np.asarray(drawn))


def torch_seed(seed: int, purpose: str, *counters: int) -> int:
    """A seed for `torch.Generator.manual_seed`, in 0 .. 2^63 - 1."""
    return int.from_bytes(_digest(8, seed, purpose, counters), "little") >> 1


def require_seeds(seeds: Iterable[int]) -> None:
    """UsageError for a seed that `torch.Generator.manual_seed` cannot take."""
    wrong = next((seed for seed in seeds if not -(2**63) <= seed <= LARGEST_SEED), None)
    if wrong is not None:
        raise UsageError(f"The seed {wrong} is not allowed; give a whole number from 0 to {LARGEST_SEED}.")


def torch_generator(seed: int) -> Generator:
    """The CPU's generator of torch at this seed: numbers as other programs draw them.

    Raises:
        UsageError: torch takes no such seed.
    """
    import torch

    require_seeds([seed])
    return torch.Generator().manual_seed(seed)


def _digest(size: int, seed: int, purpose: str, counters: Sequence[int]) -> bytes:
    # Hexadecimal, since Python refuses to write very large ints as decimals. The purpose stands last: whatever
    # characters it holds, two different tuples never give the same text.
    numbers = " ".join(format(operator.index(number), "x") for number in (seed, *counters))
    return hashlib.blake2b(f"{numbers}:{purpose}".encode(), digest_size=size).digest()
