"""The loop: one for every adapter, in step order, knowing no files, pages or previews.

A step is a pure function of the settings, the data and its number: every random draw is keyed by (seed, step, sample),
so a run that goes on after a stop does what the uninterrupted one would have done, bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from tincture import randomness
from tincture.adapters.adapter import Adapter, AuxiliaryLoss
from tincture.errors import DivergedError
from tincture.events import (
    RATE_OF,
    VECTOR_NORM,
    Callback,
    Event,
    RolledBack,
    RunEnded,
    RunStarted,
    StepEnd,
    StepRecord,
    StepRejected,
    StepsDone,
)
from tincture.models.devices import PRECISIONS
from tincture.models.diffusion_model import DiffusionModel
from tincture.processes.ranks import ALONE, Processes
from tincture.settings.schedule import Schedule
from tincture.training.conditioning import Conditioning
from tincture.training.guard import SOUND, Guard, Verdict
from tincture.training.guidance import Guidance
from tincture.training.loss import PLAIN, Predict, TrainingLoss
from tincture.training.metrics import LossWindow
from tincture.training.norms import LoggedNorms, Norms
from tincture.training.optimizer import effective_rate
from tincture.training.part_dropout import dropout_of_part
from tincture.training.step_data import Prior, Share, TrainingData, shares_of_step
from tincture.training.vector_norms import VectorNorms


class Part(Protocol):
    """Something beside the adapter and its optimizer on which later steps depend, so that a resume must restore it."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers, texts, tensors, and lists and dictionaries of them."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what ``state_dict`` gave."""
        ...


@dataclass(frozen=True)
class Clipping:
    """How gradients are clipped, by value or by norm, with a threshold that may follow a schedule.

    Of adapters that are trained together, each one's norm is its own.
    """

    mode: Literal["value", "norm"]
    threshold: Schedule


class _Unread(NamedTuple):
    """A step that was made and not yet told: the rates are of all groups, loss and norms lie on the device."""

    global_step: int
    rates: Sequence[float]
    effective_rate: float | None
    loss: Tensor
    norms: Mapping[str, Tensor]


class Trainer:
    """Trains ``adapter`` on a frozen ``model`` from ``global_step`` to ``steps``.

    Args:
        optimizer: over ``adapter.parameters()``.
        learning_rate: the rate of every step, as a schedule.
        group_rates: by parameter group of the optimizer, where they differ; a group whose schedule is over stays as it
            is, and so does one of a ``Joint`` for as long as its rate is 0. The first group's is what events tell.
        gradient_accumulation_steps: micro-batches that make up a step.
        precision: of the frozen model's arithmetic; the trained weights stay float32.
        log_every: losses are read from the device once in so many steps, so that no step waits for it.
        loss: what a step makes smaller.
        auxiliary_loss: is added to the denoising loss.
        guidance: predictions are guided away from its negative prompt; None: they are those of the prompts alone.
        prior: pictures that are trained beside those of ``data``, so that the model does not forget them.
        vector_norms: what holds the norms of vectors that stand for tokens; None: nothing does.
        log_norms: whether norms of gradients and weights are logged of every step; they are read with the losses.
        guard: judges each step before it changes the weights; None: one that stops the run when it diverges.
        processes: each computes a share of every step; what comes after the sum of the gradients, each does alike.

    Attributes:
        restore_last_good: puts the newest saved state back, for a guard that rolls back; None: there is none.
        parts: by name, what else belongs to the states of the run, see ``add_part``.
        ending: why the run ends before its last step without having been interrupted; empty for as long as it does not.
    """

    def __init__(
        self,
        model: DiffusionModel,
        adapter: Adapter,
        data: TrainingData,
        conditioning: Conditioning,
        optimizer: torch.optim.Optimizer,
        *,
        learning_rate: Schedule,
        group_rates: Sequence[Schedule] = (),
        steps: int,
        global_step: int = 0,
        gradient_accumulation_steps: int = 1,
        clipping: Clipping | None = None,
        precision: str = "fp32",
        seed: int = 0,
        log_every: int = 10,
        loss: TrainingLoss = PLAIN,
        auxiliary_loss: AuxiliaryLoss | None = None,
        guidance: Guidance | None = None,
        prior: Prior | None = None,
        vector_norms: VectorNorms | None = None,
        log_norms: bool = False,
        guard: Guard | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.model, self.adapter, self.data, self.conditioning = model, adapter, data, conditioning
        self.optimizer, self.clipping = optimizer, clipping
        self.group_rates = [*group_rates] or [learning_rate] * len(optimizer.param_groups)
        self.steps, self.global_step, self.seed, self.log_every = steps, global_step, seed, log_every
        self.gradient_accumulation_steps, self.auxiliary_loss = gradient_accumulation_steps, auxiliary_loss
        self.loss, self.guidance, self.prior, self.vector_norms = loss, guidance, prior, vector_norms
        self.dtype = PRECISIONS[precision]
        self.grad_scaler = torch.amp.GradScaler(model.device.type, enabled=precision == "fp16")
        self._logged_norms = LoggedNorms(adapter) if log_norms else None
        self._gradient_norms: Norms = {}
        self.window = LossWindow(len(data.latents))
        self.guard = guard or Guard()
        self.restore_last_good: Callable[[], None] | None = None
        self.parts: dict[str, Part] = {"guard": self.guard}
        self.ending = ""
        self._saved_parts: dict[str, Any] = {}
        self._unread: list[_Unread] = []
        self._rates_beside = _rates_beside(adapter, optimizer)
        self._effective_rate: float | None = None
        self._callbacks: Sequence[Callback] = ()
        self._acting = contextlib.ExitStack()  # the adapter, attached for the time of a run

    def run(self, callbacks: Sequence[Callback] = (), stop: threading.Event | None = None) -> bool:
        """Trains until ``steps`` or until ``stop`` is set; returns whether it was stopped before the end.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        self._callbacks = callbacks
        started, stop = time.monotonic(), stop or threading.Event()
        with self._training():
            self.emit(
                RunStarted(self.global_step, self.steps, len(self.data.latents), self.data.plan.micro_batches_per_epoch)
            )
            while self.global_step < self.steps and not self.ending and not self.processes.any(stop.is_set()):
                rates = self.rates()
                rate = rates[0]
                loss, verdict = self.make_step(*rates)
                if verdict.kind == "overflow":
                    self._repeat(verdict.reason)
                    continue
                if verdict.kind == "diverged" and self._reject(rate, verdict.reason):
                    continue
                self.global_step += 1
                self.adapter.advance()
                if verdict.kind == "sound":
                    self._unread.append(_Unread(self.global_step, rates, self._effective_rate, loss, self._norms()))
                if len(self._unread) >= self.log_every:
                    self.read_losses()
                self.emit(StepEnd(self.global_step, self.steps))
            self.read_losses()
        interrupted = self.global_step < self.steps and not self.ending
        self.emit(RunEnded(self.global_step, interrupted, time.monotonic() - started, self.ending))
        return interrupted

    def end(self, reason: str) -> None:
        """Makes no more steps than the present one: the run is complete, and ``reason`` says why in a sentence."""
        self.ending = reason

    def add_part(self, name: str, part: Part) -> None:
        """``part`` belongs to the states from now on; it takes over what a restored one holds under ``name``."""
        self.parts[name] = part
        if name in self._saved_parts:
            part.load_state_dict(self._saved_parts.pop(name))

    def restore_parts(self, states: Mapping[str, Any]) -> None:
        """Gives each part what it had in a state; a part that is added later gets it then."""
        self._saved_parts = {name: state for name, state in states.items() if name not in self.parts}
        for name, part in self.parts.items():
            if name in states:
                part.load_state_dict(states[name])

    def rates(self) -> list[float]:
        """The learning rates of the next step, one for each parameter group of the optimizer."""
        step = self.global_step
        return [
            schedule.at(step) * self.guard.rate_factor if step < schedule.end_step else 0.0
            for schedule in self.group_rates
        ]

    def make_step(self, *rates: float) -> tuple[Tensor, Verdict]:
        """Makes one step, the adapter being attached, unless the guard judges it unsound. Counts nothing.

        Args:
            rates: one for each parameter group of the optimizer, as ``rates`` gives them.

        Returns:
            Its mean loss, a scalar that is still on the device, and the guard's verdict.
        """
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._effective_rate = effective_rate(self.optimizer)
        loss = self._accumulate_gradients()
        self.grad_scaler.unscale_(self.optimizer)
        verdict = self.guard.judge(loss, self.adapter.parameters(), self.grad_scaler.is_enabled())
        if verdict is SOUND:
            self._rest(rates)
            if self._logged_norms is not None:
                self._gradient_norms = self._logged_norms.gradients()
            if self.clipping is not None:
                for member in self.adapter.members():
                    self._clip(member.parameters(), self.clipping)
            self.grad_scaler.step(self.optimizer)
            if self.vector_norms is not None:
                self.vector_norms.limit_norms(self.global_step, self._moving())
        self.grad_scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, verdict

    def _rest(self, rates: Sequence[float]) -> None:
        """Of adapters that are trained together, one whose rate is 0 takes no part in the step: neither its weights nor
        what the optimizer keeps of it change."""
        if len(self.adapter.members()) == 1:
            return
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            for parameter in group["params"] if rate == 0 else ():
                parameter.grad = None

    def _moving(self) -> list[torch.nn.Parameter]:
        """What a step changes: at a rate of 0 nothing does."""
        return [parameter for group in self.optimizer.param_groups if group["lr"] for parameter in group["params"]]

    def _repeat(self, reason: str) -> None:
        """The step is to be made again, with a smaller scale of the loss."""
        self.guard.count_overflow(self.global_step + 1, self.grad_scaler.get_scale())
        self.emit(StepRejected(self.global_step + 1, reason, True, self.guard.overflows))

    def _reject(self, rate: float, reason: str) -> bool:
        """What becomes of a diverged step; whether the run stands at an earlier one now, and not behind this one.

        Raises:
            DivergedError: the run shall stop, or this happened too often.
        """
        guard, step = self.guard, self.global_step + 1
        if guard.on_divergence == "stop":
            self.read_losses()  # the log has all that was sound
        guard.count_divergence(step, rate, reason)
        if guard.on_divergence == "skip":
            self.emit(StepRejected(step, reason, False, guard.divergences))
            return False
        if self.restore_last_good is None:
            raise DivergedError(f"Step {step} was not made: {reason}. There is no saved state to go back to.")
        divergences, rate_factor = guard.divergences, guard.rate_factor
        self.restore_last_good()
        self._unread.clear()
        guard.lower_rate(divergences, rate_factor)
        self.emit(RolledBack(self.global_step, step, reason, guard.rate_factor, divergences))
        return True

    @contextlib.contextmanager
    def publishing(self) -> Iterator[Adapter]:
        """Between two steps of a run: the adapter with the weights to publish acts, ready for use.

        What is trained acts and is in training mode again afterwards.
        """
        published = self.adapter.published()
        try:
            if published is self.adapter:
                yield self.adapter.train(False)
                return
            self._acting.close()
            try:
                with published.train(False).attach(self.model):
                    yield published
            finally:
                self._acting.enter_context(self.adapter.attach(self.model))
        finally:
            self.adapter.train()

    def emit(self, event: Event) -> None:
        """Tells every callback, in their order."""
        for callback in self._callbacks:
            callback.on_event(event)

    def _accumulate_gradients(self) -> Tensor:
        """Adds up the gradients of one step's micro-batches; returns the step's mean loss, still on the device."""
        losses: list[Tensor] = []
        accumulation = self.gradient_accumulation_steps
        for share in shares_of_step(self.data, self.prior, self.global_step, accumulation, self.processes):
            # Gradient checkpointing draws once more in the backward pass.
            with dropout_of_part(share):
                self._add(losses, self._micro_batch_loss(share) * share.weight)
        of_norms = None if self.vector_norms is None else self.vector_norms.loss(self.global_step)
        if of_norms is not None and self.processes.is_main:
            self._add(losses, of_norms)
        if not losses:
            self._add(losses, torch.zeros((), device=self.model.device))
        return self.processes.sum_gradients(self.adapter.parameters(), torch.stack(losses).sum())

    def _add(self, losses: list[Tensor], loss: Tensor) -> None:
        """Adds the gradients of a part of a step's loss to those that are there."""
        scaled = self.grad_scaler.scale(loss)
        if loss.requires_grad:  # a prompt without an embedding's name teaches it nothing
            scaled.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())

    def _micro_batch_loss(self, share: Share) -> Tensor:
        device, seed, step = self.model.device, self.seed, self.global_step
        data, indices, first_slot, _, part_of = share
        slots = range(first_slot, first_slot + len(indices))
        torch.manual_seed(
            randomness.torch_seed(seed, "network dropout", step, part_of.first_slot if part_of else first_slot)
        )
        shape = data.latents.shape(indices[0])

        def fresh(position: int) -> Tensor:
            return randomness.normal(shape, seed, "latent sample", step, slots[position])

        latents = data.latents.sample(indices, data.latent_sampling_method, fresh)
        noise, input_noise = self.loss.noise.draw(shape, seed, step, slots)
        timesteps = self.loss.timesteps.draw(self.model.noise_process, seed, step, slots)
        prompts = [data.prompt(index, step, slot) for index, slot in zip(indices, slots, strict=True)]
        weights = None if data.weights is None else torch.stack([data.weights[index] for index in indices])
        time_ids = None if data.time_ids is None else torch.cat([data.time_ids[index] for index in indices])
        auxiliary = self.auxiliary_loss if data is self.data else None
        if auxiliary is not None:
            auxiliary.global_step = step
        watching = contextlib.nullcontext() if auxiliary is None else auxiliary.watching()
        with self.autocast(), watching:
            errors = self.loss.errors(
                self.predictor(prompts, time_ids, step, self._prompts_beside(share)),
                self.model.noise_process,
                latents,
                noise.to(device, non_blocking=True),
                timesteps.to(device, non_blocking=True),
                weights,
                input_noise=None if input_noise is noise else input_noise.to(device, non_blocking=True),
                global_step=step,
            )
        loss = errors.mean()
        return loss if auxiliary is None else loss + auxiliary.value(indices, prompts)

    def _prompts_beside(self, share: Share) -> list[str]:
        """All prompts of the micro-batch where this process computes a part of it."""
        if share.part_of is None:
            return []
        indices, first_slot = share.part_of
        return [share.data.prompt(index, self.global_step, slot) for slot, index in enumerate(indices, first_slot)]

    def predictor(
        self, prompts: Sequence[str], time_ids: Tensor | None, global_step: int, beside: Sequence[str] = ()
    ) -> Predict:
        """The model's predictions for B prompts, guided as in the step ``global_step``; for use within ``autocast``.

        Args:
            beside: see ``Conditioning``.
        """
        negative = [] if self.guidance is None else [self.guidance.negative_prompt] * len(prompts)
        conditions = self.conditioning([*prompts, *negative], beside)

        def predict_for(rows: slice) -> Predict:
            own = conditions[rows]
            return lambda noisy, at: self.model.predict_noise(noisy, at, own, time_ids)

        positive = predict_for(slice(len(prompts)))
        if self.guidance is None:
            return positive
        return self.guidance.apply(positive, predict_for(slice(len(prompts), None)), global_step)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The frozen model computes in the run's precision inside."""
        enabled = self.dtype is not torch.float32
        autocast: Any = torch.autocast(self.model.device.type, self.dtype if enabled else None, enabled=enabled)
        return autocast  # type: ignore[no-any-return]

    def _clip(self, parameters: list[torch.nn.Parameter], clipping: Clipping) -> None:
        threshold = clipping.threshold.at(self.global_step)
        if clipping.mode == "value":
            torch.nn.utils.clip_grad_value_(parameters, threshold)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, threshold)

    def read_losses(self) -> None:
        """Reads the losses of the steps since the last reading, in one transfer, and tells them.

        Raises:
            DivergedError: one of them is NaN or infinite.
        """
        if not self._unread:
            return
        values = [torch.stack([each.loss, *each.norms.values()]) for each in self._unread]
        numbers = torch.stack(values).tolist()
        read, self._unread = self._unread, []
        records = []
        for each, (loss, *norms) in zip(read, numbers, strict=True):
            if not math.isfinite(loss):
                break
            further = {name: each.rates[group] for name, group in self._rates_beside.items()}
            further |= zip(each.norms, norms, strict=True)
            step = each.global_step
            records.append(StepRecord(step, *self._epoch(step), loss, each.rates[0], each.effective_rate, further))
            self.window.append(loss)
        if records:
            self.emit(StepsDone(tuple(records), self.steps, *self.window.window(), *self.window.recent()))
        if len(records) < len(read):
            global_step, (rate, *_), *_ = read[len(records)]
            raise DivergedError(
                f"The loss of step {global_step} is {numbers[len(records)][0]}: the run has diverged and was stopped; "
                f"what was saved before is untouched. Lower the learning rate (it was {rate:g}) or clip the gradients "
                "(--clip-grad-mode norm)."
            )

    @property
    def further_numbers(self) -> list[str]:
        """What the further numbers of each step are called."""
        held = [] if self.vector_norms is None else [VECTOR_NORM]
        return [*self._rates_beside, *held, *(self._logged_norms.names() if self._logged_norms else ())]

    @torch.no_grad()
    def _norms(self) -> Norms:
        """What is logged of the step that was just made beside its loss; still on the device."""
        held = {} if self.vector_norms is None else {VECTOR_NORM: self.vector_norms.multiples().max()}
        if self._logged_norms is None:
            return held
        return held | self._gradient_norms | self._logged_norms.weights()

    def _epoch(self, global_step: int) -> tuple[int, int]:
        done = (global_step - 1) * self.gradient_accumulation_steps
        per_epoch = self.data.plan.micro_batches_per_epoch
        return done // per_epoch, done % per_epoch // self.gradient_accumulation_steps

    @contextlib.contextmanager
    def _training(self) -> Iterator[None]:
        """The adapter acts and is in training mode; torch's global generator is ours. All is given back afterwards.

        Network dropout draws from that generator, which is seeded anew in every micro-batch.
        """
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with self._acting, torch.random.fork_rng(devices):
            self._acting.enter_context(self.adapter.attach(self.model))
            self.adapter.train()
            try:
                yield
            finally:
                self.adapter.train(False)


def _rates_beside(adapter: Adapter, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Of adapters that are trained together with the first: what logs call the rate of each, and its first group."""
    groups = {id(one): number for number, group in enumerate(optimizer.param_groups) for one in group["params"]}
    others = ((other, next(iter(other.parameters()), None)) for other in adapter.members()[1:])
    return {f"{RATE_OF}{other.kind}:{other.name}": groups[id(one)] for other, one in others if id(one) in groups}
