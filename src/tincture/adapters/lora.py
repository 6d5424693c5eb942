"""A hypernetwork as a LoRA of one base model, for programs that know no hypernetworks.

A module turns the context x into x + m(x), and ``to_k`` makes W x of x. Where m(x) = A x + a, the key changes by
W A x + W a: the weight by W A, and a constant. A constant added to every key adds the same to every score of a query,
which its softmax does not see. One added to every value comes through the attention unchanged, since the weights of a
softmax sum to 1: it is the change W_out W a of the output's bias.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tincture.adapters.affine import Affine, Moments, compose
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.adapters.lora_probe import Errors, Probe, Projection
from tincture.errors import UsageError
from tincture.formats.lora_file import LowRank, write_lora_file
from tincture.formats.metadata import metadata_of
from tincture.models.diffusion_model import DiffusionModel


@dataclass(frozen=True)
class LoraLayer:
    """How well one projection came over.

    Attributes:
        name: its path in diffusers' U-Net, ending in ``to_k`` or ``to_v``.
        rank: at most the rank asked for, and its matrix's sides.
        kept_energy: share, 0..1, of the change's squared Frobenius norm that this rank holds; with captions, of the
            mean squared change of keys or values.
        error: of the change of keys or values on contexts that the fit has not seen, relative to that change (root
            mean square; of keys without what all of a picture have in common). None without captions.
    """

    name: str
    rank: int
    kept_energy: float
    error: float | None


@dataclass(frozen=True)
class LoraReport:
    """What became of a hypernetwork.

    Attributes:
        path: the file.
        exact: whether all modules are linear, so that only the rank and the constants can make a difference.
        kept_energy: of all layers together; see ``LoraLayer``.
        layers: in the order of the U-Net.
        constants: what became of that which the hypernetwork adds to every value alike: ``none`` (there is nothing),
            ``bias`` (kept in the biases of outputs), ``weights`` (approximated by the weights) or ``lost``.
        noise_error: how far the noise prediction is from the hypernetwork's, relative to how far that is from the
            base model's. None without captions.
        noise_error_most: the same, of the one prediction among those compared that is farthest off.
        noise_change: how far the hypernetwork moves the noise prediction, relative to its size. None without captions.
    """

    path: Path
    exact: bool
    kept_energy: float
    layers: tuple[LoraLayer, ...]
    constants: str
    noise_error: float | None
    noise_error_most: float | None
    noise_change: float | None


@torch.no_grad()
def export_lora(
    hypernetwork: Hypernetwork,
    model: DiffusionModel,
    out: str | os.PathLike[str],
    *,
    rank: int,
    multiplier: float = 1.0,
    captions: Sequence[str] = (),
    output_bias: bool = False,
    seed: int = 0,
) -> LoraReport:
    """Writes ``hypernetwork`` as a LoRA in kohya's layout, for ``model`` alone: its weights go into the product.

    A hypernetwork without activation and norm is taken over exactly, up to the rank. Any other is replaced by the
    affine maps that fit best on the contexts that occur while pictures of ``captions`` are drawn. Dropout is off.

    Args:
        hypernetwork: is put into eval mode.
        model: the base model.
        out: the file, ``.safetensors``.
        rank: of each change, at least 1.
        multiplier: the strength at which the hypernetwork is taken over.
        captions: texts like those it was trained on. Every fourth only measures; fewer than four do both, in other
            pictures. With them, the rank goes to what changes keys and values most, and errors are measured.
        output_bias: keep the constants of values exactly, as changes of output biases. ComfyUI and Forge know these;
            diffusers refuses the file. Otherwise the weights approximate the constants, which takes captions.
        seed: of the pictures.

    Raises:
        UsageError: a rank below 1, or a hypernetwork that is not linear and no captions.
        ModelError: the hypernetwork was made for another family, a LoRA is loaded in the model, or its numbers become
            NaN or infinite while pictures are drawn.
        StorageError: a full disk, no permission.
    """
    _check(hypernetwork, model, rank)
    hypernetwork.train(False)
    probe = Probe(hypernetwork, model, multiplier, seed)
    maps = {at: compose(at.module, multiplier) for at in probe.projections}
    exact = None not in maps.values()
    if not exact and not captions:
        raise UsageError(
            f"Hypernetwork {hypernetwork.name!r} is not linear, so a LoRA can only approximate it; give captions like "
            f"those it was trained on to fit it to."
        )
    fitted, measured = _split(captions)
    moments = probe.moments(fitted) if captions else {}
    parts = {at: _convert(at, added, moments.get(at), rank, output_bias) for at, added in maps.items()}
    changes = {at.name: part.change for at, part in parts.items()}
    shifts = {at: part.shift for at, part in parts.items() if part.shift is not None}
    errors = probe.errors(measured, changes, {at.name: shift for at, shift in shifts.items()}) if captions else None
    report = _report(Path(out), exact, parts, errors)
    biases = {at.output_name: _double(at.output.weight) @ shift for at, shift in shifts.items()}
    write_lora_file(out, changes, biases, _metadata(hypernetwork, model, report, rank, multiplier))
    return report


def _check(hypernetwork: Hypernetwork, model: DiffusionModel, rank: int) -> None:
    if rank < 1:
        raise UsageError(f"Rank {rank} is not allowed for a LoRA; give at least 1.")
    hypernetwork.require_fit(model)


def _split(captions: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Those to fit to and those to measure with."""
    if len(captions) < 4:
        return captions, captions
    return [caption for index, caption in enumerate(captions) if index % 4], captions[::4]


@dataclass(frozen=True)
class _Part:
    """What one projection contributes to the file.

    Attributes:
        shift: (outputs,), the constant that is added to its output, where a bias behind it is to carry that.
        constant: see ``LoraReport.constants``.
        held: energy, absolute.
        energy: of the whole change.
    """

    change: LowRank
    shift: Tensor | None
    constant: str
    held: float
    energy: float


def _convert(
    projection: Projection, added: Affine | None, moments: Moments | None, rank: int, output_bias: bool
) -> _Part:
    if added is None:
        assert moments is not None, "export_lora demands captions where a fit is needed"
        added = moments.fit()
    weight = _double(projection.layer.weight)
    matrix, shift, constant = weight @ added.matrix, weight @ added.constant, "none"
    if projection.makes_values and added.constant.any():
        constant = "bias" if output_bias else "lost" if moments is None else "weights"
    if constant == "weights" and moments is not None:
        matrix += torch.outer(shift, moments.one())
    power = None
    if moments is not None:
        power = moments.power() if projection.makes_values else moments.covariance()
    change, held, energy = factor(matrix, rank, power)
    return _Part(change, shift if constant == "bias" else None, constant, held, energy)


def _report(path: Path, exact: bool, parts: Mapping[Projection, _Part], errors: Errors | None) -> LoraReport:
    layers = [
        LoraLayer(
            at.name, len(part.change.down), _share(part.held, part.energy), errors.layers[at.name] if errors else None
        )
        for at, part in parts.items()
    ]
    return LoraReport(
        path=path,
        exact=exact,
        kept_energy=_share(sum(part.held for part in parts.values()), sum(part.energy for part in parts.values())),
        layers=tuple(layers),
        constants=next((part.constant for part in parts.values() if part.constant != "none"), "none"),
        noise_error=errors.noise_error if errors else None,
        noise_error_most=errors.noise_error_most if errors else None,
        noise_change=errors.noise_change if errors else None,
    )


def factor(matrix: Tensor, rank: int, power: Tensor | None = None) -> tuple[LowRank, float, float]:
    """The product of low rank that comes nearest to ``matrix`` (outputs, inputs) on inputs x of E[x x^T] = ``power``.

    Args:
        matrix: float64.
        rank: at least 1; cut to the matrix's sides.
        power: (inputs, inputs), positive definite; None means the identity, so that the Frobenius norm decides.

    Returns:
        the product, the energy it keeps, and the whole energy: E[|matrix x|^2], the squared Frobenius norm.
    """
    scale = torch.ones(matrix.shape[1], dtype=matrix.dtype)
    axes = torch.eye(matrix.shape[1], dtype=matrix.dtype)
    if power is not None:
        values, axes = torch.linalg.eigh(power)
        scale = values.sqrt()
    u, s, vh = torch.linalg.svd(matrix @ axes * scale, full_matrices=False)
    root = s[:rank].sqrt()
    down = root[:, None] * vh[:rank] / scale @ axes.T
    energies = s.square()
    return LowRank(u[:, :rank] * root, down), float(energies[:rank].sum()), float(energies.sum())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _double(weight: Tensor) -> Tensor:
    return weight.detach().cpu().double()


def _metadata(
    hypernetwork: Hypernetwork, model: DiffusionModel, report: LoraReport, rank: int, multiplier: float
) -> dict[str, str]:
    base = f"{model.name or 'the checkpoint'} ({model.hash or 'hash unknown'})"
    way = "taken over up to the rank" if report.exact else "fitted by least squares, so it is not exact"
    description = (
        f"The hypernetwork {hypernetwork.name}, step {hypernetwork.step}, as a LoRA of rank {rank}, {way}. It fits "
        f"{base} only, whose weights it was multiplied with: make another one for every other checkpoint."
    )
    spec = metadata_of(
        hypernetwork.provenance,
        architecture=f"{model.architecture}/lora",
        implementation="diffusers",
        title=hypernetwork.name,
        usage_hint=f"Only with {base}.",
    )
    own = {
        "hypernetwork": hypernetwork.name,
        "step": hypernetwork.step,
        "sd_checkpoint": model.hash,
        "sd_checkpoint_name": model.name,
        "rank": rank,
        "multiplier": multiplier,
        **{key: value for key, value in asdict(report).items() if key != "path"},
    }
    return spec | {
        "modelspec.description": description,
        "modelspec.resolution": f"{model.default_size}x{model.default_size}",
        "tincture.lora": json.dumps(own),
    }
