"""Bodies of requests made from settings: each field has the setting's help, default and bounds."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from tincture.kinds.registry import Option
from tincture.server.requests.sizes import LARGEST_NUMBER, LONGEST_TEXT, MOST_ITEMS
from tincture.settings.fields import FieldSpec

NONE_OPEN: Mapping[str, str] = types.MappingProxyType({})
LONGEST_WORD = 200
Model = TypeVar("Model", bound=BaseModel)


def _nullable(schema: dict[str, Any]) -> None:
    """Says in a request's description that each field that may be left out may be null."""
    for name, described in schema.get("properties", {}).items():
        kinds = described.get("anyOf", [])
        if name in schema.get("required", ()) or {"type": "null"} in kinds or not described.keys() - {"description"}:
            continue
        words = {key: described.pop(key) for key in ("title", "description", "default") if key in described}
        whole = {"anyOf": [*(kinds or [dict(described)]), {"type": "null"}], **words}
        described.clear()
        described.update(whole)


class BaseRequest(BaseModel):
    """A request's body, in which null stands for a field that is left out."""

    model_config = ConfigDict(json_schema_extra=_nullable)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return without_nulls(values) if isinstance(values, dict) else values


def without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is given: null stands for what is left out."""
    return {name: value for name, value in values.items() if value is not None}


def with_fields(
    specs: Mapping[str, FieldSpec], *, required: Collection[str] = (), open_ones: Mapping[str, str] = NONE_OPEN
) -> Callable[[type[Model]], type[Model]]:
    """Gives a request's class a field for each setting; what is not given is None, which stands for the default.

    Args:
        specs: the settings.
        required: those among them that must be given, lists with something in them.
        open_ones: what stands for those that are not given, where it is not the setting's own default.
    """

    def described(spec: FieldSpec) -> str:
        default = open_ones.get(spec.name, "" if spec.default in (None, "", ()) else _as_json(spec.default))
        return f"{spec.help} Not given: {default}." if default else spec.help

    fields: dict[str, Any] = {
        name: _field(spec, described(spec), required=name in required) for name, spec in specs.items()
    }

    def extended(base: type[Model]) -> type[Model]:
        return create_model(base.__name__, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields)

    return extended


def limits_of(spec: FieldSpec) -> dict[str, Any]:
    """What ``pydantic.Field`` is given of a number or text, or of each one of a list."""
    if spec.type is bool or spec.choices:
        return {}
    if spec.type is str:
        return {"max_length": int(min(spec.largest or LONGEST_TEXT, LONGEST_TEXT))}
    largest, bounds = spec.largest or LARGEST_NUMBER, spec.bounds
    limits: dict[str, Any] = {"ge": bounds.minimum if bounds else -largest}
    if bounds and bounds.below is not None and bounds.below <= largest:
        limits["lt"] = bounds.below
    else:
        limits["le"] = min(largest, bounds.maximum) if bounds and bounds.maximum is not None else largest
    return {**limits, "allow_inf_nan": False} if spec.type is float else limits


def _field(spec: FieldSpec, description: str, *, required: bool) -> tuple[Any, Any]:
    kind: Any = Literal[spec.choices] if spec.choices else spec.type
    kind = Annotated[kind, Field(**limits_of(spec))]
    if spec.repeated:
        length: dict[str, Any] = {"max_length": spec.most_items or MOST_ITEMS, "min_length": 1 if required else 0}
        kind = Annotated[types.GenericAlias(list, (kind,)), Field(**length)]
    return (kind, Field(description=description)) if required else (kind | None, Field(None, description=description))


def _as_json(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def option_field(option: Option) -> tuple[Any, Any]:
    """The field of an option that a new adapter is made with, as ``create_model`` takes it."""
    described: dict[str, Any] = {} if option.described is None else {"description": option.described or option.help}
    if option.several is None:
        return Annotated[type(option.default), Field(**option.request_bounds)], Field(option.default, **described)
    limits = {**option.request_bounds, **({"allow_inf_nan": False} if option.several is float else {})}
    listed: Any = types.GenericAlias(list, (Annotated[option.several, Field(**limits)],))
    listed = Annotated[listed, Field(max_length=option.most)] if option.most else listed
    if option.or_word:
        listed = listed | Annotated[str, Field(max_length=LONGEST_WORD)]
    default = None if option.default is None else list(option.default)
    return (listed | None if default is None else listed), Field(default, **described)
