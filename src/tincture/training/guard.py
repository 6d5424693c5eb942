"""What is judged before a step may change the weights: overflowed or non-finite gradients, and spikes of the loss.

A gradient that overflowed in float16 is no fault of the run: the scaler multiplies the loss by half as much, and the
same step is made again. All else that is judged unsound is a divergence, and the settings say what becomes of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tincture.errors import DivergedError

SPIKE_WINDOW = 32
"""Losses before a step that it is compared with; with fewer, none is a spike."""

OnDivergence = Literal["stop", "skip", "rollback"]


class Verdict(NamedTuple):
    """On one step; ``reason`` follows a colon."""

    kind: Literal["sound", "overflow", "diverged"]
    reason: str = ""


SOUND = Verdict("sound")


class Guard:
    """Judges steps, and counts what went wrong; a ``Part`` of the trainer.

    Args:
        on_divergence: ``stop`` ends the run; ``skip`` leaves the weights as they are and goes on with the next step;
            ``rollback`` goes back to the last state, with the learning rate multiplied by ``rollback_factor``.
        divergence_limit: how often that may happen in a run; once more, and the run stops.
        rollback_factor: 0..1.
        spike_threshold: a loss over so many times the mean of the 32 before is a divergence too; 0: none is.
        overflow_limit: so many overflowed steps in a row stop the run; at least 1.

    Attributes:
        overflows: steps that were made again, since their gradients overflowed in float16.
        divergences: steps that were skipped, or that the run went back from.
        rate_factor: what the scheduled rate is multiplied by.
    """

    def __init__(
        self,
        on_divergence: OnDivergence = "stop",
        *,
        divergence_limit: int = 3,
        rollback_factor: float = 0.5,
        spike_threshold: float = 0.0,
        overflow_limit: int = 20,
    ) -> None:
        self.on_divergence, self.divergence_limit = on_divergence, divergence_limit
        self.rollback_factor, self.spike_threshold = rollback_factor, spike_threshold
        self.overflow_limit = overflow_limit
        self.overflows = self.divergences = self._in_a_row = 0
        self.rate_factor = 1.0
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def judge(self, loss: Tensor, parameters: Iterable[nn.Parameter], scaled: bool) -> Verdict:
        """Whether the step whose gradients are in ``parameters`` may be made.

        Nothing is read from the device where nothing depends on it: a run that stops when it diverges notices it when
        the losses are read.

        Args:
            loss: of the step, a float32 scalar.
            parameters: with their gradients, unscaled.
            scaled: the gradients come from a scaled loss, so that they may have overflowed.
        """
        if not scaled and self.on_divergence == "stop" and not self.spike_threshold:
            return SOUND
        value, finite = _read(loss, parameters)
        if math.isfinite(value) and not finite and scaled:
            return Verdict("overflow", "its gradients overflowed in float16")
        if not math.isfinite(value):
            return Verdict("diverged", f"its loss is {value}")
        if not finite:
            return Verdict("diverged", "its gradients are NaN or infinite")
        self._in_a_row = 0
        if reason := self._spike(value):
            return Verdict("diverged", reason)
        self._losses.append(value)
        return SOUND

    def _spike(self, value: float) -> str:
        if not self.spike_threshold or len(self._losses) < SPIKE_WINDOW:
            return ""
        mean = math.fsum(self._losses) / len(self._losses)
        if value <= self.spike_threshold * mean:
            return ""
        return (
            f"its loss is {value:.4g}, over {self.spike_threshold:g} times the mean of the {SPIKE_WINDOW} before, "
            f"{mean:.4g}"
        )

    def count_overflow(self, step: int, scale: float) -> None:
        """An overflowed step is to be made again.

        Raises:
            DivergedError: so many in a row that it is no use.
        """
        self.overflows += 1
        self._in_a_row += 1
        if self._in_a_row >= self.overflow_limit:
            raise DivergedError(
                f"The gradients of step {step} overflowed in float16 {self._in_a_row} times in a row, though the loss "
                f"was scaled down to {scale:.3g} times itself: no step can be made so, and the run was stopped; what "
                "was saved before is untouched. Train in bf16 or fp32 (--precision bf16), or lower the learning rate."
            )

    def count_divergence(self, step: int, rate: float, reason: str) -> None:
        """A diverged step is to be skipped, or gone back from.

        Raises:
            DivergedError: the run shall stop, or it happened too often.
        """
        if self.on_divergence == "stop" or self.divergences >= self.divergence_limit:
            often = f", and that happened {self.divergences} times before" if self.divergences else ""
            raise DivergedError(
                f"Step {step} was not made: {reason}{often}. The run was stopped; what was saved before is untouched. "
                f"Lower the learning rate (it was {rate:g}) or clip the gradients (--clip-grad-mode norm)."
            )
        self.divergences += 1

    def lower_rate(self, divergences: int, rate_factor: float) -> None:
        """After a state was restored: the count and the rate of before, one more and lower."""
        self.divergences, self.rate_factor = divergences, rate_factor * self.rollback_factor

    def state_dict(self) -> dict[str, Any]:
        """Counts, the rate's factor, and the losses that the next are compared with."""
        return {
            "overflows": self.overflows,
            "in_a_row": self._in_a_row,
            "divergences": self.divergences,
            "rate_factor": self.rate_factor,
            "losses": list(self._losses),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        self.overflows, self._in_a_row = state["overflows"], state["in_a_row"]
        self.divergences, self.rate_factor = state["divergences"], state["rate_factor"]
        self._losses.clear()
        self._losses.extend(state["losses"])


def _read(loss: Tensor, parameters: Iterable[nn.Parameter]) -> tuple[float, bool]:
    """The loss, and whether all gradients are finite: one transfer from the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    finite = torch.stack([torch.isfinite(gradient).all() for gradient in gradients]).all()
    value, sound = torch.stack([loss.detach().float(), finite.float()]).tolist()
    return value, bool(sound)
