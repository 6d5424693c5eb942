"""A drawing from the HTTP request to its pixels, and its one description in every front."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.testclient import TestClient

from tests.runs import Bench
from tincture.adapters.files.conversion import LoraOptions, convert_file
from tincture.adapters.merging.merged_files import plan_merge
from tincture.cli import convert as cli_convert
from tincture.cli import generate as cli_generate
from tincture.cli import inspect as cli_inspect
from tincture.cli import merge as cli_merge
from tincture.cli.commands import load_command
from tincture.drawing import model_cache
from tincture.drawing.generation import generate_grid, generate_pictures
from tincture.server import api_v1
from tincture.server.api_v1.schemas import ConversionBody, InspectionBody, MergeBody, PictureRequest
from tincture.server.http import errors as http_errors
from tincture.server.model_process.targets import TARGETS, open_resources
from tincture.server.requests.sizes import LARGEST_NUMBER, LONGEST_TEXT
from tincture.server.service import Service
from tincture.settings.conversion import CONVERSION_FIELDS, INSPECTION_FIELDS
from tincture.settings.drawing import DRAWING_FIELDS, REQUEST_FIELDS
from tincture.settings.fields import FieldSpec
from tincture.settings.merging import MERGE_FIELDS
from tincture.settings.model_overrides import ModelOverrides
from tincture.settings.server import ServerSettings

PICTURES = "/api/v1/pictures"


class OwnProcess:
    """Does the work of the model's process in this one."""

    def __init__(self, service: Service) -> None:
        self.resources = open_resources(service.workspace, lambda **_: None)

    def call_with_remarks(self, name: str, **arguments: Any) -> tuple[Any, list[str]]:
        return TARGETS[name](self.resources, **arguments), []

    def close(self) -> None:
        pass


@pytest.fixture
def client(bench: Bench) -> Iterator[TestClient]:
    service = Service(bench.workspace, ServerSettings(device=("cpu",), allow_dir=(str(bench.model),)))
    service.model_work.drawing_process = OwnProcess(service)  # type: ignore[assignment]
    app = FastAPI()
    http_errors.register(app)
    app.include_router(api_v1.router(service))
    app.state.service = service
    yield TestClient(app)
    service.close()


def drawn(client: TestClient, bench: Bench, **fields: Any) -> bytes:
    small = {"prompts": ["a cat"], "seeds": [3], "model": str(bench.model), "steps": 2, "width": 16, "height": 16}
    answer = client.post(PICTURES, json={**small, **fields})
    assert answer.status_code == 200, answer.text
    return client.get(answer.json()["pictures"][0]["url"]).content


def test_what_a_request_says_of_its_model_is_what_the_model_is_loaded_with(
    client: TestClient, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    load = model_cache.load_model

    def loaded(name: str, **options: Any) -> Any:
        asked.append(options)
        return load(name, **options)

    monkeypatch.setattr(model_cache, "load_model", loaded)
    plain = drawn(client, bench)
    taught = drawn(client, bench, prediction_type="v_prediction", family="sd1", zero_terminal_snr=True)
    assert plain != taught
    assert drawn(client, bench, prediction_type="auto", family="auto", zero_terminal_snr=None) == plain
    told = [{name: options[name] for name in ("family", "prediction_type", "zero_terminal_snr")} for options in asked]
    left_open = dict.fromkeys(told[0])
    assert told == [
        left_open,
        {"family": "sd1", "prediction_type": "v_prediction", "zero_terminal_snr": True},
        left_open,
    ]


def test_seeds_may_count_up_over_http_too(client: TestClient, bench: Bench) -> None:
    small = {"model": str(bench.model), "steps": 1, "width": 16, "height": 16}
    answer = client.post(PICTURES, json={"prompts": ["a"], "seed": 7, "count": 2, **small})
    assert [each["name"] for each in answer.json()["pictures"]] == ["00001-7.png", "00002-8.png"]
    sheet = client.post(PICTURES, json={"prompts": ["a <hypernet:ink:1>"], "grid": True, **small})
    assert sheet.json()["pictures"][0]["name"].startswith("grid-")


# --- one description --------------------------------------------------------------------------------------------------

FRONTS = [
    pytest.param("generate", cli_generate.FLAGLESS, {"out", "config"}, DRAWING_FIELDS, id="generate"),
    pytest.param("convert", cli_convert.FLAGLESS, set(), CONVERSION_FIELDS, id="convert"),
    pytest.param("merge", cli_merge.FLAGLESS, set(), MERGE_FIELDS, id="merge"),
    pytest.param("inspect", cli_inspect.FLAGLESS, set(), INSPECTION_FIELDS, id="inspect"),
]
SHARED = {"root", "debug", "json", "help"}


@pytest.mark.parametrize(("command", "flagless", "further", "specs"), FRONTS)
def test_every_setting_is_a_flag_with_the_same_help(
    command: str, flagless: tuple[str, ...], further: set[str], specs: Mapping[str, FieldSpec]
) -> None:
    options = {each.name: each for each in load_command(command).params if each.param_type_name == "option"}
    assert options.keys() - SHARED - further == specs.keys() - set(flagless)
    for name in specs.keys() - set(flagless):
        assert f"--{name.replace('_', '-')}" in options[name].opts
        assert options[name].help.startswith(specs[name].help)


BODIES = [
    pytest.param(PictureRequest, REQUEST_FIELDS, id="pictures"),
    pytest.param(ConversionBody, CONVERSION_FIELDS, id="conversion"),
    pytest.param(MergeBody, MERGE_FIELDS, id="merge"),
    pytest.param(InspectionBody, INSPECTION_FIELDS, id="inspection"),
]


@pytest.mark.parametrize(("body", "specs"), BODIES)
def test_every_setting_is_a_field_of_the_http_schema_with_its_bounds(
    body: type[BaseModel], specs: Mapping[str, FieldSpec]
) -> None:
    properties = body.model_json_schema()["properties"]
    assert properties.keys() == specs.keys()
    for name, spec in specs.items():
        field = properties[name]
        assert field["description"].startswith(spec.help)
        kind = field["anyOf"][0] if "anyOf" in field else field
        item = kind["items"] if spec.repeated else kind
        if spec.choices:
            assert tuple(item["enum"]) == spec.choices
        elif spec.type is str:
            assert item["maxLength"] == LONGEST_TEXT
        elif spec.type is not bool:
            largest = spec.largest or LARGEST_NUMBER
            assert item["minimum"] == (spec.bounds.minimum if spec.bounds else -largest)
            assert item["maximum"] == largest


def test_the_command_line_and_requests_differ_by_the_machine_alone() -> None:
    assert DRAWING_FIELDS.keys() - REQUEST_FIELDS.keys() == {"device", "threads"}
    assert all(DRAWING_FIELDS[name] == spec for name, spec in REQUEST_FIELDS.items())


def test_python_takes_the_same_by_keyword() -> None:
    apart = {"drawing", "overrides", "workspace", "out", "studio", "watch", "finished"}
    known = DRAWING_FIELDS.keys() | apart
    for function in (generate_pictures, generate_grid):
        assert set(inspect.signature(function).parameters) - {"prompt"} <= known
    assert set(ModelOverrides.__dataclass_fields__) <= DRAWING_FIELDS.keys()
    of_lora = {*LoraOptions.__dataclass_fields__, "strength"} - {"multiplier"}
    taken = set(inspect.signature(convert_file).parameters) - {"source", "target", "lora", "workspace"}
    assert taken | of_lora | {"path", "out"} == CONVERSION_FIELDS.keys()
    assert set(inspect.signature(plan_merge).parameters) - {"workspace"} == MERGE_FIELDS.keys()


@pytest.fixture
def with_files(client: TestClient) -> TestClient:
    """A server that works at files in this process."""

    class Files(OwnProcess):
        def call(self, name: str, /, **arguments: Any) -> Any:
            return TARGETS[name](self.resources, **arguments)

    service = client.app.state.service  # type: ignore[attr-defined]
    service.model_work.file_process = Files(service)
    return client


def test_files_are_looked_into_and_converted_over_http(with_files: TestClient, bench: Bench) -> None:
    client = with_files
    path = bench.path("embedding").relative_to(bench.workspace.root).as_posix()
    looked = client.post("/api/v1/files/inspect", json={"path": path})
    assert (looked.status_code, looked.json()["file"]["name"]) == (200, "cat")
    made = client.post("/api/v1/files/convert", json={"path": path, "out": "cat.bin", "name": "tom"})
    assert made.status_code == 200, made.text
    assert (made.json()["path"], made.json()["format"], made.json()["name"]) == ("cat.bin", "bin", "tom")
    assert (bench.workspace.root / "cat.bin").is_file()
    again = client.post("/api/v1/files/convert", json={"path": path, "out": "cat.bin"})
    assert again.status_code == 422 and "There is a file" in again.json()["detail"]
    assert client.post("/api/v1/files/inspect", json={"path": "/etc/passwd"}).status_code == 403
    assert client.post("/api/v1/files/convert", json={"path": path, "out": "a.bin", "rank": 0}).status_code == 422


def test_files_are_merged_over_http(with_files: TestClient, bench: Bench) -> None:
    client = with_files
    path = bench.path("embedding").relative_to(bench.workspace.root).as_posix()
    made = client.post(
        "/api/v1/files/merge", json={"sources": ["cat:0.5", f"{path}:2"], "out": "tom", "method": "stack"}
    )
    assert made.status_code == 200, made.text
    answer = made.json()
    assert (answer["path"], answer["method"], answer["exact"]) == ("embeddings/tom.pt", "stack", True)
    assert [source["weight"] for source in answer["sources"]] == [0.5, 2]
    looked = client.post("/api/v1/files/inspect", json={"path": "embeddings/tom.pt"}).json()["file"]
    assert looked["provenance"]["merged"]["sources"] == answer["sources"]
    for wrong, status in (
        ({"sources": ["cat:0.5", "/etc/passwd:0.5"], "out": "x"}, 403),
        ({"sources": ["cat:0.5"], "out": "../x.pt"}, 403),
        ({"sources": ["cat"], "out": "x"}, 422),
        ({"sources": ["dog:0.5"], "out": "x"}, 422),
        ({"sources": ["cat:0.5"], "out": " "}, 422),
        ({"sources": ["cat:0.5"], "out": "x", "sizes": [0]}, 422),
        ({"sources": ["cat:0.5"], "out": "x", "oversize": 1}, 422),
        ({"sources": ["cat:0.5"] * 30, "out": "x"}, 422),
    ):
        assert client.post("/api/v1/files/merge", json=wrong).status_code == status, wrong
    assert client.get("/api/v1/settings/merge").status_code == 200
