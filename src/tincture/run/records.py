"""What a run writes down about itself: the record that a resume needs, provenance, the webui's settings file."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import Adapter
from tincture.adapters.joint import MEMBER
from tincture.data.listing import Source
from tincture.formats.software import software
from tincture.models.arithmetic import Arithmetic
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.loading.sources import find_source, find_vae
from tincture.models.sampling import complete
from tincture.preprocessing.describer_kinds import shown
from tincture.run.components import Components
from tincture.run.descriptions import DESCRIBED
from tincture.run.digests import adapter_digest, pictures_digests
from tincture.run.folder import RunFolder, write_json, write_record
from tincture.run.ownership import fixed_digests
from tincture.run.past.again import CONTINUED
from tincture.run.past.changes import libraries, template_hash
from tincture.run.result import COMPANIONS
from tincture.settings.drawing import Drawing
from tincture.settings.train import TrainSettings
from tincture.workspace import Workspace

PROCESSES = "processes"
"""In a run's record: how many processes computed it, at the start or since it went on last."""
BEST = "best"
"""What the file of a run's best adapter by validation has in its provenance, and no other."""


def write_records(run: Components, folders: Sequence[RunFolder], paths: Sequence[Path], workspace: Workspace) -> None:
    """Writes what a resume needs, and the webui's settings file.

    Args:
        folders: the run's, as each of its adapters sees it.
        paths: of the adapters' files.
    """
    folder, members = folders[0], run.adapter.members()
    settings = run.settings.replace(
        data=tuple(str(Source.parse(folder).resolved()) for folder in run.settings.folders),
        validation_data=tuple(str(Source.parse(folder).resolved()) for folder in run.settings.validation_folders),
        prior_data=tuple(str(Source.parse(folder).resolved()) for folder in run.settings.prior_folders),
        masks=run.settings.masks and str(Path(run.settings.masks).resolve()),
        caption_model=_describer_anywhere(run.settings.caption_model),
        cache_dir=run.settings.cache_dir and str(Path(run.settings.cache_dir).resolve()),
        model=_anywhere(run.settings.model, workspace),
        vae=run.settings.vae and str(find_vae(run.settings.vae, workspace)),
        **run.model.overrides(),  # a file beside the model that comes or goes does not change this run
    )
    for member, own in zip(members, folders, strict=True):
        member.published().save(own.start, model_name=run.model.name, model_hash=run.model.hash)
    first, *others = [
        {"adapter_path": str(path.resolve()), "adapter_digests": [adapter_digest(member)]}
        for member, path in zip(members, paths, strict=True)
    ]
    record = {
        "settings": settings.to_dict(),
        "root": str(workspace.root.resolve()),
        **first,
        **({COMPANIONS: others} if others else {}),
        **fixed_digests(run.adapter),
        "model_name": run.model.name,
        "model_hash": run.model.hash,
        **pictures_digests(run.sides, run.prior),
        # The lines themselves: a template that is edited later does not change this run.
        "template_lines": run.lines,
        "prior_lines": run.prior.lines if run.prior else [],
        **({DESCRIBED: dict(run.described)} if run.described else {}),
        "arithmetic": [Arithmetic.current(run.model.device.type).to_dict()],
        PROCESSES: run.trainer.processes.world_size,
        "pictures": run.dataset.pictures(),
        "libraries": libraries(),
        **software(),
    }
    now = datetime.datetime.now()
    write_json(folder.path / f"settings-{now:%Y-%m-%d-%H-%M-%S}.json", _webui_settings(run, folder, now))
    write_record(folder.path, record)


def arithmetics(record: Mapping[str, Any]) -> list[Any]:
    """What a run computed with, as ``Arithmetic.to_dict`` gives it: at its start, and whenever it went on with another.

    Runs of before such notes have none.
    """
    noted = record.get("arithmetic")
    return noted if isinstance(noted, list) else []


def _anywhere(model: str, workspace: Workspace) -> str:
    """A model's name or path so that it is found from any current directory."""
    return str(find_source(model, workspace))


def _describer_anywhere(model: str) -> str:
    """The same of what describes pictures: the path of one that is there, else an id of the hub."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model and path.exists() else model


def _webui_settings(run: Components, folder: RunFolder, now: datetime.datetime) -> dict[str, Any]:
    """The reference's settings file, in its own key names."""
    settings, adapter, model = run.settings, run.adapter, run.model
    kind = settings.kind
    drawing = complete(preview_drawing(settings), model)
    previews = settings.preview_prompts and {
        "preview_prompt": settings.preview_prompts[0],
        "preview_negative_prompt": settings.preview_negative_prompt,
        "preview_steps": settings.preview_steps,
        "preview_sampler_name": settings.preview_sampler,
        "preview_cfg_scale": drawing.guidance_scale,
        "preview_seed": settings.preview_seed,
        "preview_width": drawing.width,
        "preview_height": drawing.height,
    }
    return {
        "datetime": f"{now:%Y-%m-%d %H:%M:%S}",
        "model_name": model.name,
        "model_hash": model.hash,
        "num_of_dataset_images": run.dataset.pictures(),
        **{key: value for member in adapter.members() for key, value in member.published().webui_settings().items()},
        **{f"{member.kind}_name": member.name for member in reversed(adapter.members())},
        "learn_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        "gradient_step": settings.gradient_accumulation_steps,
        "data_root": settings.data,
        "log_directory": str(folder.path),
        "training_width": settings.width or model.default_size,
        "training_height": settings.height or model.default_size,
        "steps": settings.steps,
        "clip_grad_mode": settings.clip_grad_mode,
        "clip_grad_value": settings.clip_grad_value,
        "latent_sampling_method": settings.latent_sampling_method,
        "create_image_every": settings.preview_every,
        f"save_{kind}_every": settings.save_every,
        "save_image_with_stored_embedding": settings.preview_with_embedding,
        "template_file": settings.template,
        "initial_step": adapter.step,
        **(previews or {}),
    }


def provenance(run: Components, member: Adapter, adapter: Adapter) -> dict[str, Any]:
    """What the file of ``adapter`` says of how it was made, with what it said before the run of author and so on.

    Args:
        member: of what the run trains, the one whose file it is.
    """
    settings = settings_to_pass_on(run.settings, run.model)
    made = {
        **software(),
        "libraries": libraries(),
        "settings": settings,
        "data_hash": run.dataset.digest(),
        "pictures": run.dataset.pictures(),
        "template_hash": template_hash(run.lines),
        # A run whose start was damaged begins from a copy of its own.
        **({CONTINUED: True} if adapter.provenance.get("settings", settings) != settings else {}),
    }
    people = {"author": run.settings.author, "license": run.settings.license}
    before = {key: value for key, value in adapter.provenance.items() if key not in (BEST, MEMBER)}
    if len(run.adapter.members()) > 1:
        made[MEMBER] = {"kind": member.kind, "name": member.name}
    return {**before, **{key: text for key, text in people.items() if text}, **made}


def settings_to_pass_on(settings: TrainSettings, model: DiffusionModel) -> dict[str, Any]:
    """A run's settings as files and trackers have them: no places of this machine."""
    return settings.replace(**model.overrides(), **_placeless(settings, model)).to_dict()


def _placeless(settings: TrainSettings, model: DiffusionModel) -> dict[str, Any]:
    """The settings that are places, by their last names: files are passed on, and the rest is nobody's business.

    It is also the same for a run that goes on, whose settings have absolute places.
    """
    return {
        "companions": tuple(
            str(dataclasses.replace(other, template=Path(other.template).name)) for other in settings.others
        ),
        "data": tuple(_source_name(Source.parse(folder)) for folder in settings.folders),
        "validation_data": tuple(_source_name(Source.parse(folder)) for folder in settings.validation_folders),
        "prior_data": tuple(_source_name(Source.parse(folder)) for folder in settings.prior_folders),
        "prior_template": Path(settings.prior_template).name,
        "caption_model": settings.caption_model and shown(settings.caption_model),
        "masks": settings.masks and Path(settings.masks).resolve().name,
        "model": model.name,
        "vae": settings.vae and _without_ending(Path(settings.vae)),
        "template": Path(settings.template).name,
        "cache_dir": "",
        "log_dir": "",
        "processes": "",  # how it was computed, not what
    }


def _source_name(source: Source) -> str:
    folder = source.resolved().folder
    return str(Source(Path(folder.name or folder), source.repeats))


def _without_ending(path: Path) -> str:
    return path.stem if path.suffix in (".safetensors", ".ckpt", ".pt", ".bin") else path.name


def preview_drawing(settings: TrainSettings) -> Drawing:
    """How previews are drawn."""
    return Drawing(
        negative_prompt=settings.preview_negative_prompt,
        steps=settings.preview_steps,
        sampler=settings.preview_sampler,
        guidance_scale=settings.preview_guidance_scale,
        width=settings.preview_width or settings.width or None,
        height=settings.preview_height or settings.height or None,
        clip_skip=settings.clip_skip,
    )
