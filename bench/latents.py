"""How soon a run has its data set and latents, with latents kept from an earlier run and without.

python bench/latents.py                                        40 pictures of 1536 x 1024 pixels, encoded by picto's VAE
python bench/latents.py --encoder sd15 --pictures 6 --rounds 3  by a VAE of Stable Diffusion 1's size, at 512 x 512

What is timed is everything between the loaded model and the first step that has to do with pictures: finding, checking
and decoding them, the hash of the VAE, encoding or reading, and keeping. Cold and warm runs take turns in one process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench.measure import spread  # noqa: E402
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: E402
from PIL import Image  # noqa: E402
from tools.make_checkpoint import anatomy  # noqa: E402
from torch import Tensor  # noqa: E402

from tincture.data.decoded import PIXEL_MEMORY  # noqa: E402
from tincture.data.folders import load_dataset  # noqa: E402
from tincture.data.latent_files import LatentFiles  # noqa: E402
from tincture.data.latents import LatentCache  # noqa: E402
from tincture.data.picture_check import check_picture  # noqa: E402
from tincture.models.loading.load import load_model  # noqa: E402
from tincture.models.vae_hash import vae_hash  # noqa: E402

Results = dict[str, list[float]]


@dataclass
class Encoder:
    """A VAE alone, which is all of a model that is asked here."""

    vae: Any
    size: int
    device = torch.device("cpu")

    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            posterior = self.vae.encode(pixels).latent_dist
        return posterior.mean, posterior.std


def make_encoder(name: str) -> Encoder:
    """picto's VAE for 64 x 64 pixels, or one with Stable Diffusion 1's anatomy and random weights for 512 x 512."""
    if name == "picto":
        return Encoder(load_model("picto").vae, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder(AutoencoderKL(**anatomy("sd1", full=True)["vae"]).eval(), 512)


def write_photographs(folder: Path, count: int, width: int, height: int) -> None:
    """JPEG files of smooth noise with grain, which take about as long to decode as photographs do."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=90)
        (folder / f"{number:04}.txt").write_text("a photograph", encoding="utf-8")


def seconds_to_latents(encoder: Encoder, pictures: Path, cache: Path | None) -> float:
    """Seconds from a loaded model to the latents of all pictures."""
    started = time.perf_counter()
    files = None if cache is None else LatentFiles(cache, vae_hash(encoder.vae))
    check = check_picture if files is None else files.check
    dataset = load_dataset(pictures, width=encoder.size, height=encoder.size, check=check, keep_pixels=PIXEL_MEMORY)
    LatentCache.encode(encoder, dataset, files=files)
    seconds = time.perf_counter() - started
    if files is not None and files.remarks():
        raise RuntimeError(" ".join(files.remarks()))
    return seconds


def measure_latents(encoder: Encoder, root: Path, count: int, size: tuple[int, int], rounds: int) -> Results:
    """Seconds of every round, without a cache, with an empty one and with a full one, and warm/cold."""
    write_photographs(root / "pictures", count, *size)
    seconds_to_latents(encoder, root / "pictures", None)  # for the files to be in the system's cache
    results: Results = {"no cache": [], "cold": [], "warm": [], "warm/cold": []}
    for number in range(rounds):
        cache = root / f"cache {number}"
        results["no cache"].append(seconds_to_latents(encoder, root / "pictures", None))
        results["cold"].append(seconds_to_latents(encoder, root / "pictures", cache))
        results["warm"].append(seconds_to_latents(encoder, root / "pictures", cache))
        results["warm/cold"].append(results["warm"][-1] / results["cold"][-1])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=("picto", "sd15"), default="picto")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--size", type=int, nargs=2, default=(1536, 1024), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tincture-bench-") as root:
        results = measure_latents(make_encoder(args.encoder), Path(root), args.pictures, tuple(args.size), args.rounds)
    print(f"{args.pictures} pictures of {args.size[0]} x {args.size[1]}, encoder {args.encoder}, {args.rounds} rounds")
    for name, values in results.items():
        found = spread(values)
        unit = "" if "/" in name else " s"
        print(f"{name:10} {found['median']:8.3f}{unit} ({found['min']:.3f} to {found['max']:.3f})")


if __name__ == "__main__":
    main()
