"""Points that Optuna draws from ranges: at random, or by what it learned from those that are done (TPE).

Optuna is imported when points are drawn. What it draws depends on seed, number and results alone, not on what was drawn
before in this process: a sweep that was killed goes on with the same points.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tincture.errors import UsageError
from tincture.kinds.registry import Option
from tincture.settings.fields import FieldSpec
from tincture.settings.train import FIELDS
from tincture.sweeps.sweep_file import CREATE

Point = dict[str, Any]
_DIGITS = 4
"""Of a number that is drawn from a range: more say nothing, and fill the tables."""
_SEEDS = 2**32  # that Optuna takes
_PATIENCE = 20
"""Times that points are drawn which were drawn before, until it is taken that there are no others."""


def draw(ranges: Mapping[str, Any], trials: int, seed: int, options: Mapping[str, Option]) -> list[Point]:
    """``trials`` points at random, each once: fewer where the ranges have no more.

    Raises:
        UsageError: Optuna is not installed.
    """
    optuna = _optuna()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed % _SEEDS))
    points: list[Point] = []
    asked, again = _distributions(optuna, ranges, options), 0
    while len(points) < trials and again < _PATIENCE * trials:
        point = _point(study.ask(asked).params, ranges)
        again += point in points
        points += [] if point in points else [point]
    return points


def ask(
    ranges: Mapping[str, Any],
    seed: int,
    options: Mapping[str, Option],
    drawn: Sequence[Point],
    values: Sequence[float | None],
    *,
    more_is_better: bool,
) -> Point | None:
    """The next point by TPE, given those that were ``drawn`` and what came of them (None: nothing yet, or a failure).

    None where the ranges seem to have no other one.
    """
    optuna = _optuna()
    asked = _distributions(optuna, ranges, options)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=(seed + len(drawn)) % _SEEDS),
        direction="maximize" if more_is_better else "minimize",
    )
    for point, value in zip(drawn, values, strict=True):
        if value is not None:
            params = _params(point, ranges)
            study.add_trial(optuna.trial.create_trial(params=params, distributions=asked, value=value))
    for _ in range(_PATIENCE):
        if (point := _point(study.ask(asked).params, ranges)) not in drawn:
            return point
    return None


def corners(ranges: Mapping[str, Any]) -> Iterator[Point]:
    """Points by which ranges can be checked before anything is drawn: both ends of each, and every choice."""
    first = {key: _ends(given)[0] for key, given in ranges.items()}
    for key, given in ranges.items():
        yield from ({**first, key: value} for value in _ends(given))


def is_whole(key: str, given: Mapping[str, Any], options: Mapping[str, Option]) -> bool:
    """Whether whole numbers are drawn: where that is asked for, or the setting or option takes no others."""
    if key.startswith(CREATE):
        option = options.get(key.removeprefix(CREATE))
        return bool(given.get("int") or (option and isinstance(option.default, int)))
    spec: FieldSpec | None = FIELDS.get(key)
    return bool(given.get("int") or (spec and spec.type is int))


def _ends(given: Mapping[str, Any]) -> list[Any]:
    return list(given["choices"]) if "choices" in given else [given["low"], given["high"]]


def _distributions(optuna: Any, ranges: Mapping[str, Any], options: Mapping[str, Option]) -> dict[str, Any]:
    return {key: _distribution(optuna, given, is_whole(key, given, options)) for key, given in ranges.items()}


def _distribution(optuna: Any, given: Mapping[str, Any], whole: bool) -> Any:
    if "choices" in given:  # by their places: Optuna takes no lists or tables
        return optuna.distributions.CategoricalDistribution(list(range(len(given["choices"]))))
    how = {"log": bool(given.get("log")), **({"step": given["step"]} if given.get("step") else {})}
    if whole:
        return optuna.distributions.IntDistribution(int(given["low"]), int(given["high"]), **how)
    return optuna.distributions.FloatDistribution(float(given["low"]), float(given["high"]), **how)


def _point(params: Mapping[str, Any], ranges: Mapping[str, Any]) -> Point:
    return {key: _value(params[key], given) for key, given in ranges.items()}


def _value(drawn: Any, given: Mapping[str, Any]) -> Any:
    if "choices" in given:
        return given["choices"][drawn]
    if isinstance(drawn, float):
        return min(max(float(f"{drawn:.{_DIGITS}g}"), given["low"]), given["high"])
    return drawn


def _params(point: Point, ranges: Mapping[str, Any]) -> Point:
    return {
        key: given["choices"].index(point[key]) if "choices" in given else point[key] for key, given in ranges.items()
    }


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise UsageError("[random] needs Optuna, which is not installed; pip install 'tincture[sweep]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
