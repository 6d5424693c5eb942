"""What the trainer, and all around it, know of the thing that is trained."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self

from tincture.errors import ModelError, UsageError
from tincture.kinds.registry import AdapterKind

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from tincture.models.diffusion_model import DiffusionModel


class AuxiliaryLoss(Protocol):
    """A term beside the denoising loss, made from what the denoiser does while it predicts.

    Attributes:
        global_step: the step of the run that is being made starts from it; the trainer sets it.
    """

    global_step: int

    def watching(self) -> AbstractContextManager[None]:
        """Sees the prediction that is made inside the context, and leaves it as it is."""
        ...

    def value(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
        """The term, a float32 scalar, for the prediction last seen: of the samples ``indices`` with ``prompts``."""
        ...


class Adapter(Protocol):
    """A small trained part beside a frozen model; ``kinds.AdapterKind`` is what is known of it without loading torch.

    A class that names it as its base has what is written out here already, and writes the rest.

    Attributes:
        kind: the name of its ``AdapterKind``.
        name: what prompts and files call it.
        step: optimizer steps trained so far, over all runs.
        provenance: JSON values about how it was made, as its file gave them.
        trains_text: whether ``encoder_hidden_states`` depend on trained parameters, so that they cannot be cached.
    """

    kind: str
    name: str
    step: int
    provenance: dict[str, Any]
    trains_text: bool

    @property
    def word(self) -> str:
        """What takes the place of [name] in prompts: its name."""
        return self.name

    def members(self) -> Sequence[Adapter]:
        """The adapters, each with a file of its own, that are trained by way of this one: itself, unless it joins some.

        They count their steps together. Their parameters are this one's, in the same order.
        """
        return (self,)

    def with_members(self, members: Sequence[Adapter]) -> Adapter:
        """The same of other members, as many as it has: the lone one itself, unless it joins some."""
        (member,) = members
        return member

    @property
    def fixed(self) -> Sequence[Adapter]:
        """Those that act whenever this one does, and are not trained."""
        return ()

    # --- making, and acting ------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, name: str, model: Callable[[], DiffusionModel], **options: Any) -> Self:
        """A new one.

        Args:
            model: loads the model that it is for, with its text encoders only; each call gives the same one. For a kind
                that ``words_alone`` are enough for it may give ``ModelWords``.
            options: those of its ``AdapterKind``.

        Raises:
            UsageError: an option's value is not allowed.
        """
        ...

    def attach(self, model: DiffusionModel, multiplier: float = 1.0) -> AbstractContextManager[None]:
        """Acts on ``model`` inside the context; afterwards, also after an exception, the model is as it was."""
        ...

    def require_fit(self, model: DiffusionModel) -> None:
        """Makes sure that ``attach`` can do its work; ModelError says why not."""
        ...

    def check_run(self, settings: Mapping[str, Any], model: DiffusionModel, lines: Sequence[str]) -> None:
        """Makes sure that it can be trained so.

        Args:
            settings: all of the run, as ``TrainSettings.to_dict`` gives them.
            model: what is trained on.
            lines: of the prompt template.

        Raises:
            ModelError: it does not fit the model.
            UsageError: settings or template are not for it.
        """
        self.require_fit(model)

    def is_taught_by(self, prompts: Sequence[str], model: DiffusionModel) -> bool:
        """Whether any of ``prompts`` gives its parameters a gradient on ``model``; it need not be attached."""
        return True

    # --- training ----------------------------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, float32, always in the same order."""
        ...

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """The parameters by parts that may get a rate and a weight decay of their own; by default one part, "".

        Each parameter is in exactly one part. Those of a part, and the parts, always come in the same order.
        """
        return {"": self.parameters()}

    def biases_and_norms(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Those parameters that may get a weight decay of their own, by what they are: ``bias``, ``norm``."""
        return {}

    def token_vectors(self) -> Sequence[tuple[str, nn.Parameter]]:
        """Those parameters (n, width) whose rows stand for tokens, each with the name of the text encoder."""
        return [pair for member in self.members() if member is not self for pair in member.token_vectors()]

    def train(self, mode: bool = True) -> Self:
        """Switches what differs between training and use, such as dropout."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Moves the parameters, which stay the same objects."""
        ...

    def advance(self) -> None:
        """Called after each optimizer step: counts it. One that keeps averages brings them on here."""
        self.step += 1

    def auxiliary_loss(
        self, settings: Mapping[str, Any], model: DiffusionModel, masks: Callable[[], Sequence[Tensor | None]]
    ) -> AuxiliaryLoss | None:
        """A term of the loss of its own, if the settings ask for it.

        Args:
            settings: see ``check_run``.
            model: that it is attached to while the loss is used.
            masks: makes those of all samples: (h, w) float32 in 0..1 on the grid of a sample's latents, or None.
        """
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """All trained tensors, not copied, for an exact resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what ``state_dict`` gave, into the same parameters."""
        ...

    # --- what others get of it ---------------------------------------------------------------------------------------

    def published(self) -> Adapter:
        """The adapter with the weights to publish as they are now: itself, unless it wraps what is trained.

        Every file and picture of a run asks for it: copies, the finished file and the optimizer's state beside it,
        previews, cards. A run's states hold this one's own ``state_dict``, so that a resume goes on with what is
        trained. Its name, steps and provenance are this one's.
        """
        return self

    def files(self) -> Mapping[str, Adapter]:
        """All that a run's files hold, by what is added to the name: of "" it is what ``published`` gives.

        Each has the name and provenance that its file gets; tensors may be shared.
        """
        return {"": self.published()}

    @property
    def optimizer_beside(self) -> str:
        """The key of ``files`` whose weights the optimizer's state belongs to."""
        return ""

    def webui_settings(self) -> dict[str, Any]:
        """What the webui's settings file of a run says of it, by the webui's names."""
        return {}

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def suffix(self) -> str:
        """Of the file that a new one is saved in: one that the workspace lists."""
        return ".pt"

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str = "",
        model_hash: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the portable file, whole or not at all, labelled with ``step``.

        Args:
            path: the file to write.
            model_name: the model trained on; "" keeps what is known.
            model_hash: first 10 hex digits of the model's hash; "" keeps what is known.
            provenance: JSON values about how the file was made; None keeps what is known.
        """
        ...

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads the file onto the CPU; code in it is never run.

        Raises:
            FileFormatError: no such file, damaged, or of another kind.
            StorageError: the system refuses to read it.
        """
        ...

    def save_card(
        self, path: str | os.PathLike[str], picture: Image.Image, *, model_name: str = "", model_hash: str = ""
    ) -> None:
        """Writes a PNG that shows ``picture`` and holds the adapter; UsageError for kinds without ``has_card``."""
        raise UsageError(f"A picture has no place for the {self.kind} {self.name!r}.")

    def save_optimizer(self, path: str | os.PathLike[str], optimizer: str, state: Mapping[str, Any]) -> None:
        """Writes the state of an optimizer beside the adapter's file ``path``, as it was just saved.

        Args:
            path: the adapter's file; the state goes to ``PATH.optim``.
            optimizer: the name of its class, such as ``AdamW``.
            state: its ``state_dict()``.

        Raises:
            StorageError: a full disk, no permission.
        """
        from tincture.formats.hypernetwork_optimizer import write_hypernetwork_optimizer  # loads torch

        write_hypernetwork_optimizer(path, optimizer, state)

    def load_optimizer(self, path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
        """What ``save_optimizer`` wrote beside ``path``: name and state; None when there is none that fits the file.

        Raises:
            FileFormatError: it is damaged.
        """
        from tincture.formats.hypernetwork_optimizer import read_hypernetwork_optimizer  # loads torch

        return read_hypernetwork_optimizer(path)


def ask_each(check: Callable[[Adapter], None], adapters: Sequence[Adapter]) -> None:
    """Asks each adapter; raises what one raises, or one error of all sentences."""
    faults: list[ModelError | UsageError] = []
    for adapter in adapters:
        try:
            check(adapter)
        except (ModelError, UsageError) as error:
            faults.append(error)
    if faults:
        raise type(faults[0])(" ".join(fault.sentence for fault in faults)) from faults[0]


def adapter_class(kind: AdapterKind) -> type[Adapter]:
    """The class of a kind of adapters."""
    module, name = kind.implementation.split(":")
    found: type[Adapter] = getattr(importlib.import_module(module), name)
    return found
