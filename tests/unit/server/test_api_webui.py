from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import BaseModel, ValidationError

from tests.checkpoints import write_head
from tests.runs import write_pictures
from tincture.errors import DivergedError, ModelError, UsageError
from tincture.formats import hash_cache
from tincture.formats.picture_text import parameters_text, save_png
from tincture.models.loading.default_model import default_model
from tincture.models.samplers import SAMPLERS
from tincture.server import api_v1, api_webui
from tincture.server.api_webui.session import Session
from tincture.server.errors import NotFoundError
from tincture.server.http import errors as http_errors
from tincture.server.queue.jobs import Job, JobState, Wanted
from tincture.server.requests.places import Places
from tincture.settings.drawing import CompleteDrawing
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace

Ending = Callable[[Job], Job]
Clients = Callable[["FakeService"], TestClient]


def done(job: Job) -> Job:
    result = {"adapter_path": f"/models/{job.name}.pt", "global_step": 3}
    return dataclasses.replace(job, state=JobState.DONE, result=result)


def gone(job: Job) -> Job:
    """Somebody deleted it."""
    raise NotFoundError("There is no job 'j1'.")


class FakeService:
    """Answers as ``Service`` does; a job that is submitted ends when it is looked at for the third time."""

    def __init__(self, root: Path, *, webui_errors: bool = False) -> None:
        self.workspace = Workspace(root)
        self.settings = ServerSettings(webui_errors=webui_errors, max_pictures=4)
        self.state_dir = root / "tincture-server"
        self.places = Places(self.workspace, self.state_dir)
        self.ending: Ending = done
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.submitted: list[tuple[str, dict[str, Any]]] = []
        self.running: list[Job] = []
        self.now_drawn: dict[str, Any] | None = None
        self.shown: list[Path] = []
        self.stopped: list[str] = []
        self.finished = 99
        self.looks = 0
        self.stopping = threading.Event()
        self.queue = self.model_work = self
        self.datasets = None  # asked for by requests alone

    def submit(self, kind: Any, settings: Mapping[str, Any], *, source: str) -> Job:
        checked = self.places.train_settings if kind == "train" else self.places.preprocess_settings
        made = checked(settings)
        self.submitted.append((source, made.to_dict()))
        self._job = Job(id="j1", kind=kind, name=str(getattr(made, "name", "out")), settings=made.to_dict())
        return self._job

    def job(self, job_id: str) -> Job:
        assert job_id == "j1"
        self.looks += 1
        return self._job if self.looks < 3 else self.ending(self._job)

    def jobs(self, states: Any) -> list[Job]:
        assert states == [JobState.RUNNING]
        return self.running

    def folder(self, job_id: str) -> FakeService:
        return self

    def previews(self) -> list[Path]:
        return self.shown

    def drawing(self) -> dict[str, Any] | None:
        return self.now_drawn

    def interrupt(self) -> None:
        self.stopped.append("jobs")

    def stop_drawing(self) -> None:
        self.stopped.append("drawing")

    def create_adapter(self, kind: str, name: str, **options: Any) -> Path:
        self.made.append((name, options))
        return self.workspace.adapter_path(kind, name)

    def default_model(self) -> str:
        return default_model(self.workspace, or_first=True).name

    def models(self) -> list[dict[str, Any]]:
        listed = self.workspace.list_models()
        named = [path.relative_to(self.workspace.models).as_posix() for path in listed]
        own = [{"name": name, "title": path.stem, "path": str(path)} for name, path in zip(named, listed, strict=True)]
        return [*own, {"name": "picto", "title": "picto", "path": ""}]

    def adapters(self) -> list[dict[str, Any]]:
        return [
            {"kind": kind, "name": name, "path": f"/{name}.pt", "size": 1, "mtime": 0.0}
            for kind, name in (("embedding", "cat"), ("hypernetwork", "ink"))
        ]

    def adapter_file(self, kind: str, name: str) -> Path:
        return Path(f"/old/{name}.pt")

    def unload(self) -> None:
        self.stopped.append("model")

    def load(self, model: str) -> None:
        self.made.append((model, {"loaded": True}))

    def describe(self, picture: bytes, **models: str) -> str:
        return f"{len(picture)} bytes by {sorted(models)}"

    def embeddings(self, model: str) -> dict[str, list[dict[str, Any]]]:
        if "broken" in model:
            raise ModelError(f"{model} is a web page.")
        told = {"step": 5, "sd_checkpoint": "ab", "sd_checkpoint_name": model, "shape": 64, "vectors": 2}
        return {
            "loaded": [{"name": "cat", "path": "/cat.pt", **told}],
            "skipped": [
                {"name": "xl", **told, "shape": 2048},
                {"name": "torn", "reason": "It is damaged.", **told, "shape": 0},
            ],
        }

    def draw(self, request: Mapping[str, Any], remarks: list[str], *, partly: bool) -> list[Path]:
        checked = self.places.drawing(request, most=4, side=256)
        self.made.append(("draw", {**request}))
        assert partly
        remarks.append("It was drawn by a stand-in.")
        folder = self.state_dir / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        size = {"guidance_scale": checked.guidance_scale or 7.0, "width": 16, "height": 8}
        drawing = CompleteDrawing(**dataclasses.asdict(checked.drawing()) | size)
        for number, seed in enumerate(checked.seeds[: self.finished]):
            paths.append(folder / f"{number}.png")
            text = parameters_text(
                request["prompts"][0], drawing, seed=seed, model_name="tiny", model_hash="0123456789"
            )
            save_png(np.zeros((8, 16, 3), dtype=np.uint8), paths[-1], text)
        return paths


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    write_pictures(tmp_path / "pictures")
    return FakeService(tmp_path)


class Relay:
    """Hands everything on to the service of the test at hand: making an app takes a second."""

    def __init__(self) -> None:
        self.service: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.service, name)


@pytest.fixture(scope="module")
def shared() -> tuple[Relay, Session, TestClient]:
    relay: Any = Relay()
    session, app = Session(relay), FastAPI()
    http_errors.register(app)
    app.include_router(api_webui.router(relay, session))
    return relay, session, TestClient(app, base_url="http://127.0.0.1/sdapi/v1")


@pytest.fixture
def client_of(shared: tuple[Relay, Session, TestClient]) -> Clients:
    """A client of an API over the given service, in which nothing was chosen yet."""
    relay, session, client = shared

    def make(service: FakeService) -> TestClient:
        relay.service = service
        Session.__init__(session, relay)  # type: ignore[arg-type]
        return client

    return make


@pytest.fixture
def client(service: FakeService, client_of: Clients) -> TestClient:
    return client_of(service)


EMBEDDING = {"embedding_name": "cat", "data_root": "pictures", "learn_rate": 0.01, "steps": 3}


# --- create and train ------------------------------------------------------------------------------------------------


def test_create_answers_with_the_path(service: FakeService, client: TestClient) -> None:
    given = {"name": "c/at", "num_vectors_per_token": 3, "overwrite_old": False, "init_text": "moon"}
    answer = client.post("create/embedding", json=given)
    assert answer.status_code == 200
    assert answer.json()["info"] == f"create embedding filename: {service.workspace.embeddings / 'cat.pt'}"
    assert "it is 'cat'" in answer.json()["remarks"][0]
    options = {"num_vectors": 3, "init_text": "moon", "overwrite": False, "model": "picto"}
    assert service.made == [("cat", options)]
    answer = client.post(
        "create/hypernetwork", json={"name": "ink", "enable_sizes": ["32"], "layer_structure": "1,2,1"}
    )
    assert answer.json()["info"] == f"create hypernetwork filename: {service.workspace.hypernetworks / 'ink.pt'}"
    assert service.made[1][1]["sizes"] == [32]


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_create_refuses_in_the_clients_own_words(service: FakeService, client: TestClient, kind: str) -> None:
    folder = service.workspace.embeddings if kind == "embedding" else service.workspace.hypernetworks
    folder.mkdir(parents=True)
    (folder / "cat.pt").write_bytes(b"x")
    answer = client.post(f"create/{kind}", json={"name": "cat"})
    assert answer.status_code == 422
    assert "set overwrite_old to replace it" in answer.json()["detail"]
    assert answer.json()["errors"] == answer.json()["detail"]
    assert client.post(f"create/{kind}", json={"name": "cat", "overwrite_old": True}).status_code == 200
    unknown = client.post(f"create/{kind}", json={"nam": "cat"}).json()["detail"]
    assert "there is no setting 'nam'; the nearest is name" in unknown
    assert "name is missing" in unknown


def test_train_waits_and_answers_as_the_webui(service: FakeService, client: TestClient) -> None:
    answer = client.post("train/embedding", json={"id_task": "x", "batch_size": 50, **EMBEDDING})
    assert answer.status_code == 200
    assert answer.json() == {
        "info": "train embedding complete: filename: /models/cat.pt error: None",
        "remarks": ["batch_size is 50, but there are 5 pictures; it is 5."],
    }
    ((source, settings),) = service.submitted
    assert (source, settings["kind"], settings["name"], settings["batch_size"]) == ("webui", "embedding", "cat", 5)
    assert settings["data"] == str(service.workspace.root / "pictures")
    assert settings["log_dir"] == str(service.workspace.logs)
    assert (settings["template"], settings["learning_rate"]) == ("style_filewords.txt", "0.01")
    assert service.looks == 3


def failed(error_type: str, sentence: str) -> Ending:
    return lambda job: dataclasses.replace(job, state=JobState.FAILED, error=sentence, error_type=error_type)


@pytest.mark.parametrize(
    ("ending", "status", "told"),
    [
        (failed("DivergedError", "The loss is NaN."), 500, "The loss is NaN."),
        (failed("DataError", "No pictures."), 422, "No pictures."),
        (failed("WorkerCrashed", "It died."), 500, "It died."),
        (failed("", ""), 500, "The job j1 failed; its log says more."),
        (lambda job: dataclasses.replace(job, state=JobState.CANCELLED), 409, "The job j1 was cancelled"),
        (gone, 404, "There is no job 'j1'."),
    ],
)
def test_a_failed_training_says_so(
    service: FakeService, client: TestClient, client_of: Clients, tmp_path: Path, ending: Ending, status: int, told: str
) -> None:
    service.ending = ending
    answer = client.post("train/embedding", json=EMBEDDING)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(told)
    webuis = FakeService(tmp_path, webui_errors=True)
    webuis.ending = ending
    answer = client_of(webuis).post("train/embedding", json=EMBEDDING)
    assert answer.status_code == 200
    assert answer.json()["info"].startswith(f"train embedding complete: filename: None error: {told}")


def test_a_request_that_is_refused_says_why(
    service: FakeService, client: TestClient, client_of: Clients, tmp_path: Path
) -> None:
    wrong = {**EMBEDDING, "learn_rat": 1, "tag_drop_out": 3}
    answer = client.post("train/embedding", json=wrong)
    assert answer.status_code == 422
    assert "there is no setting 'learn_rat'; the nearest is learn_rate" in answer.json()["detail"]
    assert "tag_drop_out is 3.0, but must be at least 0 and below 1" in answer.json()["detail"]
    outside = client.post("train/embedding", json={**EMBEDDING, "data_root": "../.."})
    assert (outside.status_code, outside.json()["error"]) == (403, "ForbiddenPathError")
    assert client.post("train/embedding", json={**EMBEDDING, "data_root": "nowhere"}).status_code == 422
    assert client.post("train/embedding", json=[1]).status_code == 422
    assert client.post("train/embedding", json={**EMBEDDING, "data_root": {"a": 1}}).status_code == 422
    assert client.post("train/embedding", json={**EMBEDDING, "steps": 10**12}).status_code == 422
    assert service.submitted == []
    answer = client_of(FakeService(tmp_path, webui_errors=True)).post("train/embedding", json=wrong)
    assert answer.status_code == 200
    assert answer.json()["info"].startswith("train embedding error: 2 settings in train_embedding are not allowed")


def test_a_network_that_has_its_steps_is_returned_as_it_is(service: FakeService, client: TestClient) -> None:
    service.ending = failed("AlreadyTrainedError", "It has 3 steps already.")
    given = {"hypernetwork_name": "ink", "data_root": "pictures", "steps": 3}
    answer = client.post("train/hypernetwork", json=given)
    assert answer.status_code == 200
    assert answer.json() == {
        "info": "train hypernetwork complete: filename: /old/ink.pt error: None",
        "remarks": ["It has 3 steps already."],
    }


@pytest.mark.parametrize(
    ("result", "remark"),
    [
        ({"interrupted": True}, "It was stopped after step 2 of 3, and saved."),
        ({"interrupted": False, "ending": "It has 3 steps.", "nothing_to_do": True}, "It has 3 steps."),
        ({"interrupted": False, "ending": "It got no better."}, "It got no better."),
    ],
)
def test_a_training_that_did_not_make_all_its_steps_says_so(
    service: FakeService, client: TestClient, result: dict[str, Any], remark: str
) -> None:
    service.ending = lambda job: dataclasses.replace(
        *(job,), state=JobState.DONE, steps=3, global_step=2, result={"adapter_path": "/m/rex.pt", **result}
    )
    answer = client.post("train/embedding", json=EMBEDDING).json()
    assert answer["info"] == "train embedding complete: filename: /m/rex.pt error: None"
    assert answer["remarks"][-1:] == [remark]


def test_many_trainings_wait_without_holding_threads(service: FakeService, client: TestClient) -> None:
    go = threading.Event()
    service.ending = lambda job: done(job) if go.is_set() else job
    answers: list[int] = []
    with client:  # one event loop for all
        waiting = [
            threading.Thread(target=lambda: answers.append(client.post("train/embedding", json=EMBEDDING).status_code))
            for _ in range(60)
        ]
        for thread in waiting:
            thread.start()
        while len(service.submitted) < 60:  # more than the pool has threads
            assert client.get("samplers").status_code == 200
        assert answers == []
        go.set()
        for thread in waiting:
            thread.join()
    assert answers == [200] * 60


def test_who_waits_is_told_when_the_server_stops(service: FakeService, client: TestClient) -> None:
    service.ending = lambda job: job
    service.stopping.set()
    answer = client.post("train/embedding", json=EMBEDDING)
    assert answer.status_code == 503
    assert "the job j1 goes on when it is back" in answer.json()["detail"]


def test_preprocess_waits_and_answers_as_the_webui(
    service: FakeService, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINCTURE_CAPTIONER", raising=False)
    given = {"process_src": "pictures", "process_dst": "crops", "process_width": 64, "process_flip": True}
    assert client.post("preprocess", json=given).json()["info"] == "preprocess complete"
    ((source, settings),) = service.submitted
    assert (source, settings["width"], settings["flip"], settings["existing_captions"]) == ("webui", 64, True, "ignore")
    assert client.post("preprocess", json={**given, "validation_share": 0.25}).status_code == 200
    assert [made["validation_share"] for _, made in service.submitted] == [0.0, 0.25]
    refused = client.post("preprocess", json={**given, "validation_share": 1})
    assert refused.status_code == 422 and "at least 0 and below 1" in refused.json()["detail"]
    answer = client.post("preprocess", json={**given, "process_caption": True})
    assert answer.status_code == 422
    assert "models/BLIP in the workspace" in answer.json()["detail"]
    service.ending, service.looks = failed("DataError", "No pictures."), 0
    assert client.post("preprocess", json=given).status_code == 422


# --- progress --------------------------------------------------------------------------------------------------------


def test_nothing_going_on_has_no_progress(client: TestClient) -> None:
    told = client.get("progress").json()
    assert (told["progress"], told["eta_relative"], told["current_image"], told["textinfo"]) == (0, 0, None, None)
    assert told["state"] == {
        "skipped": False,
        "interrupted": False,
        "job": "",
        "job_count": 0,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    }


def test_progress_is_that_of_the_running_training(service: FakeService, client: TestClient, tmp_path: Path) -> None:
    job = Job(id="j1", kind="train", name="cat", settings={}, state=JobState.RUNNING, started_at=0.5)
    service.running = [dataclasses.replace(job, stage="loading the model")]
    told = client.get("progress").json()
    assert (told["progress"], told["textinfo"], told["state"]["job_count"]) == (0.01, "cat: loading the model", 1)
    later: dict[str, Any] = {"global_step": 25, "steps": 100, "eta_s": 12.5, "loss": 0.125, "learning_rate": 0.005}
    service.running = [job, dataclasses.replace(job, **later, started_at=60.0, wanted=Wanted.INTERRUPTED)]
    service.shown = [tmp_path / "old.png", tmp_path / "new.png"]
    service.shown[1].write_bytes(b"new")
    told = client.get("progress").json()
    assert (told["progress"], told["eta_relative"]) == (0.25, 12.5)
    assert told["textinfo"] == "cat: step 25 of 100, loss 0.1250, learning rate 0.005"
    state = told["state"]
    assert (state["job"], state["job_no"], state["job_count"]) == ("train cat", 25, 100)
    assert (state["interrupted"], state["job_timestamp"]) == (True, "19700101000100")
    assert base64.b64decode(told["current_image"]) == b"new"
    assert client.get("progress?skip_current_image=true").json()["current_image"] is None
    service.shown[1].unlink()
    assert client.get("progress").json()["current_image"] is None


def test_progress_is_that_of_the_drawing(service: FakeService, client: TestClient) -> None:
    service.now_drawn = {"done": 5, "total": 20}
    told = client.get("progress").json()
    assert (told["progress"], told["state"]["job"], told["state"]["job_count"]) == (0.25, "txt2img", 1)
    assert (told["state"]["sampling_step"], told["state"]["sampling_steps"]) == (5, 20)
    service.now_drawn = {}
    told = client.get("progress").json()
    assert (told["progress"], told["textinfo"]) == (0.01, "loading the model")


def test_interrupt_stops_all_and_skip_the_drawing(service: FakeService, client: TestClient) -> None:
    assert client.post("interrupt").json() == {}
    assert service.stopped == ["jobs", "drawing"]
    assert client.post("skip").json() is None
    assert service.stopped == ["jobs", "drawing", "drawing"]


# --- pictures --------------------------------------------------------------------------------------------------------


def test_txt2img_draws_and_tells_how(service: FakeService, client: TestClient) -> None:
    given = {
        "prompt": "a moon <hypernet:ink:0.5>",
        "negative_prompt": "red",
        "seed": 7,
        "steps": 3,
        "sampler_name": "dpm++ 2m",
        "scheduler": "Karras",
        "cfg_scale": 2.5,
        "width": 64,
        "height": 64,
        "batch_size": 2,
        "n_iter": 1,
        "override_settings": {"CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic"},
        "alwayson_scripts": {"ADetailer": {"args": [False]}},
        "denoising_strength": 0.7,
        "eta": 1.0,
        "styles": [],
    }
    answer = client.post("txt2img", json=given)
    assert answer.status_code == 200
    assert service.made == [
        (
            "draw",
            {
                "prompts": ["a moon <hypernet:ink:0.5>"],
                "seeds": [7, 8],
                "negative_prompt": "red",
                "steps": 3,
                "sampler": "DPM++ 2M Karras",
                "guidance_scale": 2.5,
                "width": 64,
                "height": 64,
                "batch_size": 2,
                "clip_skip": 2,
                "model": "picto",
            },
        )
    ]
    told = answer.json()
    pictures = [Image.open(io.BytesIO(base64.b64decode(image))) for image in told["images"]]
    assert [picture.size for picture in pictures] == [(16, 8)] * 2
    info = json.loads(told["info"])
    assert (info["all_seeds"], info["all_prompts"]) == ([7, 8], ["a moon <hypernet:ink:0.5>"] * 2)
    assert (info["width"], info["height"], info["sampler_name"]) == (16, 8, "DPM++ 2M Karras")
    assert (info["sd_model_name"], info["sd_model_hash"], info["clip_skip"]) == ("tiny", "0123456789", 2)
    assert info["infotexts"][1] == pictures[1].info["parameters"]
    assert (told["parameters"]["prompt"], told["parameters"]["steps"]) == ("a moon <hypernet:ink:0.5>", 3)
    assert told["remarks"] == ["It was drawn by a stand-in."]


def test_txt2img_that_is_stopped_answers_with_what_is_finished(service: FakeService, client: TestClient) -> None:
    service.finished = 2
    told = client.post("txt2img", json={"prompt": "a moon", "seed": 7, "n_iter": 4}).json()
    assert len(told["images"]) == 2
    info = json.loads(told["info"])
    assert (info["all_seeds"], len(info["infotexts"]), len(info["all_prompts"])) == ([7, 8], 2, 2)


def test_txt2img_leaves_open_what_is_not_given(service: FakeService, client: TestClient) -> None:
    body = '{"prompt": "a moon", "send_images": false, "denoising_strength": NaN, "comments": {"a": [Infinity]}}'
    answer = client.post("txt2img", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["images"] == []
    assert answer.json()["parameters"]["comments"] == {"a": [None]}
    ((_, drawn),) = service.made
    assert drawn.keys() == {"prompts", "seeds", "negative_prompt", "steps", "sampler", "model"}
    assert 0 <= drawn["seeds"][0] < 2**32
    assert json.loads(answer.json()["info"])["seed"] == drawn["seeds"][0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"enable_hr": True}, "enable_hr is True"),
        ({"subseed_strength": 0.5}, "subseed_strength is 0.5"),
        ({"styles": ["x"]}, "styles is ['x']"),
        ({"script_name": "x/y plot"}, "script_name is 'x/y plot'"),
        ({"eta": 0.5}, "eta is 0.5"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "x"}]}}}, "the script 'ControlNet'"),
        ({"alwayson_scripts": "all"}, "alwayson_scripts"),
        ({"override_settings": {"eta_noise_seed_delta": 3}}, "override_settings has 'eta_noise_seed_delta'"),
        ({"override_settings": {"samples_format": "jpg"}}, "samples_format is 'jpg', which is not done here"),
        ({"override_settings": {"samples_save": "no"}}, "samples_save in override_settings is 'no'"),
        ({"override_settings": {"sd_model_checkpont": "x"}}, "the nearest is sd_model_checkpoint"),
        ({"override_settings": {"token_merging_ratio": 0.5}}, "token_merging_ratio is 0.5"),
        ({"sampler_index": 40}, "sampler_index is 40, but must be from 0 to 12, or a name"),
        ({"override_settings": {"sd_vae": 3}}, "sd_vae in override_settings is 3"),
        ({"override_settings": {"sd_model_checkpoint": "nothing"}}, "There is no model 'nothing'"),
        ({"override_settings": {"CLIP_stop_at_last_layers": "x"}}, "clip_skip is 'x'"),
        ({"sampler_name": "Restart"}, "There is no sampler 'Restart'"),
        ({"scheduler": "karras", "sampler_name": "DDIM"}, "cannot have the scheduler 'karras'"),
        ({"width": 100}, "width is 100, but must be a multiple of 8"),
        ({"steps": 0}, "steps"),
    ],
)
def test_txt2img_refuses_what_it_cannot_do(
    service: FakeService, client: TestClient, given: dict[str, Any], told: str
) -> None:
    answer = client.post("txt2img", json={"prompt": "a moon", **given})
    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    assert service.made == []


IDLE: dict[str, Any] = {
    "samples_format": "png",
    "show_progress_every_n_steps": 5,
    "eta_noise_seed_delta": 0,
    "randn_source": "CPU",
    "live_previews_enable": True,
    "an_extensions_own": {"a": [1]},
    "sd_vae": "None",
    "CLIP_stop_at_last_layers": None,
    "sd_checkpoint_hash": "0123456789",
    "training_enable_tensorboard": True,
}
"""Options, none of which changes a picture."""


@pytest.mark.parametrize("name", IDLE)
def test_overrides_that_change_nothing_are_taken(service: FakeService, client: TestClient, name: str) -> None:
    whole = {"prompt": "a moon", "seed": 3}
    plain = client.post("txt2img", json=whole)
    answer = client.post("txt2img", json={**whole, "override_settings": {name: IDLE[name]}})
    assert (answer.status_code, service.made[0]) == (200, service.made[1])
    remarks = answer.json()["remarks"]
    plainly = {"samples_format", "eta_noise_seed_delta", "sd_vae", "CLIP_stop_at_last_layers"}
    assert [remark for remark in remarks if name in remark] == (
        [] if name in plainly else [f"'{name}' changes nothing on this server."]
    )
    assert answer.json()["info"] == plain.json()["info"]


def test_the_options_may_be_sent_back_whole(service: FakeService, client: TestClient) -> None:
    options = client.get("options").json()
    answer = client.post("txt2img", json={"prompt": "a moon", "override_settings": options})
    assert (answer.status_code, answer.json()["remarks"]) == (200, ["It was drawn by a stand-in."])
    assert (client.post("options", json=options).json(), client.get("options").json()) == (None, options)
    assert client.post("options", json=dict.fromkeys(options)).json() is None


def test_pictures_that_are_not_to_be_kept_are_deleted(service: FakeService, client: TestClient) -> None:
    kept = client.post("txt2img", json={"prompt": "a", "override_settings": {"samples_save": True}})
    assert len(list((service.state_dir / "pictures").iterdir())) == len(kept.json()["images"]) == 1
    sent = client.post("txt2img", json={"prompt": "a", "override_settings": {"samples_save": False}})
    assert (list((service.state_dir / "pictures").iterdir()), len(sent.json()["images"])) == ([], 1)


@pytest.mark.parametrize(("given", "means"), [(0, "Euler"), ("Heun", "Heun"), (9, "DDIM")])
def test_the_old_index_of_a_sampler(service: FakeService, client: TestClient, given: Any, means: str) -> None:
    assert client.post("txt2img", json={"prompt": "a", "sampler_index": given}).status_code == 200
    assert service.made[0][1]["sampler"] == means


def request_models(router: Any) -> dict[str, type[BaseModel]]:
    """The class of every request that has one, by the address that takes it."""
    found: dict[str, type[BaseModel]] = {}
    for route in router.routes:
        found |= request_models(inner) if (inner := getattr(route, "original_router", None)) else {}
        if body := getattr(route, "body_field", None):
            kind = body.field_info.annotation
            found |= {route.path: kind} if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
    return found


def test_null_stands_for_what_is_left_out_in_every_field_of_every_request(service: FakeService) -> None:
    routers = [make(service) for make in (api_webui.router, api_v1.router)]  # type: ignore[operator]
    models = request_models(routers[0]) | request_models(routers[1])
    assert len(models) >= 8
    tried = 0
    for path, kind in models.items():
        needed = {name for name, field in kind.model_fields.items() if field.is_required()}
        least = {name: LEAST_OF.get(name, "x") for name in needed}
        try:
            plain = kind.model_validate(least)
        except ValidationError as error:
            raise AssertionError(f"{path}: {error}") from None
        for name in kind.model_fields.keys() - needed:
            assert kind.model_validate({**least, name: None}) == plain, (path, name)
            allowed = kind.model_json_schema()["properties"][name]
            assert "null" in str(allowed), (path, name)
            tried += 1
    assert tried > 60


LEAST_OF: dict[str, Any] = {
    "kind": "train",
    "change": "front",
    "left": 0,
    "top": 0,
    "width": 8,
    "height": 8,
    "settings": {},
    "prompts": ["a"],
    "before": "j1",
    "sources": ["a", "b"],
}


@pytest.mark.parametrize("seed", [-2, 2**63 - 1, 10**30])
def test_a_wrong_seed_is_called_by_its_name(client: TestClient, seed: int) -> None:
    answer = client.post("txt2img", json={"prompt": "a moon", "seed": seed})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"seed is {seed}, but must be from 0 to ")


def test_txt2img_bounds_how_many(service: FakeService, client: TestClient) -> None:
    answer = client.post("txt2img", json={"prompt": "a", "n_iter": 1000, "batch_size": 2})
    assert answer.status_code == 413
    assert "2000 pictures were asked for, batch_size times n_iter" in answer.json()["detail"]
    assert client.post("txt2img", json={"prompt": "a", "n_iter": 10**4000, "batch_size": 10**4000}).status_code == 413
    assert client.post("txt2img", json={"prompt": "a", "width": 512}).status_code == 413


def test_png_info_reads_what_was_drawn(client: TestClient) -> None:
    drawn = client.post("txt2img", json={"prompt": "a moon", "negative_prompt": "red", "seed": 3}).json()["images"][0]
    for image in (drawn, f"data:image/png;base64,{drawn}"):
        told = client.post("png-info", json={"image": image}).json()
        assert told["info"].startswith("a moon\nNegative prompt: red\n")
        assert told["items"]["parameters"] == told["info"]
        assert (told["parameters"]["Prompt"], told["parameters"]["Seed"]) == ("a moon", "3")
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "WEBP")
    told = client.post("png-info", json={"image": base64.b64encode(plain.getvalue()).decode()}).json()
    assert told == {"info": "", "items": {}, "parameters": {}}


@pytest.mark.parametrize("image", ["", "no base64!", "data:image/png;base64", base64.b64encode(b"GIF89a").decode()])
def test_png_info_refuses_what_is_no_picture(client: TestClient, image: str) -> None:
    answer = client.post("png-info", json={"image": image})
    assert answer.status_code == 422


# --- lists -----------------------------------------------------------------------------------------------------------


def test_lists_have_the_webuis_shapes(
    service: FakeService, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_head(service.workspace.models / "old" / "v1.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(service.state_dir))
    monkeypatch.setattr(hash_cache, "SMALL_FILE", 0)
    service.workspace.vaes.mkdir()
    (service.workspace.vaes / "sharp.pt").write_bytes(b"x")
    model, picto = client.get("sd-models").json()
    assert (model["title"], model["model_name"], model["hash"]) == ("old/v1.safetensors", "v1", None)
    assert (picto["title"], picto["filename"]) == ("picto", "picto")
    sha256 = hash_cache.sha256_of([Path(model["filename"])])  # as when it is used
    used, _ = client.get("sd-models").json()
    assert (used["hash"], used["sha256"]) == (sha256[:10], sha256)
    assert client.get("sd-vae").json() == [
        {"model_name": "sharp.pt", "filename": str(service.workspace.vaes / "sharp.pt")}
    ]
    assert [sampler["name"] for sampler in client.get("samplers").json()] == list(SAMPLERS)
    assert {scheduler["name"] for scheduler in client.get("schedulers").json()} == {"automatic", "karras"}
    assert client.get("hypernetworks").json() == [{"name": "ink", "path": "/ink.pt"}]
    told = client.get("embeddings").json()
    assert told["loaded"]["cat"] == {
        "step": 5,
        "sd_checkpoint": "ab",
        "sd_checkpoint_name": "old/v1.safetensors",
        "shape": 64,
        "vectors": 2,
    }
    assert list(told["skipped"]) == ["xl"]
    for name in ("embeddings", "checkpoints", "vae"):
        assert client.post(f"refresh-{name}").json() is None
    for name in ("upscalers", "face-restorers", "prompt-styles", "loras", "latent-upscale-modes", "realesrgan-models"):
        assert client.get(name).json() == []
    assert client.get("scripts").json() == {"txt2img": [], "img2img": []}
    assert client.get("memory").json()["ram"]["total"] > 0


@pytest.mark.parametrize("title", ["old/v1.safetensors", "v1", "v1.safetensors", "v1 [0123456789]", "path"])
def test_the_chosen_model_counts_for_all_requests(service: FakeService, client: TestClient, title: str) -> None:
    for name in ("a.safetensors", "old/v1.safetensors"):
        write_head(service.workspace.models / name)
    title = str(service.workspace.models / "old" / "v1.safetensors") if title == "path" else title
    assert client.get("options").json()["sd_model_checkpoint"] == "a.safetensors"
    present = client.get("options").json()
    assert client.post("options", json={**present, "sd_model_checkpoint": title}).json() is None
    assert client.get("options").json()["sd_model_checkpoint"] == "old/v1.safetensors"
    client.post("create/embedding", json={"name": "cat"})
    client.post("txt2img", json={"prompt": "a"})
    client.post("txt2img", json={"prompt": "a", "override_settings": {"sd_model_checkpoint": "picto"}})
    assert [options["model"] for _, options in service.made] == ["old/v1.safetensors"] * 2 + ["picto"]
    assert client.get("options").json()["sd_model_checkpoint"] == "old/v1.safetensors"
    kept = {"override_settings": {"sd_model_checkpoint": "picto"}, "override_settings_restore_afterwards": False}
    client.post("txt2img", json={"prompt": "a", **kept})
    assert client.get("options").json()["sd_model_checkpoint"] == "picto"
    client.post("train/embedding", json=EMBEDDING)
    assert service.submitted[0][1]["model"] == "picto"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"CLIP_stop_at_last_layers": 2}, "The option 'CLIP_stop_at_last_layers' cannot be set here"),
        ({"sd_model_checkpoint": "nothing"}, "There is no model 'nothing'"),
        ({"sd_model_checkpoint": 3}, "must be the title of a model"),
        ({"samples_save": False, "sd_model_checkpoint": "picto"}, "'samples_save'"),
        ({"eta_noise_seed_delta": 3}, "cannot be set here: eta_noise_seed_delta is 3, which is not done here"),
        ({"training_enable_tensorboard": "yes"}, "training_enable_tensorboard is 'yes', but must be true or false"),
    ],
)
def test_other_options_are_refused(client: TestClient, options: dict[str, Any], told: str) -> None:
    answer = client.post("options", json=options)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_options_of_trainings_go_with_every_training(service: FakeService, client: TestClient) -> None:
    given = {"training_enable_tensorboard": True, "save_optimizer_state": True, "show_progressbar": False}
    assert client.post("options", json=given).json() == {
        "remarks": ["'show_progressbar' changes nothing on this server."]
    }
    options = client.get("options").json()
    assert options["training_enable_tensorboard"] is options["save_optimizer_state"] is True
    client.post("train/embedding", json=EMBEDDING)
    settings = service.submitted[0][1]
    assert (settings["tensorboard"], settings["save_optimizer_state"]) == (True, True)
    assert client.post("options", json={"training_enable_tensorboard": False}).json() is None
    client.post("train/embedding", json=EMBEDDING)
    assert [each["tensorboard"] for _, each in service.submitted] == [True, False]


@pytest.mark.parametrize(
    "further",
    [
        {"alwayson_scripts": {"controlnet": {"args": [{"enabled": False, "model": "x"}]}}},
        {"alwayson_scripts": {"ADetailer": {"args": [False, False, {"ad_model": "face_yolov8n.pt"}]}}},
        {"styles": "", "enable_hr": "false", "subseed_strength": "0", "eta": "1"},
        {"sampler_name": "k_euler_a"},
        {"sampler_name": "K_DPMPP_2M_KA"},
        {"override_settings": {"CLIP_stop_at_last_layers": "2", "sd_vae": "auto", "eta_noise_seed_delta": "0"}},
        {"override_settings": {"CLIP_stop_at_last_layers": 2.0, "tiling": "False"}},
    ],
)
def test_what_is_off_is_taken_however_it_is_written(
    service: FakeService, client: TestClient, further: dict[str, Any]
) -> None:
    answer = client.post("txt2img", json={"prompt": "a", **further})
    assert answer.status_code == 200, answer.json()
    made = service.made[-1][1]
    assert made.get("clip_skip") in (None, 2)
    assert made["sampler"] == ("DPM++ 2M Karras" if "K_DPM" in str(further) else "Euler a")


def test_a_model_that_cannot_be_used_takes_no_list_away(service: FakeService, client: TestClient) -> None:
    service.workspace.models.mkdir(parents=True, exist_ok=True)
    (service.workspace.models / "a-broken.safetensors").write_bytes(b"<html>")
    assert client.post("options", json={"sd_model_checkpoint": "a-broken.safetensors"}).status_code == 200
    listed = client.get("embeddings").json()
    assert (list(listed["loaded"]), list(listed["skipped"])) == ([], ["cat", "xl"])


def test_switches_among_the_options_may_be_numbers_and_texts(client: TestClient) -> None:
    for given, means in ((1, True), ("false", False), ("True", True), (0.0, False)):
        assert client.post("options", json={"training_enable_tensorboard": given}).json() is None
        assert client.get("options").json()["training_enable_tensorboard"] is means
    assert client.post("options", json={"CLIP_stop_at_last_layers": "1", "sd_vae": "auto"}).json() is None


def test_a_slash_behind_an_address_and_head_are_understood(client: TestClient) -> None:
    assert client.head("http://127.0.0.1/internal/ping").status_code == 200
    assert client.get("samplers/").json() == client.get("samplers").json()
    moved = client.post("refresh-loras//?a=1", follow_redirects=False)
    assert moved.status_code == 307
    assert moved.headers["location"].endswith("/sdapi/v1/refresh-loras?a=1")
    assert client.get("nothing/").status_code == 404
    assert client.get("txt2img/").status_code == 405


def test_what_clients_ask_for_when_they_start(service: FakeService, client: TestClient) -> None:
    assert client.get("http://127.0.0.1/internal/ping").json() == {}
    for name in ("extensions", "sd-modules", "loras"):
        assert client.get(name).json() == []
    assert client.post("refresh-loras").json() is None
    assert client.post("unload-checkpoint").json() == {}
    assert client.post("reload-checkpoint").json() == {}
    assert (service.stopped, service.made) == (["model"], [("picto", {"loaded": True})])


def test_interrogate_says_what_is_on_a_picture(
    service: FakeService, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TINCTURE_CAPTIONER", "TINCTURE_TAGGER"):
        monkeypatch.delenv(variable, raising=False)
    image = base64.b64encode(b"1234567").decode()
    refused = client.post("interrogate", json={"image": image})
    assert (refused.status_code, refused.json()["errors"]) == (422, refused.json()["detail"])
    assert "The model clip was asked for, but there is no BLIP model: put one" in refused.json()["detail"]
    unknown = client.post("interrogate", json={"image": image, "model": "eye"})
    assert (unknown.status_code, "known are clip, deepdanbooru" in unknown.json()["detail"]) == (404, True)
    monkeypatch.setenv("TINCTURE_CAPTIONER", "models/blip")
    monkeypatch.setenv("TINCTURE_TAGGER", "models/tagger")
    assert client.post("interrogate", json={"image": image}).json() == {"caption": "7 bytes by ['captioner']"}
    tagged = client.post("interrogate", json={"image": f"data:image/png;base64,{image}", "model": "deepdanbooru"})
    assert tagged.json() == {"caption": "7 bytes by ['tagger']"}


def test_flags_tell_no_secret(client_of: Clients, tmp_path: Path) -> None:
    service = FakeService(tmp_path)
    service.settings = ServerSettings(auth="me:hush-hush", token="zq" * 10, host="0.0.0.0")
    text = client_of(service).get("cmd-flags").text
    assert "hush" not in text
    assert "zqzq" not in text
    assert json.loads(text)["listen"] is True


def test_the_description_names_every_argument(client: TestClient) -> None:
    schema = client.get("http://127.0.0.1/openapi.json").json()
    body = schema["paths"]["/sdapi/v1/train/hypernetwork"]["post"]["requestBody"]["content"]["application/json"]
    properties = body["schema"]["properties"]
    assert len(properties) == 29
    assert body["schema"]["required"] == ["hypernetwork_name", "data_root"]
    assert body["schema"]["additionalProperties"] is False
    assert properties["learn_rate"]["type"] == ["string", "number", "null"]
    assert properties["latent_sampling_method"]["enum"] == ["once", "deterministic", "random", None]


def test_errors_of_the_service_are_told(service: FakeService, client: TestClient) -> None:
    def broken(*_: Any, **__: Any) -> list[Path]:
        raise DivergedError("It broke.")

    service.model_work.draw = broken  # type: ignore[method-assign]
    answer = client.post("txt2img", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]) == (500, "DivergedError")
    with pytest.raises(UsageError):
        service.places.model("nothing")
