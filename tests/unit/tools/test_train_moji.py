import argparse
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from tools import moji_vae, train_moji
from tools.drawings import BACKGROUNDS, STYLES
from tools.train_moji import Lessons, Training, rate_share, scenes
from transformers import CLIPTextModel

SETTINGS = argparse.Namespace(
    seed=0, batch=4, rate=2e-3, word_rate=5e-3, warmup=5, muon_iterations=3, compile=False, work=None
)
TINY = {**train_moji.UNET_CONFIG, "block_out_channels": (16, 16, 16), "cross_attention_dim": 16}


class FewTokens:
    """What ``text_config`` asks of a tokenizer."""

    bos_token_id, eos_token_id, pad_token_id = 38, 39, 39

    def __len__(self) -> int:
        return 40


def lessons() -> Lessons:
    rng = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 38, (10, 4, train_moji.TOKENS), generator=rng)
    tokens[..., -2:] = 39
    return Lessons(torch.randn(10, 4, 8, 8, generator=rng), tokens, torch.full((train_moji.TOKENS,), 39))


def training() -> Training:
    torch.manual_seed(3)
    text_encoder = CLIPTextModel(train_moji.text_config(FewTokens(), 16))  # type: ignore[arg-type]
    return Training(UNet2DConditionModel(**TINY), text_encoder, SETTINGS)


def test_a_training_that_was_stopped_makes_the_same_steps(tmp_path: Path) -> None:
    known = lessons()
    whole = training()
    losses = [whole.advance(known, (2, 4)) for _ in range(5)]
    first = training()
    again = [first.advance(known, (2, 4)) for _ in range(3)]
    train_moji.write(first.state(), tmp_path / "state.pt")
    second = training()
    second.load(torch.load(tmp_path / "state.pt", weights_only=True))
    again += [second.advance(known, (2, 4)) for _ in range(2)]
    assert again == losses and len(set(losses)) == 5
    for a, b in zip(whole.parameters + whole.average, second.parameters + second.average, strict=True):
        assert torch.equal(a, b)


def test_what_was_exported_is_gone_on_from(tmp_path: Path) -> None:
    work, again = tmp_path / "work", tmp_path / "again"
    tokenizer = train_moji.tokenizer_of(work, ["a cat face, noto style"])
    unet, text = UNet2DConditionModel(**train_moji.UNET_CONFIG), CLIPTextModel(train_moji.text_config(tokenizer))
    begun = Training(unet, text, SETTINGS)
    begun.step = 7
    train_moji.write({**begun.state(), "seconds": 3.0, "cpu_seconds": 2.0}, work / "unet.partial.pt")
    torch.save({"scale": 0.7}, work / "latents.pt")
    torch.save(moji_vae.load(None).state_dict(), work / "vae.pt")
    train_moji.export(argparse.Namespace(work=work, model=None))

    found = argparse.Namespace(work=again, model=work / "model")
    train_moji.restore(found)

    state = torch.load(again / "unet.partial.pt", weights_only=True)
    gone_on = Training(UNet2DConditionModel(**train_moji.UNET_CONFIG), CLIPTextModel(text.config), SETTINGS)
    gone_on.load(state)
    assert (gone_on.step, state["seconds"], state["cpu_seconds"]) == (7, 3.0, 2.0)
    for name, weight in begun.both.state_dict().items():
        if "position_embedding" not in name:  # those that no caption reaches are alike
            torch.testing.assert_close(gone_on.both.state_dict()[name], weight, rtol=1e-3, atol=1e-6)
    texts = ["a cat face, noto style"]
    assert train_moji.tokenizer_of(again, texts)(texts).input_ids == tokenizer(texts).input_ids
    with pytest.raises(SystemExit, match="is there already"):
        train_moji.restore(found)


def test_a_training_learns() -> None:
    known, taught = lessons(), training()
    known.latents[:] = known.latents[:1]  # one picture, whatever is said
    losses = [taught.advance(known) for _ in range(20)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_the_rate_climbs_stays_and_falls_from_the_step_that_was_said() -> None:
    assert [rate_share(step, 4, None) for step in (0, 1, 3, 4, 10_000)] == [0.25, 0.5, 1, 1, 1]
    assert [rate_share(step, 4, (100, 50)) for step in (99, 100, 125, 150, 200)] == [1, 1, 0.5, 0, 0]


def test_scenes_show_every_place_and_background_of_every_subject_in_every_style() -> None:
    found = scenes(["a", "b"], 7, seed=0)
    assert found == scenes(["a", "b"], 7, seed=0)
    for subject in ("a", "b"):
        for style in STYLES:
            mine = [scene for scene in found if (scene.subject, scene.style) == (subject, style)]
            assert {scene.background for scene in mine} == set(BACKGROUNDS)
            assert [scene.size for scene in mine].count("large") == 2
            assert len({scene.position for scene in mine if scene.size == "small"}) == 5


def test_a_short_prompt_weighs_its_end_as_the_long_one_does() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**TINY).eval()
    torch.nn.init.normal_(unet.conv_out.weight)
    hidden = torch.randn(2, train_moji.TOKENS, 16)
    long = torch.cat([hidden, hidden[:, -1:].expand(-1, 77 - train_moji.TOKENS, -1)], dim=1)
    noisy = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        whole = unet(noisy, 500, long).sample
        short = unet(noisy, 500, hidden, encoder_attention_mask=train_moji.long_ends(2)).sample
        unweighted = unet(noisy, 500, hidden).sample
    assert torch.allclose(whole, short, atol=2e-3)
    assert (whole - unweighted).abs().max() > 10 * (whole - short).abs().max()


def test_a_caption_that_is_too_long_is_refused(tmp_path: Path) -> None:
    texts = ["a cat, noto style", "word " * 30]
    tokenizer = train_moji.tokenizer_of(tmp_path, texts)
    assert len(tokenizer.tokenize("a cat, noto style")) == 5
    with pytest.raises(ValueError, match="raise TOKENS"):
        train_moji.tokens_of(tokenizer, texts)


def test_a_decay_begins_where_it_was_said_or_with_the_next_step(tmp_path: Path) -> None:
    assert train_moji.read_decay(tmp_path, 9) is None
    train_moji.begin_decay(argparse.Namespace(work=tmp_path, start=70, steps=30))
    assert train_moji.read_decay(tmp_path, 9) == (70, 30)
    train_moji.begin_decay(argparse.Namespace(work=tmp_path, start=None, steps=30))
    assert train_moji.read_decay(tmp_path, 9) == (9, 30)
    assert train_moji.read_decay(tmp_path, 20) == (9, 30)
