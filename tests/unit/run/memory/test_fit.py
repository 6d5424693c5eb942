from __future__ import annotations

import errno
from typing import Any, cast

import pytest
import torch

from tincture.errors import OutOfMemoryError, UsageError
from tincture.run.memory import fit as memory_fit
from tincture.run.memory.estimate import PREVIEWS, TRAINING, MemoryEstimate, MemoryEstimator
from tincture.run.memory.fit import available_memory, fit, is_shortage, saving, shortage_explained, shortage_text
from tincture.settings.train import TrainSettings

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
GIB = 2**30
SAVES: dict[str, Any] = {
    "offload": True,
    "slicing": True,
    "precision": "bf16",
    "gradient_checkpointing": True,
    "weight_storage": "float8",
}


class Told:
    """An estimator that knows: 16 GiB, less so many for each measure."""

    def __init__(self, fullest: str = TRAINING, **less: float) -> None:
        self.less, self.fullest = less, fullest

    def estimate(self, settings: TrainSettings) -> MemoryEstimate:
        changed = {name: getattr(settings, name) == value for name, value in SAVES.items()}
        changed |= {"batch_size": settings.batch_size == 1, "preview_every": settings.preview_every == 0}
        size = 16 - sum(less for name, less in self.less.items() if changed[name])
        return MemoryEstimate({}, 0, 0, {self.fullest: int(size * GIB), "other": 1})


def told(fullest: str = TRAINING, **less: float) -> MemoryEstimator:
    return cast(MemoryEstimator, Told(fullest, **less))


def settings(**changes: Any) -> TrainSettings:
    given = {"kind": "hypernetwork", "name": "ink", "data": "d", "vram": "8", "batch_size": 4, **changes}
    return TrainSettings.from_dict(given).resolved()


def chosen(given: TrainSettings, estimator: MemoryEstimator, available: float, device: torch.device = CUDA) -> set[str]:
    found, estimate = fit(given, estimator, int(available * GIB), device)
    assert estimate.peak <= available * GIB and not found.open_memory_settings()
    return {name for name, value in SAVES.items() if getattr(found, name) == value}


@pytest.fixture(autouse=True)
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_fit, "half_precision", lambda device: "bf16")


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_nothing_is_chosen_where_everything_fits() -> None:
    assert chosen(settings(), told(offload=1), 16) == set()


def test_the_cheapest_measures_are_taken_first() -> None:
    estimator = told(offload=1, slicing=1, precision=6, gradient_checkpointing=3, weight_storage=2)
    assert chosen(settings(), estimator, 15) == {"offload"}
    assert chosen(settings(), estimator, 14) == {"offload", "slicing"}
    assert chosen(settings(), estimator, 3) == set(SAVES)


def test_measures_that_turn_out_needless_are_left_out() -> None:
    assert chosen(settings(), told(offload=1, precision=6), 10) == {"precision"}
    assert chosen(settings(), told(offload=1, slicing=1, gradient_checkpointing=8), 7) == {
        "offload",
        "gradient_checkpointing",
    }


def test_eight_bits_are_not_computed_with_in_32() -> None:
    assert chosen(settings(), told(weight_storage=8), 8) == {"precision", "weight_storage"}
    assert chosen(settings(precision="fp32"), told(weight_storage=8), 8) == {"weight_storage"}


def test_what_was_given_stays() -> None:
    estimator = told(offload=1, slicing=1, precision=6, gradient_checkpointing=3)
    assert chosen(settings(precision="fp32", offload=False), estimator, 12) == {"slicing", "gradient_checkpointing"}
    assert chosen(settings(gradient_checkpointing=True), estimator, 13) == {"gradient_checkpointing"}


def test_devices_differ_in_what_they_can() -> None:
    assert list(saving(CUDA)) == list(SAVES)
    assert "offload" not in saving(CPU) and "weight_storage" not in saving(torch.device("mps"))
    assert chosen(settings(), told(offload=4, precision=4), 12, CPU) == {"precision"}


def test_what_never_fits_is_refused_with_what_it_takes() -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        fit(settings(), told(offload=1, precision=6, batch_size=5), 3 * GIB, CUDA)
    assert str(caught.value) == (
        "The run does not fit into the memory of the device cuda, of which 3.0 GiB is to be used of 8 (`vram`). "
        "The run takes about 9.0 GiB (training), and 4.0 GiB with `batch_size` 1 `gradient_accumulation_steps` 4 or "
        "less with a smaller `width` and `height`."
    )
    with pytest.raises(
        OutOfMemoryError, match=r"3\.0 GiB is free\..*\(training\), and less with a smaller `width`.*With `vram` off"
    ):
        fit(settings(vram="auto", batch_size=1), told(), 3 * GIB, CUDA)


# --- what there is ----------------------------------------------------------------------------------------------------


def test_gigabytes_are_those_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_memory(settings(vram="8"), CPU) == int(8 * GIB * 0.92)
    assert available_memory(settings(vram="8"), CUDA) == int(7.5 * GIB * 0.92)  # CUDA itself takes some
    monkeypatch.setattr(memory_fit, "free_memory", lambda device: 4 * GIB)
    assert available_memory(settings(vram="auto"), CUDA) == int(4 * GIB * 0.92)


def test_auto_needs_someone_who_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_fit, "free_memory", lambda device: None)
    with pytest.raises(UsageError, match=r"`vram` auto cannot find out .* the device cpu has; install psutil, or give"):
        available_memory(settings(vram="auto"), CPU)


# --- shortage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_shortages_are_known(error: Exception) -> None:
    assert is_shortage(error)
    with (
        pytest.raises(OutOfMemoryError, match=r"The memory of the device cuda ran out") as caught,
        shortage_explained(settings(), CUDA, lambda: None),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_an_estimate_that_fails_does_not_hide_the_shortage() -> None:
    class Broken:
        def estimate(self, settings: TrainSettings) -> MemoryEstimate:
            raise AssertionError

    with (
        pytest.raises(OutOfMemoryError, match=r"ran out\. Give `offload`,"),
        shortage_explained(settings(), CUDA, lambda: cast(MemoryEstimator, Broken())),
    ):
        raise MemoryError


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        OSError(errno.ENOSPC, "No space left"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, shortage_explained(settings(), CUDA, lambda: None):
        raise error
    assert caught.value is error


def test_a_shortage_names_what_to_change_with_what_it_leaves() -> None:
    given = settings(vram="off", slicing=True, batch_size=2, gradient_accumulation_steps=3)
    estimator = told(offload=1, slicing=1, precision=6, gradient_checkpointing=3, weight_storage=0.5, batch_size=2)
    assert shortage_text(given, CUDA, estimator) == (
        "The memory of the device cuda ran out. The run takes about 15.0 GiB (training), and 14.0 GiB with --offload, "
        "9.0 GiB with --precision bf16, 12.0 GiB with --gradient-checkpointing, 14.5 GiB with --weight-storage float8, "
        "13.0 GiB with --batch-size 1 --gradient-accumulation-steps 6, 2.5 GiB with --offload --precision bf16 "
        "--gradient-checkpointing --weight-storage float8 --batch-size 1 --gradient-accumulation-steps 6 or less with "
        "a smaller --width and --height. --vram auto chooses among them by itself."
    )


def test_a_shortage_at_previews_names_them() -> None:
    given = settings(vram="off", **{**SAVES, "precision": "fp16"}, batch_size=1)
    text = shortage_text(given, CUDA, told(PREVIEWS, preview_every=4))
    assert "16.0 GiB (previews), and 12.0 GiB with --preview-every 0 or less" in text


def test_a_shortage_that_nobody_can_measure_still_names_what_to_change() -> None:
    text = shortage_text(settings(vram="off"), CPU, None)
    assert "Give --slicing, --precision bf16, --gradient-checkpointing, --weight-storage float8" in text


def test_a_run_that_can_go_on_is_told_what_can_change_then() -> None:
    text = shortage_text(settings(vram="off", offload=True), CUDA, told(slicing=2, batch_size=3), "runs/ink")
    assert "14.0 GiB with --slicing" in text and "--batch-size" not in text
    assert text.endswith("What was saved is whole: go on with tincture resume 'runs/ink' and such an option.")
    text = shortage_text(settings(vram="off", offload=True), CUDA, None, "runs/ink")
    assert "Give --slicing, --precision bf16, --gradient-checkpointing or --weight-storage float8. What was" in text
    saving_all = settings(vram="off", **SAVES)
    assert "resume 'runs/ink' and more memory" in shortage_text(saving_all, CUDA, told(), "runs/ink")
