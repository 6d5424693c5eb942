"""A family that shares nothing with Stable Diffusion, to see that nothing above ``models/`` knows which one it has.

It reads letters instead of CLIP's tokens, has a transformer instead of a U-Net, learns by flow matching (Lipman et al.
2022, arXiv:2210.02747) with real-valued times drawn as Esser et al. 2024 do (arXiv:2403.03206, section 3.1), and makes
latents of three channels and a quarter of a picture's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tincture import randomness
from tincture.errors import ModelError, UsageError
from tincture.models.attention import KeyValue, cross_attentions, projections
from tincture.models.conditions import Conditions
from tincture.models.families import Family
from tincture.models.float8 import store_in_float8
from tincture.models.placement import DENOISER, TEXT_ENCODERS, VAE, Placement
from tincture.models.tokens import Placeholder

T = TypeVar("T")

TOY = Family("toy", "A toy", (), context_widths=(16, 24), modelspec=MappingProxyType({}))
TEXT_WIDTH, WIDTH, CHANNELS, STRIDE = 16, 24, 3, 4
ENCODER = "clip_l"  # what embedding files take vectors for that are of no family's width
LETTERS = 128


# --- text: letters, in no chunks, of any length -----------------------------------------------------------------------


@dataclass(frozen=True)
class Letters:
    """Names are found letter by letter, whatever stands around them."""

    def spellings(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        return [tuple(name) for name in names]

    def finder(self, named: Iterable[tuple[tuple[Any, ...], T]]) -> Callable[[Iterable[str]], list[T]]:
        known = [("".join(spelling), meaning) for spelling, meaning in named]
        return lambda prompts: [
            meaning for prompt in prompts for piece, meaning in split(prompt, known) if meaning is not None
        ]


def split(prompt: str, named: Sequence[tuple[str, T]]) -> Iterator[tuple[str, T | None]]:
    """The names and single letters of ``prompt``, in order."""
    while prompt:
        name, meaning = next(((n, m) for n, m in named if n and prompt.startswith(n)), (prompt[0], None))
        yield name, meaning
        prompt = prompt[len(name) :]


class LetterText:
    """A table of letters and one layer; prompts are filled up with zeros."""

    widths = MappingProxyType({ENCODER: TEXT_WIDTH})
    layers, max_vectors, vocabulary = 1, 5, Letters()

    def __init__(self, module: nn.ModuleDict) -> None:
        self.module = module
        self.attached: list[Placeholder] = []

    def token_embeddings(self, text: str) -> dict[str, Tensor]:
        return {ENCODER: self._rows(text).clone()}

    def tokens_of(self, text: str) -> list[str]:
        return list(text)

    def token_norms(self) -> dict[str, float]:
        return {ENCODER: float(self.module["table"].weight.detach().norm(dim=1).mean())}

    @contextmanager
    def attach(self, placeholder: Placeholder) -> Iterator[None]:
        if any(attached is placeholder for attached in self.attached):
            raise ModelError(f"Embedding {placeholder.name!r} is attached to this model already.")
        self.attached.append(placeholder)
        try:
            yield
        finally:
            self.attached.remove(placeholder)

    def positions(self, prompts: Sequence[str], placeholder: Placeholder) -> Tensor:
        rows = [
            [meaning is placeholder for piece, meaning in self._split(p) for _ in range(_rows_of(meaning))]
            for p in prompts
        ]
        longest = max(map(len, rows))
        return torch.tensor([row + [False] * (longest - len(row)) for row in rows])

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        return [max(1, sum(_rows_of(meaning) for _, meaning in self._split(prompt))) for prompt in prompts]

    def join(self, parts: Sequence[Conditions], empty: Callable[[], Conditions]) -> Conditions:
        longest = max(part.hidden_states.shape[1] for part in parts)
        return Conditions.cat([Conditions(_lengthened(part.hidden_states, longest)) for part in parts])

    def encode(self, prompts: Sequence[str], at_least: int) -> Conditions:
        longest = max([at_least, *self.lengths(prompts)])
        states = [self.module["layer"](self._embedded(prompt)).tanh() for prompt in prompts]
        return Conditions(torch.stack([_lengthened(one, longest) for one in states]))

    def _embedded(self, prompt: str) -> Tensor:
        parts = [
            self._rows(piece) if meaning is None else meaning.vectors[ENCODER].to(self._rows(" ").dtype)
            for piece, meaning in self._split(prompt)
        ]
        return torch.cat(parts or [self._rows(" ")])

    def _split(self, prompt: str) -> list[tuple[str, Placeholder | None]]:
        return list(split(prompt, [(placeholder.name, placeholder) for placeholder in reversed(self.attached)]))

    def _rows(self, text: str) -> Tensor:
        table = self.module["table"]
        ids = torch.tensor([ord(letter) % LETTERS for letter in text], dtype=torch.int64)
        rows: Tensor = table(ids.to(next(table.parameters()).device))
        return rows


def _rows_of(meaning: Placeholder | None) -> int:
    return 1 if meaning is None else meaning.num_vectors


def _lengthened(states: Tensor, length: int) -> Tensor:
    return functional.pad(states, (0, 0, 0, length - states.shape[-2]))


# --- noise: straight lines from pictures to noise, with times in 0..1 -------------------------------------------------


class Flow:
    """Latents on the straight line to the noise; the denoiser predicts the way from one to the other."""

    predicts = "the way from picture to noise"

    def draw_timesteps(self, seed: int, global_step: int, slots: Sequence[int]) -> Tensor:
        drawn = [randomness.generator(seed, "timestep", global_step, slot).standard_normal() for slot in slots]
        return torch.tensor(drawn, dtype=torch.float32).sigmoid()

    def timesteps_at(self, shares: Sequence[float]) -> Tensor:
        normal: Tensor = torch.special.ndtri(torch.tensor(shares, dtype=torch.float32))
        return normal.sigmoid()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return torch.lerp(latents, noise, timesteps[:, None, None, None])

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def loss_weights(self, timesteps: Tensor) -> Tensor:
        return 0.5 + timesteps

    def snr(self, timesteps: Tensor) -> Tensor:
        return ((1 - timesteps) / timesteps).square()

    def error_scale(self, snr: Tensor) -> Tensor:
        return (snr.sqrt() + 1).square()  # 1 / t²

    def make_scheduler(self, sampler: str) -> Any:
        if sampler != "Euler":
            raise UsageError(f"There is no sampler {sampler!r} for this model; give Euler.")
        return EulerSteps()


class EulerSteps:
    """Walks the line from noise to picture, in steps of equal length."""

    init_noise_sigma = 1.0

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        self.length = 1 / steps
        self.timesteps = torch.linspace(1, self.length, steps, device=device)

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        return latents

    def step(self, velocity: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (latents - velocity * self.length,)


# --- the denoiser -----------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    heads = 2

    def __init__(self, context_width: int, is_cross_attention: bool) -> None:
        super().__init__()
        self.is_cross_attention, self.scale = is_cross_attention, (WIDTH // self.heads) ** -0.5
        self.to_q = nn.Linear(WIDTH, WIDTH)
        self.to_k, self.to_v = nn.Linear(context_width, WIDTH), nn.Linear(context_width, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        own = self.norm(tokens)
        context = text if self.is_cross_attention else own
        made = (self.to_q(own), self.to_k(context), self.to_v(context))
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in made)
        attended = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return tokens + attended.transpose(1, 2).flatten(2)


class Transformer(nn.Module):
    """A token for each latent cell."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in, self.proj_out = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.time = nn.Linear(2, WIDTH)
        self.blocks = nn.ModuleList(Attention(TEXT_WIDTH if cross else WIDTH, cross) for cross in (False, True) * 2)
        self.checkpointing = False

    def forward(self, latents: Tensor, time: Tensor, *, encoder_hidden_states: Tensor) -> Tensor:
        tokens = self.proj_in(latents.flatten(2).transpose(1, 2))
        waves = torch.stack([time.sin(), time.cos()], dim=-1).to(tokens.dtype)
        tokens = tokens + self.time(waves.expand(len(tokens), 2))[:, None]
        for block in self.blocks:
            again = self.checkpointing and torch.is_grad_enabled()
            arguments = (tokens, encoder_hidden_states)
            tokens = checkpoint(block, *arguments, use_reentrant=False) if again else block(*arguments)
        out: Tensor = self.proj_out(tokens).transpose(1, 2).reshape(latents.shape)
        return out


# --- the model --------------------------------------------------------------------------------------------------------


class ToyModel:
    """A ``DiffusionModel``."""

    name, hash, family, architecture, called = "toy", "abcdef0123", TOY, "toy-v1", "the model 'toy'"
    guidance_scale, default_size, vae_scale_factor, latent_channels = 2.0, 16, STRIDE, CHANNELS
    text_width, is_inpainting = TEXT_WIDTH, False

    def __init__(self, text: nn.ModuleDict, denoiser: Any) -> None:
        self.text, self.denoiser, self.noise_process, self.slicing = LetterText(text), denoiser, Flow(), False
        self.predicts = self.noise_process.predicts
        self.placement = Placement({TEXT_ENCODERS: [text], VAE: [nn.Identity()], DENOISER: [denoiser]})
        for part in (text, denoiser):
            part.requires_grad_(False).eval()

    def describe(self) -> str:
        return f"{self.name}: {self.family.title}, predicts {self.predicts}"

    def overrides(self) -> dict[str, Any]:
        return {}

    @property
    def device(self) -> torch.device:
        return self.placement.device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.denoiser.proj_in.weight.dtype
        return dtype

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> ToyModel:
        self.placement.forget()
        for part in (self.text.module, self.denoiser):
            part.to(device, dtype)
        return self

    def projections(self) -> list[KeyValue]:
        return projections(self.denoiser)

    def cross_attentions(self) -> list[nn.Module]:
        return cross_attentions(self.denoiser)

    def context_widths(self) -> list[int]:
        return sorted({pair.context_width for pair in self.projections()})

    def rebuilt(self, copy: Callable[[nn.Module, torch.dtype], Any], dtype: torch.dtype) -> ToyModel:
        return ToyModel(copy(self.text.module, dtype), copy(self.denoiser, dtype))

    def enable_slicing(self) -> None:
        self.slicing = True

    def enable_gradient_checkpointing(self) -> None:
        self.denoiser.checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        self.denoiser.checkpointing = False

    def store_in_float8(self, by: torch.device | str | None = None) -> None:
        store_in_float8(self.denoiser, by)

    def speed_up_convolutions(self) -> None:
        """It has none."""

    def encode_prompts(self, prompts: Sequence[str], clip_skip: int = 1, at_least: int = 0) -> Conditions:
        with self.placement.acting(TEXT_ENCODERS):
            return self.text.encode(prompts, at_least)

    def encode_negative_prompt(self, prompt: str, clip_skip: int = 1, at_least: int = 0) -> Conditions:
        return self.encode_prompts([prompt], clip_skip, at_least)

    def bytes_of_prompt(self, prompt: str = "") -> int:
        return self.text.lengths([prompt])[0] * TEXT_WIDTH * 4

    def latents_hash(self) -> str:
        return "means of 4 x 4 pixels"

    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean = functional.avg_pool2d(pixels.to(self.device), STRIDE) * 3
        return mean, torch.full_like(mean, 0.05)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return functional.interpolate(latents.float() / 3, scale_factor=STRIDE).clamp(-1, 1)

    def predict_noise(
        self, noisy_latents: Tensor, timesteps: Tensor, conditions: Conditions, time_ids: Tensor | None = None
    ) -> Tensor:
        with self.placement.acting(DENOISER):
            states = conditions.hidden_states.to(self.dtype)
            answer: Tensor = self.denoiser(noisy_latents.to(self.dtype), timesteps, encoder_hidden_states=states)
        return answer

    def time_ids(self, original_size: Sequence[int], crop: Sequence[int], size: Sequence[int]) -> Tensor:
        raise AssertionError("a family that knows no sizes is not told of them")


def toy_model(seed: int = 0) -> ToyModel:
    """With weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = nn.ModuleDict({"table": nn.Embedding(LETTERS, TEXT_WIDTH), "layer": nn.Linear(TEXT_WIDTH, TEXT_WIDTH)})
        return ToyModel(text, Transformer())


def weights(model: ToyModel) -> dict[str, Tensor]:
    """A copy of every parameter, for comparing bit by bit."""
    parts = {"text": model.text.module, "denoiser": model.denoiser}
    return {f"{n}.{key}": one.clone() for n, part in parts.items() for key, one in part.state_dict().items()}
