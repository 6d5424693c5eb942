from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.served import write_pictures
from tests.unit.preprocessing.pictures import texture
from tincture.cli import main
from tincture.preprocessing import pipeline
from tincture.preprocessing.pipeline import PreprocessResult
from tincture.settings.preprocess import PREPROCESS_FIELDS, PreprocessSettings

COUNTS = {"sources": 4, "used": 3, "skipped": 1, "pictures": 6, "captions": 2}
COUNTS |= {"training": 2, "validation": 1, "near_duplicates": 1}
RESULT = PreprocessResult(Path("out"), Path("out/report.json"), COUNTS, 1, (("bad.png", "is bad"),), False, 2.5)


@dataclasses.dataclass
class FakePipeline:
    """Stands for `preprocess`: notes how it was called."""

    result: PreprocessResult = RESULT
    calls: list[tuple[PreprocessSettings, bool]] = dataclasses.field(default_factory=list)

    def preprocess(
        self, source: str, destination: str, *, overwrite: bool, callbacks: Any, stop: Any, **options: Any
    ) -> PreprocessResult:
        settings = PreprocessSettings(source=source, destination=destination, **options)
        self.calls.append((settings, overwrite))
        return self.result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePipeline:
    made = FakePipeline()
    monkeypatch.setattr(pipeline, "preprocess", made.preprocess)
    monkeypatch.chdir(tmp_path)
    return made


# one value per setting that is not its default, as words of a command line and as it must arrive
VALUES: dict[str, tuple[list[str], Any]] = {
    "recursive": ([], True),
    "width": (["128"], 128),
    "height": (["64"], 64),
    "keep_original_size": ([], True),
    "split": ([], True),
    "split_threshold": (["0.4"], 0.4),
    "overlap_ratio": (["0.3"], 0.3),
    "focal_crop": ([], True),
    "focal_face_weight": (["1"], 1.0),
    "focal_entropy_weight": (["2"], 2.0),
    "focal_corner_weight": (["3"], 3.0),
    "focal_debug": ([], True),
    "face_detector": (["haar"], "haar"),
    "yunet_model": (["y.onnx"], "y.onnx"),
    "multicrop": ([], True),
    "multicrop_min_dim": (["64"], 64),
    "multicrop_max_dim": (["128"], 128),
    "multicrop_min_area": (["2"], 2),
    "multicrop_max_area": (["99999"], 99999),
    "multicrop_objective": (["error"], "error"),
    "multicrop_threshold": (["0.2"], 0.2),
    "flip": ([], True),
    "keep_alpha": ([], True),
    "existing_captions": (["append"], "append"),
    "caption_encoding": (["cp1252"], "cp1252"),
    "captioner": (["blip"], "blip"),
    "captioner_prompt": (["a picture of"], "a picture of"),
    "captioner_beams": (["1"], 1),
    "captioner_min_tokens": (["2"], 2),
    "captioner_max_tokens": (["9"], 9),
    "captioner_precision": (["bf16"], "bf16"),
    "tagger": (["wd"], "wd"),
    "tag_threshold": (["0.5"], 0.5),
    "tag_character_threshold": (["0.6"], 0.6),
    "tag_order": (["alphabet"], "alphabet"),
    "tag_underscores": ([], True),
    "tag_escapes": (["--no-tag-escapes"], False),
    "excluded_tags": (["solo"], ("solo",)),
    "validation_share": (["0.2"], 0.2),
    "seed": (["5"], 5),
    "near_duplicates": (["--no-near-duplicates"], False),
    "near_duplicate_bits": (["3"], 3),
    "workers": (["2"], 2),
    "device": (["cpu"], "cpu"),
    "caption_batch_size": (["4"], 4),
}


def words_of(name: str) -> list[str]:
    given, _ = VALUES[name]
    flag = f"--{name.replace('_', '-')}"
    return given if given and given[0].startswith("--no-") else [flag, *given]


def test_every_setting_is_a_flag(fake: FakePipeline) -> None:
    assert set(VALUES) == set(PREPROCESS_FIELDS) - {"source", "destination"}
    assert main(["preprocess", "in", "out", *(word for name in VALUES for word in words_of(name))]) == 0
    values = {name: value for name, (_, value) in VALUES.items()}
    assert fake.calls == [(PreprocessSettings(source="in", destination="out", **values), False)]
    assert all(value != PREPROCESS_FIELDS[name].default for name, value in values.items())


def test_without_flags_the_defaults_stand(fake: FakePipeline) -> None:
    assert main(["preprocess", "in", "out", "--overwrite"]) == 0
    assert fake.calls == [(PreprocessSettings(source="in", destination="out"), True)]


def test_a_file_may_hold_settings_and_flags_win(fake: FakePipeline, tmp_path: Path) -> None:
    (tmp_path / "crops.toml").write_text('source = "in"\nwidth = 256\nflip = true\nfocal_crop = true\n')
    assert main(["preprocess", "other", "out", "--config", "crops.toml", "--width", "64", "--no-flip"]) == 0
    ((settings, _),) = fake.calls
    assert (settings.source, settings.destination) == ("other", "out")
    assert (settings.width, settings.flip, settings.focal_crop) == (64, False, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "source is missing"),
        (["in"], "destination is missing"),
        (["in", "out", "--width", "100"], "width is 100, but must be a multiple of 8"),
        (["in", "out", "--config", "absent.toml"], "absent.toml"),
        (["in", "out", "--split-threshold", "x"], "--split-threshold"),
    ],
)
def test_bad_usage_exits_with_2(fake: FakePipeline, capsys: Any, words: list[str], told: str) -> None:
    assert main(["preprocess", *words]) == 2
    assert told in capsys.readouterr().err
    assert not fake.calls


def test_the_result_is_told_to_a_person(fake: FakePipeline, capsys: Any) -> None:
    assert main(["preprocess", "in", "out"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "out: 6 pictures, 2 with captions, from 3 of 4 sources in 2.5 s",
        "2 sources were done before",
        "sources for training: 2, for validation: 1",
        "pairs of near-duplicates: 1",
        f"report: {Path('out/report.json')}",
    ]
    assert "skipped bad.png: is bad" in shown.err


def test_the_result_is_told_to_a_program(fake: FakePipeline, capsys: Any) -> None:
    assert main(["preprocess", "in", "out", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["skipped_sources"] == {"bad.png": "is bad"}
    assert told["pictures"] == 6 and told["new"] == 1 and told["interrupted"] is False


def test_many_skipped_pictures_do_not_flood_the_screen(fake: FakePipeline, capsys: Any) -> None:
    many = tuple((f"{number}.png", "is bad") for number in range(30))
    fake.result = dataclasses.replace(RESULT, skipped=many)
    assert main(["preprocess", "in", "out"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert len(lines) == 11 and "20 more; see" in lines[-1]


def test_an_interrupted_run_exits_with_130(fake: FakePipeline, capsys: Any) -> None:
    fake.result = dataclasses.replace(RESULT, interrupted=True)
    assert main(["preprocess", "in", "out"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_the_help_tells_groups(capsys: Any) -> None:
    assert main(["preprocess", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{spec.group}:" in shown for spec in PREPROCESS_FIELDS.values())


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal of POSIX")
def test_ctrl_c_in_a_terminal_stops_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The whole program: a bar on the terminal, Ctrl-C to all its processes, 130, and the rest by a second call."""
    (tmp_path / "in").mkdir()
    for number in range(300):
        texture(200, 150, seed=number).save(tmp_path / "in" / f"{number}.png", compress_level=0)
    words = ["preprocess", "in", "out", "--focal-crop", "--flip", "--width", "256", "--workers", "2"]
    command = [sys.executable, "-m", "tincture", *words]
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=terminal,
        stderr=terminal,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        os.close(terminal)
        shown = b""
        while not list((tmp_path / "out").glob("*.png")):
            shown += os.read(controller, 4096)
        os.killpg(program.pid, signal.SIGINT)
        shown += _rest(controller)
        assert program.wait() == 130, shown.decode()
    assert b"Traceback" not in shown and b"stopping after the pictures at hand" in shown
    assert b"cutting" in shown
    told = json.loads((tmp_path / "out" / "preprocess-report.json").read_text())
    assert not told["complete"] and 0 < told["counts"]["used"] < 300
    assert len(list((tmp_path / "out").glob("*.png"))) == told["counts"]["pictures"] == 2 * told["counts"]["used"]
    assert not list((tmp_path / "out").glob(".*"))


def _rest(controller: int) -> bytes:
    """What a terminal shows until its program ends."""
    shown = b""
    while True:
        try:
            part = os.read(controller, 4096)
        except OSError:  # Linux' way to say that nobody has the terminal any more
            part = b""
        if not part:
            os.close(controller)
            return shown
        shown += part


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["in", "full"], "choose a new folder, or give --overwrite to put crops among what is there."),
        (["in", "in/crops", "--recursive"], "Choose a folder outside it, or leave out --recursive."),
    ],
)
def test_what_would_lift_a_refusal_is_named_as_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], refusal: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert main(["preprocess", *words]) == 2
    assert refusal in capsys.readouterr().err
