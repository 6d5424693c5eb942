from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tincture.errors import DataError, TinctureError, UsageError
from tincture.server.errors import ForbiddenPathError, TooMuchError
from tincture.server.requests.conversion import checked_conversion
from tincture.server.requests.places import Places
from tincture.settings.drawing import Drawing, DrawingRequest
from tincture.settings.model_overrides import ModelOverrides
from tincture.workspace import Workspace

TRAINING = {"kind": "embedding", "name": "cat", "data": "pictures"}
posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of a POSIX system")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with pictures, a model and a VAE, and a secret beside it."""
    root = tmp_path / "workspace"
    for folder in ("pictures", "models/Stable-diffusion/sub", "models/VAE", "textual_inversion_templates"):
        (root / folder).mkdir(parents=True)
    (root / "pictures" / "a.png").write_bytes(b"x")
    (root / "models/Stable-diffusion/sub/house.safetensors").write_bytes(b"x")
    (root / "models/VAE/bright.pt").write_bytes(b"x")
    (root / "textual_inversion_templates/mine.txt").write_text("a [name]")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    return Workspace(root)


@pytest.fixture
def places(workspace: Workspace) -> Places:
    return Places(workspace, workspace.root / "tincture-server")


def test_paths_inside_are_absolute_and_need_not_exist(workspace: Workspace, places: Places) -> None:
    root = workspace.root
    assert places.path("pictures") == root / "pictures"
    assert places.path(str(root / "pictures" / "a.png")) == root / "pictures" / "a.png"
    assert places.path("new/inner/../file") == root / "new" / "file"
    assert places.path(".") == root
    assert places.path("..cat/a..b/…") == root / "..cat" / "a..b" / "…"
    assert places.shown(root / "pictures" / "a.png") == "pictures/a.png"
    assert places.shown(Path("/elsewhere")) == "/elsewhere"


@pytest.mark.parametrize(
    "text",
    [
        "..",
        "../outside/secret.txt",
        "pictures/../../outside",
        "nowhere/../../outside",
        "/etc/passwd",
        "/",
        "//host/share",
        "\\\\host\\share",
        "~",
        "~/x",
        "~root/x",
        "/proc/self/environ",
        "/dev/zero",
        "../workspace-2",
        "../workspace/../outside",
    ],
)
def test_paths_that_lead_out_are_refused(places: Places, text: str) -> None:
    with pytest.raises(ForbiddenPathError) as told:
        places.path(text)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "a\0b",
        "a\nb",
        "\x7f",
        "\ud800",
        "a" * 256,
        "ä" * 130,
        "/".join(["a" * 200] * 30),
        "pictures/a.png/b",
        None,
        3,
        True,
        ["a"],
    ],
)
def test_what_is_no_path_is_refused(places: Places, text: Any) -> None:
    with pytest.raises(UsageError) as told:
        places._optional(text) if isinstance(text, str) and text else places.model(text)
    assert len(str(told.value)) < 300


@posix
def test_links_are_resolved_at_every_request(workspace: Workspace, places: Places, tmp_path: Path) -> None:
    link = workspace.root / "link"
    link.symlink_to(workspace.root / "pictures")
    assert places.path("link/a.png") == workspace.root / "pictures" / "a.png"
    link.unlink()
    link.symlink_to(tmp_path / "outside")
    for text in ("link", "link/secret.txt", "link/new/file", "pictures/../link/secret.txt"):
        with pytest.raises(ForbiddenPathError):
            places.path(text)
    # ".." goes up from where the link leads, as for the system itself
    with pytest.raises(ForbiddenPathError):
        places.path("link/../outside/secret.txt")


@posix
def test_links_in_a_circle_are_refused(workspace: Workspace, places: Places) -> None:
    (workspace.root / "a").symlink_to("b")
    (workspace.root / "b").symlink_to("a")
    for text in ("a", "a/x", "a/../../outside/secret.txt"):
        with pytest.raises(UsageError):
            places.path(text)


@posix
def test_dangling_links_count_as_where_they_lead(workspace: Workspace, places: Places, tmp_path: Path) -> None:
    (workspace.root / "new").symlink_to(tmp_path / "outside" / "not-yet")
    with pytest.raises(ForbiddenPathError):
        places.path("new/file", writing=True)
    (workspace.root / "fine").symlink_to(workspace.root / "not-yet")
    assert places.path("fine/file") == workspace.root / "not-yet" / "file"


@posix
def test_pipes_sockets_and_devices_are_refused(workspace: Workspace, places: Places) -> None:
    os.mkfifo(workspace.root / "pipe")
    (workspace.root / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(workspace.root)  # names of sockets must be short
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        for text in ("pipe", "null", "socket"):
            with pytest.raises(ForbiddenPathError):
                places.path(text)


def test_allowed_folders_count_and_must_exist(workspace: Workspace, tmp_path: Path) -> None:
    places = Places(workspace, tmp_path / "state", [str(tmp_path / "outside")])
    assert places.path(str(tmp_path / "outside" / "secret.txt")).is_file()
    assert places.path("../outside/secret.txt").is_file()
    assert places.path(str(tmp_path / "state" / "x"))
    with pytest.raises(ForbiddenPathError):
        places.path(str(tmp_path / "outside-2"))
    with pytest.raises(UsageError, match="is not a folder"):
        Places(workspace, tmp_path / "state", [str(tmp_path / "nowhere")])


@posix
def test_even_where_the_whole_disk_is_allowed_the_systems_own_folders_are_not(workspace: Workspace) -> None:
    places = Places(workspace, workspace.root / "state", ["/"])
    assert places.path("/etc") == Path("/etc").resolve()
    for text in ("/proc/self/environ", "/dev/zero", "/sys/kernel", "/proc"):
        with pytest.raises(ForbiddenPathError):
            places.path(text)


@posix
@pytest.mark.parametrize("allowed", [[], ["/"]])
@pytest.mark.parametrize(
    "text",
    [
        *("/proc/self/cwd/pictures", "/proc/1/root/etc", "/proc/1/cwd", "/proc/1/fd/0", "/proc/self/root", "/dev/fd/0"),
        *("/dev/stdin", "pictures/../../../../../../../../../../proc/self/cwd", "/proc/self/fd/0"),
        *("link/pictures", "link", "chain/x", "/proc/thread-self/cwd/pictures", "/proc/1/map_files/x"),
    ],
)
def test_nothing_leads_through_the_systems_own_folders(workspace: Workspace, text: str, allowed: list[str]) -> None:
    """A link there leads to what a process has open, into the workspace too, and may be one that nobody may follow."""
    places = Places(workspace, workspace.root / "state", allowed)
    (workspace.root / "link").symlink_to("/proc/self/cwd")
    (workspace.root / "chain").symlink_to("pictures/../link")
    for name in ("path", "folder", "model", "vae", "helper_model"):
        with pytest.raises(ForbiddenPathError, match=r"leads through a folder of the system itself|leads out"):
            getattr(places, name)(text)


@posix
def test_links_of_the_users_own_still_lead_where_they_lead(workspace: Workspace, places: Places) -> None:
    (workspace.root / "link").symlink_to("pictures")
    (workspace.root / "far").symlink_to(workspace.root / "link")
    assert places.path("far/a.png") == places.path("link/../link/a.png") == workspace.root / "pictures" / "a.png"
    (workspace.root / "round").symlink_to("round")
    with pytest.raises(ForbiddenPathError, match="in a circle"):
        places.path("round/x")


def test_the_servers_own_folder_is_read_only(workspace: Workspace, places: Places) -> None:
    assert places.path("tincture-server/pictures/a.png")
    for text in ("tincture-server", "tincture-server/jobs.sqlite3", "pictures/../tincture-server/x"):
        with pytest.raises(ForbiddenPathError, match="server's own"):
            places.path(text, writing=True)
    assert places.path("tincture-server-2", writing=True)


# --- models, VAEs, templates ------------------------------------------------------------------------------------------


def test_models_by_name_path_and_hash(workspace: Workspace, places: Places) -> None:
    path = workspace.models / "sub" / "house.safetensors"
    assert places.model("picto") == "picto"
    for name in ("house", "house.safetensors", "sub/house.safetensors", "house.safetensors [0123456789]", "0123456789"):
        assert places.model(name) == name
    for name in (str(path), "models/Stable-diffusion/sub/house.safetensors"):
        assert places.model(name) == str(path)
    # A file of that name in the workspace's root would go before: the path says what is meant.
    (workspace.root / "house").write_bytes(b"x")
    assert places.model("house") == str(path)


def test_models_that_are_not_there_name_what_comes_near(places: Places) -> None:
    with pytest.raises(UsageError, match="did you mean house"):
        places.model("hause")
    with pytest.raises(ForbiddenPathError):
        places.model("/etc/passwd")
    with pytest.raises(ForbiddenPathError):
        places.model("../outside/secret.txt")


def test_models_of_the_hub_only_where_allowed(workspace: Workspace, places: Places) -> None:
    with pytest.raises(UsageError, match="--allow-hub"):
        places.model("owner/name")
    with pytest.raises(UsageError, match="--allow-hub"):
        places.helper_model("owner/name")
    open_places = Places(workspace, workspace.root / "state", allow_hub=True)
    assert open_places.model("owner/name") == "owner/name"
    assert open_places.helper_model("owner/name") == "owner/name"
    for name in ("pictures/typo", "a/b/c", "../x", "https://host/x", "owner/na me"):
        with pytest.raises(UsageError):
            open_places.model(name)


@posix
def test_a_models_folder_that_is_a_link_works_by_name(workspace: Workspace, places: Places, tmp_path: Path) -> None:
    (tmp_path / "outside" / "far.safetensors").write_bytes(b"x")
    (workspace.models / "linked").symlink_to(tmp_path / "outside")
    assert places.model("far") == "far"
    with pytest.raises(ForbiddenPathError):
        places.model("models/Stable-diffusion/linked/far.safetensors")


def test_vaes_and_templates(workspace: Workspace, places: Places, tmp_path: Path) -> None:
    assert places.vae("") == places.template("") == ""
    assert (places.vae("bright"), places.vae("house")) == ("bright", "house")
    assert places.vae("models/VAE/bright.pt") == str(workspace.vaes / "bright.pt")
    assert (places.template("mine"), places.template("style.txt")) == ("mine", "style.txt")
    new = workspace.root / "pictures" / "new.txt"
    for name in ("pictures/new.txt", "pictures/new", "nowhere"):
        with pytest.raises(UsageError, match=rf"no template '{name}'; .* one of mine, .*style") as told:
            places.template(name)
        assert str(workspace.root) not in str(told.value)
    new.write_text("a [name]")
    assert places.template("pictures/new.txt") == str(new)
    assert places.template("pictures/new") == str(new.with_suffix(""))  # as recipe takes it
    for name in ("../outside/secret.txt", "/etc/passwd", "../../outside/secret"):
        with pytest.raises(ForbiddenPathError):
            places.template(name)
        with pytest.raises(ForbiddenPathError):
            places.vae(name)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_that_a_model_draws_need_not_be_there(workspace: Workspace, places: Places) -> None:
    asked = {**TRAINING, "data": ["pictures"], "prior_data": ["drawn"]}
    made = places.train_settings({**asked, "prior_prompt": "a cat"})
    assert made.prior_folders == (str(workspace.root / "drawn"),)
    assert places.train_settings(made.to_dict()) == made
    with pytest.raises(UsageError, match="drawn"):
        places.train_settings(asked)
    with pytest.raises(ForbiddenPathError):
        places.train_settings({**asked, "prior_data": ["../outside/drawn"], "prior_prompt": "a cat"})


def test_every_path_of_a_training_is_resolved(workspace: Workspace, places: Places) -> None:
    root = workspace.root
    (root / "pictures:2").mkdir()
    (workspace.datasets / "rex").mkdir(parents=True)
    made = places.train_settings(
        {
            **TRAINING,
            "data": ["pictures", "pictures:3", "pictures:2", "rex", "rex:4"],
            "model": "house",
            "vae": "models/VAE/bright.pt",
            "masks": "pictures",
            "validation_data": ["pictures:2", "rex"],
            "use_weight": True,
            "cache_dir": "cache",
            "log_dir": "logs",
            "template": "mine",
        }
    )
    assert made.folders == (
        str(root / "pictures"),
        f"{root / 'pictures'}:3",
        str(root / "pictures:2"),
        str(root / "datasets" / "rex"),
        f"{root / 'datasets' / 'rex'}:4",
    )
    assert made.validation_folders == (str(root / "pictures:2"), str(root / "datasets" / "rex"))
    assert (made.model, made.vae, made.template) == ("house", str(workspace.vaes / "bright.pt"), "mine")
    assert (made.masks, made.cache_dir, made.log_dir) == tuple(
        str(root / name) for name in ("pictures", "cache", "logs")
    )
    # What was checked once is as good the next time.
    assert places.train_settings(made.to_dict()) == made


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": "nowhere"}, "The folder 'nowhere' is not there"),
        ({"data": ["pictures", "nowhere:3"]}, "The folder 'nowhere' is not there"),
        ({"validation_data": "nowhere"}, "The folder 'nowhere' is not there"),
        ({"data": "pictures/a.png"}, "The folder 'pictures/a.png' is a file"),
        ({"masks": "nowhere", "use_weight": True}, "The folder 'nowhere' is not there"),
        ({"template": "nowhere"}, "no template 'nowhere'"),
    ],
)
def test_what_is_not_there_is_told_at_once_as_it_was_given(places: Places, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        places.train_settings({**TRAINING, **changes})
    assert str(places.workspace.root) not in str(error.value)


def test_what_describes_pictures_is_a_path_inside_or_of_the_hub_where_that_is_allowed(
    workspace: Workspace, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**TRAINING, "caption_missing": "wd"}
    with pytest.raises(UsageError, match=r"`caption_missing` is wd, but there is no tagger of the WD14 family"):
        places.train_settings(asked)
    for folder in (workspace.root / "models" / "tagger", tmp_path / "outside"):
        folder.mkdir(exist_ok=True)
        for name in ("model.onnx", "selected_tags.csv"):
            (folder / name).write_bytes(b"x")
    made = places.train_settings({**asked, "caption_model": "models/tagger"})
    assert made.caption_model == str(workspace.root / "models" / "tagger")
    assert places.train_settings(made.to_dict()) == made
    monkeypatch.setenv("TINCTURE_TAGGER", str(tmp_path / "outside"))
    for name, told in [
        ("", "leads out"),
        ("../outside", "leads out"),
        ("nix", "no file or folder 'nix' in the workspace"),
        ("owner/tagger", "only where the server was started by tincture serve --allow-hub"),
    ]:
        with pytest.raises(TinctureError, match=told):
            places.train_settings({**asked, "caption_model": name})
    open_places = Places(workspace, workspace.root / "state", allow_hub=True)
    assert open_places.train_settings({**asked, "caption_model": "owner/tagger"}).caption_model == "owner/tagger"


@pytest.mark.parametrize("name", ["data", "validation_data", "prior_data"])
@pytest.mark.parametrize("folder", ["tincture-server/pictures", "extensions/pictures"])
def test_captions_are_written_into_no_folder_that_requests_must_not_change(
    workspace: Workspace, places: Places, name: str, folder: str
) -> None:
    (workspace.root / folder).mkdir(parents=True)
    (workspace.root / "tagger.pt").write_bytes(b"x")
    asked = {**TRAINING, "caption_missing": "deepdanbooru", "caption_model": "tagger.pt"}
    for text in (folder, f"{folder}:2"):
        values = {**asked, name: text, **({} if name == "data" else {"data": "pictures"})}
        places.train_settings(values)  # they may be read
        with pytest.raises(ForbiddenPathError):
            places.train_settings({**values, "write_captions": True})
    made = places.train_settings({**asked, "write_captions": True})
    assert made.folders == (str(workspace.root / "pictures"),)


def test_folders_that_are_to_come_need_not_be_there(workspace: Workspace, places: Places) -> None:
    crops, values = workspace.root / "crops", {**TRAINING, "data": ["crops/train:2"], "masks": "crops/mask"}
    made = places.train_settings({**values, "use_weight": True}, lambda: [crops])
    assert (made.folders, made.masks) == ((f"{crops / 'train'}:2",), str(crops / "mask"))
    again = places.preprocess_settings({"source": "crops", "destination": "again"}, lambda: [crops])
    assert again.source == str(crops)
    (workspace.root / "pictures" / "crops").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        places.train_settings({**TRAINING, "data": "pictures/crops"}, lambda: [workspace.root / "pictures"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": "nowhere"}, "'nowhere' is not there"),
        ({"source": "pictures/a.png"}, "'pictures/a.png' is a file"),
        ({"destination": "pictures"}, "'pictures' is the source folder itself"),
        ({"destination": "models/../pictures"}, "is the source folder itself"),
        ({"destination": "pictures/crops", "recursive": True}, "'pictures/crops' lies inside the source 'pictures'"),
        ({"destination": "pictures/a/b", "recursive": True}, "'pictures/a/b' lies inside the source 'pictures'"),
        ({"destination": "pictures/a.png"}, "'pictures/a.png' is a file; choose a folder"),
    ],
)
def test_crops_that_would_come_among_the_sources_are_refused_at_once(
    places: Places, changes: dict[str, Any], told: str
) -> None:
    sound = {"source": "pictures", "destination": "crops"}
    assert places.preprocess_settings({**sound, "destination": "pictures/crops"})
    with pytest.raises(UsageError, match=told) as error:
        places.preprocess_settings({**sound, **changes})
    assert str(places.workspace.root) not in str(error.value)


@pytest.mark.parametrize(
    "field", ["data", "validation_data", "model", "vae", "template", "masks", "cache_dir", "log_dir"]
)
@pytest.mark.parametrize("value", ["../outside", "/etc", "~/x", "/dev/zero"])
def test_no_path_of_a_training_leads_out(places: Places, field: str, value: str) -> None:
    with pytest.raises(ForbiddenPathError):
        places.train_settings({**TRAINING, "use_weight": True, field: value})


@pytest.mark.parametrize("field", ["source", "destination", "yunet_model", "captioner", "tagger"])
def test_no_path_of_a_preprocessing_leads_out(places: Places, field: str) -> None:
    sound = {"source": "pictures", "destination": "crops"}
    assert places.preprocess_settings(sound).destination == str(places.workspace.root / "crops")
    with pytest.raises(ForbiddenPathError):
        places.preprocess_settings({**sound, field: "../outside"})


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 10**8},
        {"steps": 10**5000},
        {"batch_size": 2000},
        {"width": 8200},
        {"seed": 2**63},
        {"preview_steps": 1001},
        {"weight_decay": 1e300},
        {"weight_decay": float("nan")},
        {"preview_every": -1},
        {"word_regex": "a" * 1001},
        {"learning_rate": "1," * 2000},
        {"preview_prompts": ["a"] * 65},
        {"preview_negative_prompt": "a" * 20_001},
        {"data": ["pictures"] * 1001},
        {"data": "pictures:0"},
        {"data": "pictures:99999999999999999999"},
        {"data": {"a": "b"}},
        {"data": [["pictures"]]},
        {"a" * 1000: 1},
        {f"n{number}": 1 for number in range(301)},
        {"cache_dir": "tincture-server/jobs"},
        {"log_dir": "tincture-server"},
    ],
)
def test_what_no_training_needs_is_refused_in_few_words(places: Places, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as told:
        places.train_settings({**TRAINING, **changes})
    assert len(str(told.value)) < 3000


# --- drawings ---------------------------------------------------------------------------------------------------------


def draw(places: Places, **request: Any) -> DrawingRequest:
    return places.drawing({"prompts": ["a cat"], **request}, most=6, side=1024)


def test_a_drawing_is_sorted_into_what_draws_it(workspace: Workspace, places: Places) -> None:
    made = draw(places, seeds=[3, -1], model="house", vae="bright", steps=5, width=64, height=None, precision="bf16")
    assert made.seeds[0] == 3 and 0 <= made.seeds[1] < 2**32
    assert (made.model, made.precision) == ("house", "bf16")
    assert made.drawing() == Drawing(steps=5, width=64)
    assert made.overrides() == ModelOverrides(vae="bright")
    assert draw(places, model="").model == ""  # the default one, whichever that is when it is drawn
    taught = draw(places, family="sd2", prediction_type="v_prediction", zero_terminal_snr=True)
    assert taught.overrides() == ModelOverrides("", "sd2", "v_prediction", True)
    sheet = draw(places, seeds=[1], strengths=[0, 0.5], checkpoints=["pictures/cat-5.pt"])
    assert sheet.checkpoints == (str(workspace.root / "pictures" / "cat-5.pt"),)
    # what was checked once is as good the next time, as another process takes it
    assert DrawingRequest.from_dict(made.to_dict()) == made


def test_seeds_count_up_from_the_first(places: Places) -> None:
    assert draw(places, seed=7, count=3).seeds == (7, 8, 9)
    assert draw(places).seeds == (0,)
    assert draw(places, seeds=[5], seed=7, count=3).seeds == (5,)
    assert len(set(draw(places, seed=-1, count=5).seeds)) == 5


def test_a_sheet_has_columns_where_it_is_one(places: Places) -> None:
    assert not draw(places).is_sheet
    assert draw(places, grid=True).columns == (0, 0.25, 0.5, 0.75, 1)
    assert draw(places, strengths=[2]).columns == (2,)
    assert draw(places, checkpoints=["pictures/cat-5.pt"]).columns == (1,)


def test_seeds_by_chance_differ(places: Places) -> None:
    drawn = draw(places, seeds=[-1] * 6).seeds
    assert len(set(drawn)) == 6


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"prompts": []}, UsageError),
        ({"prompts": "a cat"}, UsageError),
        ({"prompts": [1]}, UsageError),
        ({"prompts": ["a" * 20_001]}, UsageError),
        ({"prompts": ["a"] * 7}, TooMuchError),
        ({"prompts": ["a"] * 3, "seeds": [1, 2, 3]}, TooMuchError),
        ({"seeds": [-2]}, UsageError),
        ({"seeds": [2**63]}, UsageError),
        ({"seeds": [True]}, UsageError),
        ({"seeds": [1.5]}, UsageError),
        ({"strengths": [1.0] * 7, "seeds": [1]}, TooMuchError),
        ({"strengths": [1.0], "seeds": [1, 2]}, UsageError),
        ({"strengths": [float("inf")]}, UsageError),
        ({"checkpoints": ["../outside/secret.txt"], "seeds": [1]}, ForbiddenPathError),
        ({"width": 2048}, TooMuchError),
        ({"width": 100}, UsageError),
        ({"width": -8}, UsageError),
        ({"width": 2**16 + 8}, UsageError),
        ({"count": 10**9}, TooMuchError),
        ({"count": 0}, UsageError),
        ({"grid": True, "count": 2}, UsageError),
        ({"device": "cpu"}, UsageError),
        ({"height": 64.0}, UsageError),
        ({"steps": 0}, UsageError),
        ({"steps": 1001}, UsageError),
        ({"steps": True}, UsageError),
        ({"guidance_scale": -1}, UsageError),
        ({"guidance_scale": "7"}, UsageError),
        ({"guidance_scale": float("nan")}, UsageError),
        ({"sampler": "Eular"}, UsageError),
        ({"precision": "int8"}, UsageError),
        ({"family": "sd9"}, UsageError),
        ({"model": "/etc/passwd"}, ForbiddenPathError),
        ({"vae": "../outside/secret.txt"}, ForbiddenPathError),
        ({"out": "/etc"}, UsageError),
        ({"zero_terminal_snr": "yes"}, UsageError),
    ],
)
def test_drawings_that_are_refused(places: Places, request_: dict[str, Any], error: type[TinctureError]) -> None:
    with pytest.raises(error) as told:
        draw(places, **request_)
    assert len(str(told.value)) < 500


# --- anything at all --------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(["..", ".", "", "pictures", "link", "loop", "a.png", "new", "~", "tincture-server", "ä", "\\"])


def joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(parts, max_size=8).map("/".join)


@posix
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(text=joined(PARTS) | joined(st.text(max_size=5)) | st.text())
def test_whatever_is_given_comes_to_lie_inside_or_is_refused(places: Places, tmp_path: Path, text: str) -> None:
    root = places.workspace.root
    if not (root / "link").is_symlink():
        (root / "link").symlink_to(tmp_path / "outside")
        (root / "loop").symlink_to("loop")
    try:
        path = places.path(text)
    except UsageError:
        return
    assert path.is_absolute()
    assert Path(os.path.realpath(path)) == path  # nothing is left to resolve
    assert path == root or root in path.parents


def test_the_picture_of_a_card_is_looked_at_before_anything_reads_it(workspace: Workspace, places: Places) -> None:
    """Pillow knows formats that it reads by calling other programs, such as PostScript."""
    Image.new("RGB", (8, 8)).save(workspace.root / "sound.png")
    (workspace.root / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    sound, files = workspace.root.resolve() / "sound.png", {"path": "cat.pt", "out": "cat.png"}
    for known in ("sound.png", sound):
        assert checked_conversion({**files, "to": "png", "picture": known}, places)["picture"] == sound
    for odd in ("program.png", workspace.root / "program.png", workspace.root / "gone.png"):
        with pytest.raises(DataError, match=r"The picture \w+\.png .*; choose another one\."):
            checked_conversion({**files, "to": "png", "picture": odd}, places)


def test_the_texts_of_a_job_are_bounded_together(places: Places) -> None:
    with pytest.raises(UsageError, match=r"140,0.. characters together; allowed are 131,072"):
        places.train_settings({"kind": "embedding", "name": "cat", "data": ["x" * 3500] * 40})


def test_pasted_paths_are_understood_and_what_is_called_so_comes_first(workspace: Workspace, places: Places) -> None:
    root = workspace.root
    assert places.path(f' "{root}/pictures/" ') == places.path("file://" + str(root / "pictures")) == root / "pictures"
    assert places.folder("'pictures\\\\'") == root / "pictures"
    assert places.model(' "house" ') == "house"
    assert places.train_settings({**TRAINING, "data": ['"pictures":3']}).folders == (f"{root}/pictures:3",)
    assert places.train_settings({**TRAINING, "data": " 'pictures' "}).folders == (f"{root}/pictures",)
    (root / '"pictures"').mkdir()
    assert places.train_settings({**TRAINING, "data": '"pictures"'}).folders == (f'{root}/"pictures"',)
    assert places.folder('"pictures"') == root / '"pictures"'
    for text in ('"/etc"', "file:///etc/passwd", "' ../outside '"):
        with pytest.raises(ForbiddenPathError):
            places.path(text)
