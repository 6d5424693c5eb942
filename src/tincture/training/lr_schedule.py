"""The webui's ``LearnRateScheduler``: sets an optimizer's rate by a schedule, see ``settings/schedule.py``."""

from __future__ import annotations

from typing import Any, Protocol

from tincture.errors import UsageError
from tincture.settings.schedule import Schedule


class HasRates(Protocol):
    """What is needed of a ``torch.optim.Optimizer``: schedules are checked without torch."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...


class LearnRateScheduler:
    """Walks through a schedule as a run goes on, and sets an optimizer's learning rate.

    Args:
        learn_rate: a schedule, or one rate.
        max_steps: number of optimizer steps of the run.
        cur_step: steps done already; the phases behind it are skipped.
        verbose: prints each phase as it begins to the console.

    Attributes:
        learn_rate: the rate that holds now.
        end_step: the step to which its phase lasts.
        finished: whether the schedule ended.

    Raises:
        UsageError: a malformed schedule, or one with nothing left after ``cur_step``.
    """

    def __init__(self, learn_rate: str | float, max_steps: int, cur_step: int = 0, verbose: bool = True) -> None:
        self.schedule = Schedule.parse(learn_rate, max_steps)
        self.verbose = verbose
        self.finished = False
        self._phase = self.schedule.phase_index(cur_step)
        if self._phase == len(self.schedule.phases):
            raise UsageError(
                f"The schedule {str(learn_rate)!r} ends at step {self.schedule.end_step}, but {cur_step} steps are "
                f"done already; give it a later end or remove the end of its last rate."
            )
        self._enter()
        self.learn_rate = self.schedule.at(cur_step)

    def _enter(self) -> None:
        phase = self.schedule.phases[self._phase]
        self.end_step = phase.end
        if self.verbose:
            print(f"learning rate {phase.values} until step {phase.end}", flush=True)

    def step(self, step_number: int) -> bool:
        """Moves to step ``step_number``; True when that has another rate, or begins another phase.

        It goes forward only. Past the last phase ``finished`` is set and the last rate stays.
        """
        phase, before = self.schedule.phase_index(step_number), self.learn_rate
        if phase == len(self.schedule.phases):
            self.finished = True
            return False
        if phase < self._phase:
            return False
        self.learn_rate = self.schedule.at(step_number)
        if phase == self._phase:
            return self.learn_rate != before
        self._phase = phase
        self._enter()
        return True

    def apply(self, optimizer: HasRates, step_number: int) -> None:
        """Writes the rate for step ``step_number`` into every parameter group.

        It is written whether or not it changed, because a restored optimizer brings back the rate it was saved with.
        """
        self.step(step_number)
        for group in optimizer.param_groups:
            if hasattr(group["lr"], "fill_"):  # a tensor, as capturable optimizers keep it
                group["lr"].fill_(self.learn_rate)
            else:
                group["lr"] = self.learn_rate
