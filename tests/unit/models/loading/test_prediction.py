"""What a U-Net predicts, as its file says it, the user, or the U-Net itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from tincture.errors import ModelError, UsageError
from tincture.models.loading.configs import SCHEDULER
from tincture.models.loading.load import load_model
from tincture.models.loading.prediction import Prediction, find_prediction, override, probe

EPSILON, V = "epsilon", "v_prediction"

METADATA = {
    "nothing": ({}, None),
    "modelspec v": ({"modelspec.prediction_type": "v"}, V),
    "modelspec epsilon": ({"modelspec.prediction_type": "Epsilon"}, EPSILON),
    "modelspec nonsense": ({"modelspec.prediction_type": "other"}, None),
    "kohya v": ({"ss_v_parameterization": "True"}, V),
    "kohya epsilon": ({"ss_v_parameterization": "False"}, EPSILON),
    "kohya trained": ({"ss_base_model_version": "sd_v1"}, None),
    "architecture v": ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, V),
    "architecture epsilon": ({"modelspec.architecture": "stable-diffusion-v2-512/dreambooth"}, EPSILON),
    "architecture that does not tell": ({"modelspec.architecture": "stable-diffusion-xl-v1-base"}, None),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata(case: str, tmp_path: Path) -> None:
    metadata, expected = METADATA[case]
    found = find_prediction(tmp_path / "a.safetensors", {"x"}, metadata)
    assert found == (None if expected is None else Prediction(expected, False, "its metadata"))


def test_markers_count_before_metadata(tmp_path: Path) -> None:
    metadata = {"modelspec.prediction_type": "epsilon"}
    found = find_prediction(tmp_path / "a.safetensors", {"v_pred", "ztsnr"}, metadata)
    assert found == Prediction(V, True, "its marker v_pred")


def test_zero_terminal_snr_of_kohyas_metadata(tmp_path: Path) -> None:
    metadata = {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}
    assert find_prediction(tmp_path / "a", {}, metadata) == Prediction(V, True, "its metadata")
    metadata["modelspec.prediction_type"] = "epsilon"
    assert find_prediction(tmp_path / "a", {}, metadata) == Prediction(EPSILON, False, "its metadata")


YAMLS = {
    "v": ("model:\n  params:\n    parameterization: v\n", V),
    "quoted v": ('model:\n  params:\n    parameterization: "v"\n    unet_config: {}\n', V),
    "eps": ("model:\n  params:\n    parameterization: eps\n", EPSILON),
    "an original configuration": ("model:\n  params:\n    unet_config:\n      target: x\n", EPSILON),
    "v of Stability AI": (
        "model:\n params:\n  denoiser_config:\n   params:\n    scaling_config:\n     target: sgm.modules.VScaling\n",
        V,
    ),
    "noise of Stability AI": (
        "model:\n params:\n  denoiser_config:\n   params:\n    scaling_config:\n     target: sgm.modules.EpsScaling\n",
        EPSILON,
    ),
    "something else": ("- a\n- b\n", None),
    "empty": ("", None),
}


@pytest.mark.parametrize("case", YAMLS)
def test_a_yaml_beside_the_file_counts_first(case: str, tmp_path: Path) -> None:
    text, expected = YAMLS[case]
    (tmp_path / "a.yaml").write_text(text)
    other = {EPSILON: "v", V: "epsilon", None: "v"}[expected]

    found = find_prediction(tmp_path / "a.ckpt", {}, {"modelspec.prediction_type": other})

    assert found == (Prediction(expected, False, "a.yaml") if expected else Prediction(V, False, "its metadata"))


@pytest.mark.parametrize(
    "text", ["a: [", "a: !!python/object/apply:os.system ['echo pwned']", "\xff\xfe", "[" * 5000], ids=range(4)
)
def test_a_broken_yaml_is_named_and_runs_nothing(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_bytes(text.encode("latin-1"))

    with pytest.raises(ModelError, match=r"a\.yaml, which lies beside the model, cannot be read"):
        find_prediction(tmp_path / "a.ckpt", {}, {})
    assert capfd.readouterr().out == ""


def test_the_user_has_the_last_word() -> None:
    found = Prediction(V, True, "its metadata")
    assert override(found, None, None) == found
    assert override(found, EPSILON, None) == Prediction(EPSILON, False, "as given")
    assert override(found, None, True) == found
    given = "its metadata, but the last timestep as given"
    assert override(found, None, False) == Prediction(V, False, given)
    assert override(Prediction(V, False, "its metadata"), None, True) == Prediction(V, True, given)
    assert override(Prediction(EPSILON, False, "x"), V, True) == Prediction(V, True, "as given")
    with pytest.raises(UsageError, match="give `prediction_type` v_prediction"):
        override(Prediction(EPSILON, False, "x"), None, True)
    with pytest.raises(UsageError, match="'sample' is not known; give epsilon or v_prediction"):
        override(found, "sample", None)


def test_the_scheduler_that_follows() -> None:
    plain = DDPMScheduler(**Prediction(EPSILON, False, "").scheduler_config())
    zero = DDPMScheduler(**Prediction(V, True, "").scheduler_config())

    assert plain.alphas_cumprod[-1] == pytest.approx(0.0047, abs=1e-4)  # of Stable Diffusion
    assert zero.alphas_cumprod[-1] == 0
    assert (zero.config.timestep_spacing, plain.config.timestep_spacing) == ("trailing", "leading")
    kept = Prediction(EPSILON, False, "").scheduler_config(
        {**SCHEDULER, "beta_end": 0.02, "timestep_spacing": "linspace"}
    )
    assert (kept["beta_end"], kept["timestep_spacing"]) == (0.02, "linspace")


class UNet:
    """Predicts for pictures of zeros, perfectly: the noise that it sees, or v."""

    def __init__(self, predicts: str, in_channels: int = 4) -> None:
        self.conv_in = SimpleNamespace(weight=torch.zeros(1))
        self.config = SimpleNamespace(out_channels=4, in_channels=in_channels)
        self.predicts = predicts
        self.alpha_bar = DDPMScheduler(**SCHEDULER).alphas_cumprod[-1]

    def __call__(self, sample: torch.Tensor, timestep: int, *, encoder_hidden_states: Any, return_dict: bool) -> Any:
        assert timestep == 999 and sample.shape[1] == self.config.in_channels and encoder_hidden_states.shape[0] == 1
        noise = sample[:, :4] / (1 - self.alpha_bar).sqrt()
        return (noise if self.predicts == EPSILON else self.alpha_bar.sqrt() * noise - torch.randn(noise.shape),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_picto_gives_back_the_noise_it_is_shown(dtype: torch.dtype) -> None:
    model = load_model("picto", dtype=dtype)

    found = probe(model.unet, model.encode_prompts([""]).hidden_states)

    assert (found.prediction_type, model.unet.dtype) == (EPSILON, dtype)


@pytest.mark.parametrize("in_channels", [4, 9])
@pytest.mark.parametrize("predicts", [EPSILON, V])
def test_a_unet_that_says_nothing_is_tried(predicts: str, in_channels: int) -> None:
    found = probe(UNet(predicts, in_channels), torch.zeros(1, 77, 8))
    assert found == Prediction(predicts, False, "a trial of its U-Net")
