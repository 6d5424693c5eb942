from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.support import tiny_model, weights
from tincture.adapters.affine import Affine, Moments
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.adapters.hypernetwork_module import HypernetworkModule
from tincture.adapters.lora import LoraReport, _convert, export_lora, factor
from tincture.adapters.lora_probe import Projection
from tincture.errors import ModelError, UsageError
from tincture.formats.safetensors_file import read_safetensors
from tincture.models.stable_diffusion import StableDiffusion

CAPTIONS = ("red moon", "a blue star, left", "green heart", "", "white ring on black")
FULL = 64  # the widest context


@pytest.fixture(scope="module")
def base() -> StableDiffusion:
    return tiny_model()


def trained(activation: str | None = None, sizes: tuple[int, ...] = (32, 64), biases: float = 0.3) -> Hypernetwork:
    """A hypernetwork whose weights are all far from their beginning."""
    made = Hypernetwork("ink", sizes, [1, 2, 1], activation, "XavierNormal", dropout_structure=[0, 0.2, 0])
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        spread = biases if parameter.ndim == 1 else 0.15
        parameter.data = spread * torch.randn(parameter.shape, generator=generator)
    return made


def merged(unet: nn.Module, path: Path) -> nn.Module:
    """A copy of ``unet`` with the file worked into its weights, by kohya's rules."""
    unet = copy.deepcopy(unet)
    tensors = load_file(path)
    layers = {f"lora_unet_{name.replace('.', '_')}": module for name, module in unet.named_modules()}
    assert {key.partition(".")[0] for key in tensors} <= set(layers)
    for key in {key.partition(".")[0] for key in tensors}:
        if f"{key}.alpha" in tensors:
            up, down = tensors[f"{key}.lora_up.weight"], tensors[f"{key}.lora_down.weight"]
            layers[key].weight.data += up @ down * (tensors[f"{key}.alpha"] / len(down))
        if f"{key}.diff_b" in tensors:
            layers[key].bias.data += tensors[f"{key}.diff_b"]
    return unet


@torch.no_grad()
def noise_errors(model: StableDiffusion, hypernetwork: Hypernetwork, path: Path, multiplier: float) -> float:
    """How far the merged file is from the hypernetwork, relative to what the hypernetwork changes."""
    generator = torch.Generator().manual_seed(7)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    call = (torch.tensor([100, 800]), model.encode_prompts(["a yellow cross", "blue moon, right"]).hidden_states)
    before = model.unet(noisy, *call).sample
    with hypernetwork.attach(model, multiplier):
        wanted = model.unet(noisy, *call).sample
    made = merged(model.unet, path)(noisy, *call).sample
    return float((made - wanted).norm() / (wanted - before).norm())


def test_a_linear_hypernetwork_is_exact_at_full_rank_with_biases(base: StableDiffusion, tmp_path: Path) -> None:
    report = export_lora(trained(), base, tmp_path / "l.safetensors", rank=FULL, multiplier=0.8, output_bias=True)
    assert (report.exact, report.constants) == (True, "bias")
    assert report.kept_energy == pytest.approx(1)
    assert (report.noise_error, report.noise_error_most, report.noise_change) == (None, None, None)
    assert noise_errors(base, trained(), tmp_path / "l.safetensors", 0.8) < 1e-4


def test_without_constants_no_bias_is_needed(base: StableDiffusion, tmp_path: Path) -> None:
    """Keys may still have them: no softmax sees a constant."""
    hypernetwork = trained()
    for _, v in hypernetwork.pairs.values():
        for layer in v.linear:
            if isinstance(layer, nn.Linear):
                layer.bias.data.zero_()
    report = export_lora(hypernetwork, base, tmp_path / "l.safetensors", rank=FULL)
    assert report.constants == "none"
    assert noise_errors(base, hypernetwork, tmp_path / "l.safetensors", 1) < 1e-4


def test_constants_are_lost_or_approximated_and_the_report_says_which(base: StableDiffusion, tmp_path: Path) -> None:
    lost = export_lora(trained(), base, tmp_path / "lost.safetensors", rank=FULL)
    kept = export_lora(trained(), base, tmp_path / "kept.safetensors", rank=FULL, captions=CAPTIONS)
    assert (lost.constants, kept.constants) == ("lost", "weights")
    error_lost = noise_errors(base, trained(), tmp_path / "lost.safetensors", 1)
    error_kept = noise_errors(base, trained(), tmp_path / "kept.safetensors", 1)
    assert kept.noise_error is not None
    assert 0.001 < error_kept < 0.5 * error_lost
    assert error_kept < 2 * kept.noise_error


@pytest.mark.parametrize("output_bias", [False, True])
def test_an_activation_is_fitted_and_the_error_told(base: StableDiffusion, tmp_path: Path, output_bias: bool) -> None:
    path = tmp_path / "l.safetensors"
    report = export_lora(trained("relu"), base, path, rank=FULL, captions=CAPTIONS, output_bias=output_bias)
    assert not report.exact
    assert report.noise_error is not None and report.noise_change is not None
    assert 0.01 < report.noise_error < 0.6
    assert report.noise_change > 0.01
    assert all(layer.error is not None and 0.001 < layer.error < 1 for layer in report.layers)
    error = noise_errors(base, trained("relu"), path, 1)
    assert 0.4 * report.noise_error < error < 2.5 * report.noise_error


def test_a_lower_rank_keeps_less_and_errs_more(base: StableDiffusion, tmp_path: Path) -> None:
    def at(rank: int) -> LoraReport:
        return export_lora(
            trained(), base, tmp_path / f"{rank}.safetensors", rank=rank, captions=CAPTIONS[:2], output_bias=True
        )

    reports = [at(rank) for rank in (2, 8, FULL)]
    energies = [report.kept_energy for report in reports]
    errors = [report.noise_error or 0.0 for report in reports]
    assert 0.1 < energies[0] < energies[1] < energies[2]
    assert energies[2] == pytest.approx(1)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4
    assert {layer.rank for layer in reports[0].layers} == {2}
    assert {layer.rank for layer in reports[2].layers} == {32, 64}


def test_every_projection_of_a_known_width_is_changed_and_no_other(base: StableDiffusion, tmp_path: Path) -> None:
    report = export_lora(trained(sizes=(64,)), base, tmp_path / "l.safetensors", rank=4)
    expected = {
        name
        for name, module in base.unet.named_modules()
        if name.endswith((".to_k", ".to_v")) and module.in_features == 64
    }
    assert {layer.name for layer in report.layers} == expected
    assert {key.partition(".")[0] for key in load_file(report.path)} == {
        f"lora_unet_{name.replace('.', '_')}" for name in expected
    }


def test_keys_take_the_k_module_and_values_the_v_module(base: StableDiffusion, tmp_path: Path) -> None:
    hypernetwork = trained()
    for k, _ in hypernetwork.pairs.values():
        for parameter in k.parameters():
            parameter.data.zero_()
    export_lora(hypernetwork, base, tmp_path / "l.safetensors", rank=4)
    for key, tensor in load_file(tmp_path / "l.safetensors").items():
        if key.endswith("lora_up.weight"):
            assert tensor.any() == ("to_v" in key)


def test_the_base_model_and_the_global_random_state_stay(base: StableDiffusion, tmp_path: Path) -> None:
    before, state = weights(base), torch.get_rng_state()
    export_lora(trained("relu"), base, tmp_path / "l.safetensors", rank=4, captions=CAPTIONS[:1])
    assert all(torch.equal(value, before[key]) for key, value in weights(base).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.unet.modules())


def test_a_model_in_half_precision_gives_nearly_the_same_file(base: StableDiffusion, tmp_path: Path) -> None:
    whole = export_lora(trained("relu"), base, tmp_path / "whole.safetensors", rank=FULL, captions=CAPTIONS[:2])
    model = tiny_model().to("cpu", torch.bfloat16)
    half = export_lora(trained("relu"), model, tmp_path / "half.safetensors", rank=FULL, captions=CAPTIONS[:2])
    assert half.noise_error is not None and whole.noise_error is not None
    assert abs(half.noise_error - whole.noise_error) < 0.1
    assert {tensor.dtype for tensor in load_file(half.path).values()} == {torch.float32}
    assert noise_errors(base, trained("relu"), half.path, 1) < 1.2 * noise_errors(base, trained("relu"), whole.path, 1)


def test_the_file_says_where_it_comes_from(base: StableDiffusion, tmp_path: Path) -> None:
    hypernetwork = trained("relu")
    hypernetwork.step = 12
    hypernetwork.provenance = {"author": "Ann", "data_hash": "ab"}
    report = export_lora(hypernetwork, base, tmp_path / "l.safetensors", rank=4, captions=CAPTIONS[:1])
    _, metadata = read_safetensors(tmp_path / "l.safetensors")
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.title"] == "ink"
    assert metadata["modelspec.author"] == "Ann"
    assert metadata["modelspec.resolution"] == "64x64"
    assert "tiny (0123456789) only" in metadata["modelspec.description"]
    assert "not exact" in metadata["modelspec.description"]
    told = json.loads(metadata["tincture.lora"])
    assert (told["sd_checkpoint"], told["step"], told["rank"], told["multiplier"]) == ("0123456789", 12, 4, 1.0)
    assert told["noise_error"] == report.noise_error
    assert told["kept_energy"] == report.kept_energy
    assert len(told["layers"]) == len(report.layers)
    assert json.loads(metadata["tincture.provenance"])["data_hash"] == "ab"


def test_what_cannot_be_exported_is_refused(base: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give captions"):
        export_lora(trained("relu"), base, tmp_path / "l.safetensors", rank=4)
    with pytest.raises(UsageError, match="Rank 0"):
        export_lora(trained(), base, tmp_path / "l.safetensors", rank=0)
    with pytest.raises(ModelError, match="widths 48, but"):
        export_lora(trained(sizes=(48,)), base, tmp_path / "l.safetensors", rank=4)
    # Of another family: widths of self-attention are shared, the text's is not.
    with pytest.raises(ModelError, match=r"widths 48, 64, but .* of which 32 is the text's"):
        export_lora(trained(sizes=(48, 64)), base, tmp_path / "l.safetensors", rank=4)
    wild = trained()
    for parameter in wild.parameters():
        parameter.data.mul_(1e20)
    with pytest.raises(ModelError, match="NaN or infinite; take a lower multiplier"):
        export_lora(wild, base, tmp_path / "l.safetensors", rank=4, captions=CAPTIONS[:1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", ["to_k", "to_v"])
def test_the_rank_goes_to_what_attention_can_see(which: str) -> None:
    """A constant in every key changes no softmax, so keys count by how they differ; a constant in values is seen."""
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(4000, 8, generator=generator) * 0.1
    contexts[:, :4] *= 5  # keys differ most along these
    contexts[:, 7] += 20  # all have this in common
    moments = Moments(8)
    added = Affine(torch.randn(8, 8, generator=generator, dtype=torch.float64), torch.zeros(8, dtype=torch.float64))
    moments.add(contexts, contexts @ added.matrix.float().T)
    layer = nn.Linear(8, 6)
    projection = Projection(f"attn.{which}", layer, HypernetworkModule(8), "attn.to_out.0", nn.Linear(6, 6))
    part = _convert(projection, added, moments, rank=2, output_bias=False)
    matrix = layer.weight.detach().double() @ added.matrix
    seen = contexts.double() - (contexts.double().mean(0) if which == "to_k" else 0)

    def missed(product: torch.Tensor) -> float:
        return float((seen @ (product - matrix).T).square().sum() / len(seen))

    best, kept, energy = factor(matrix, 2, seen.T @ seen / len(seen))
    # The fit adds a little to every direction, so that it is the best almost.
    assert missed(part.change.up @ part.change.down) == pytest.approx(missed(best.up @ best.down), rel=0.05)
    assert part.held / part.energy == pytest.approx(kept / energy, rel=0.01)


def test_the_product_is_the_nearest_of_its_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    change, kept, energy = factor(matrix, 3)
    values = torch.linalg.svdvals(matrix).square()
    assert energy == pytest.approx(float(matrix.square().sum()))
    assert kept == pytest.approx(float(values[:3].sum()))
    assert (change.up @ change.down - matrix).square().sum() == pytest.approx(float(values[3:].sum()))


def test_the_power_of_inputs_decides_what_a_low_rank_keeps() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    inputs = torch.randn(5000, 9, generator=generator, dtype=torch.float64) * torch.arange(1, 10) ** 2
    power = inputs.T @ inputs / len(inputs)
    change, kept, energy = factor(matrix, 2, power)
    plain, _, _ = factor(matrix, 2)

    def missed(product: torch.Tensor) -> float:
        return float((inputs @ (product - matrix).T).square().sum() / len(inputs))

    assert energy == pytest.approx(float((inputs @ matrix.T).square().sum() / len(inputs)))
    assert missed(change.up @ change.down) == pytest.approx(energy - kept)
    assert missed(change.up @ change.down) < 0.9 * missed(plain.up @ plain.down)
