"""What is known of optimizers without loading them: those that a library adds, usual rates, arguments as typed.

Rates are told beside AdamW's, which the kinds of adapters have. Where nothing better is known, an optimizer's is as
much above or below as its authors' default is above or below 0.001, AdamW's. Sources of the others:

- Prodigy (Mishchenko & Defazio 2023) and D-adaptation (Defazio & Mishchenko 2023) find the size of their steps, and
  AdamG is alike: the rate is 1.
- Lion (Chen et al. 2023) and others that go by the sign of what they keep take a third to a tenth: 0.2 here.
- Gradient descent is not scaled by the gradients' size: a hundred times.
- Schedule-free AdamW (Defazio et al. 2024) takes 1 to 10 times as much: 2.5, its default.
- Adadelta's steps have the units of the weights: 1.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tincture.errors import UsageError

USUAL = "AdamW"
EXAMPLE = "betas=(0.9, 0.99) eps=1e-6"
_BY_FACTOR: Mapping[float, str] = {
    0.1: "SGDW SimplifiedAdEMAMix GrokFastAdamW",
    0.2: "Ano CAME DAdaptLion EmoLynx Lion SignSGD Tiger",
    0.4: "LaProp",
    1: (
        "ADOPT AdEMAMix AdaBelief AdaGC AdaMod AdaNorm AdaPNM AdaSmooth AdaTAM Adalite AdamC AdamP AdamS "
        "AdamWSN Adan Aida Amos BCOS DASH DiffGrad DualAdam EXAdam EmoFact EmoNavi FAdam FlashAdamW Grams Kate "
        "LARS Lamb MADGRAD NovoGrad QHAdam ROSE SPAM SWATS StableAdamW StableSPAM TAM"
    ),
    2.5: "ScheduleFreeAdamW ScheduleFreeRAdam",
    3: "SOAP",
    10: "FOCUS Fromage MSVAG SGDSaI Yogi",
    20: "Alice",
    100: "AccSGD Adai AggMo AvaGrad PAdam PID PNM QHM SGDP SM3 VSGD",
    1000: "ScheduleFreeSGD",
}
LIBRARY: Mapping[str, float] = types.MappingProxyType(
    {name: factor for factor, names in _BY_FACTOR.items() for name in names.split()}
    | dict.fromkeys(("AdamG", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptSGD", "Prodigy"), 1.0)
)
"""Optimizers of pytorch-optimizer that were tried, with their rates as multiples of AdamW's, but for ``_ABSOLUTE``."""
_OF_TORCH: Mapping[str, float] = {"Adafactor": 10, "Adagrad": 10, "Adamax": 2, "NAdam": 2, "ASGD": 100, "SGD": 100}
_ABSOLUTE: Mapping[str, str] = dict.fromkeys(
    (*(name for name in LIBRARY if name.startswith("DAdapt")), "Prodigy", "AdamG", "Adadelta"), "1"
)
_REASONS: Mapping[str, str] = {
    "needs the loss again within a step": "AliG",
    "needs second derivatives, which a step does not keep": "AdaHessian SophiaH",
    "wraps another optimizer, or makes each step twice": (
        "FriendlySAM GSAM LookSAM SAM WSAM BSAM Lookahead OrthoGrad PCGrad SafeFP16Optimizer ScheduleFreeWrapper TRAC"
    ),
    "needs the model itself, not its parameters": "AdaLOMO AdamMini LOMO",
    "has no learning rate that a schedule could set": "A2Grad Magma SaRA",
    "does not follow the learning rate of a step": "ApolloDQN Nero Ranger21 SRMM",
    "fails at a rate of 0, with which a warm-up begins": "FTRL Gravity MARS",
    "has a state that a file of plain values cannot hold": "AdaShift Conda SCION SCIONLight ScalableShampoo SPlus",
    "needs groups of parameters of its own making": (
        "AdaGO AdaMuon DistributedMuon MuonClip NorMuon GaLore Fira APOLLO RACS"
    ),
    "keeps the rate that it began with outside of its state": "AdaBound",
    "lowers no loss within its first hundred steps": "Ranger",
    "works on weights of some shapes only": "LoRARite Shampoo SpectralSphere",
    "draws random numbers that no seed decides": "Kron",
    "needs further packages and many processes": "DeMo",
    "needs the loss re-evaluated within a step": "LBFGS",
    "works on sparse gradients only": "SparseAdam",
}
REFUSED: Mapping[str, str] = types.MappingProxyType(
    {name: reason for reason, names in _REASONS.items() for name in names.split()}
)
"""Optimizers that there are and that cannot train here, with why not."""
_OTHER_NAMES: Mapping[str, str] = {
    f"{name}schedulefree": f"ScheduleFree{known}"
    for name, known in (("adamw", "AdamW"), ("radam", "RAdam"), ("sgd", "SGD"))
}
"""Names, in small letters, that the authors' own library has for some."""
ONE_RATE = frozenset(name for name in LIBRARY if name.startswith("DAdapt") or name == "Prodigy")
"""They take the rate of the first group of parameters for all."""
_NUMBER = re.compile(
    r"(?<![\w.*])(?<!\* )(\d+\.?\d*|\.\d+)(e[+-]?\d+)?(?=\s*(:|->|,|$|[a-z]))", re.ASCII | re.IGNORECASE
)
_WORDS = {"true": True, "false": False, "none": None}


def averages_by_itself(optimizer: str) -> bool:
    """Whether the weights to publish are averages that the optimizer keeps."""
    return known_name(optimizer).startswith("ScheduleFree")


def known_name(optimizer: str) -> str:
    """A name as tables have it, upper and lower case being alike; one that they don't have as it is."""
    names = {name.lower(): name for name in (*LIBRARY, *_OF_TORCH, *_ABSOLUTE, *REFUSED, USUAL)}
    return {**names, **_OTHER_NAMES}.get(optimizer.strip().lower(), optimizer.strip())


def usual_rate(optimizer: str, with_adamw: str) -> str:
    """The learning rate where none is given, as a schedule; ``with_adamw`` is the one for AdamW."""
    name = known_name(optimizer)
    if name in _ABSOLUTE:
        return _ABSOLUTE[name]
    factor = _OF_TORCH.get(name, LIBRARY.get(name, 1))
    if factor == 1:
        return with_adamw
    scaled = (_scaled(segment, factor) for segment in with_adamw.split(","))
    return ", ".join(segment.strip() for segment in scaled)


def usual_rates(with_adamw: str) -> set[str]:
    """The usual rates of all optimizers, where that of AdamW is ``with_adamw``."""
    return {usual_rate(name, with_adamw) for name in (*LIBRARY, *_OF_TORCH, *_ABSOLUTE, USUAL)}


def _scaled(segment: str, factor: float) -> str:
    """A segment of a schedule with its values multiplied."""
    values, colon, end = segment.partition(":")
    return _NUMBER.sub(lambda found: f"{float(found[0]) * factor:g}", values) + colon + end


# --- arguments -------------------------------------------------------------------------------------------------------


def parse_arguments(text: str) -> dict[str, Any]:
    """``betas=(0.9, 0.99) d_coef=2`` as values by name; only literals are read, nothing is computed.

    Raises:
        UsageError: it is something else, or names one twice.
    """
    try:
        call = ast.parse(f"f({_with_commas(text)}\n)", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        values = [(str(keyword.arg), _literal(keyword.value)) for keyword in call.keywords]
    except (ValueError, SyntaxError, AssertionError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise UsageError(
            f"must be names with numbers, true, false, none, texts in quotes or lists of them. Example: {EXAMPLE!r}."
        ) from error
    names = [name for name, _ in values]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"must not name {', '.join(sorted(twice))} twice.")
    return dict(values)


def arguments_faults(text: str, decays: Sequence[str] = ()) -> list[str]:
    """All that is wrong with ``optimizer_args``, in words that name it; ``decays``: other settings of weight decay."""
    given = f"optimizer_args is {text!r}, but"
    try:
        arguments = parse_arguments(text)
    except UsageError as error:
        return [f"{given} {error.sentence.rstrip('.')}"]
    wrong = [f"{given} {name} cannot stand there: {why}" for name, why in NEVER_GIVEN.items() if name in arguments]
    if "weight_decay" in arguments and decays:
        wrong.append(f"{given} {' and '.join(decays)} {'are' if len(decays) > 1 else 'is'} given too; give one of them")
    return wrong


NEVER_GIVEN: Mapping[str, str] = types.MappingProxyType(
    {
        "lr": "learning_rate is instead",
        "params": "the adapter's are trained",
        "maximize": "a run makes the loss smaller",
        "differentiable": "gradients of a step are not needed",
        "capturable": "steps are not captured",
    }
)
"""Arguments that an optimizer may have and that are not to be given, with why not."""


def _with_commas(text: str) -> str:
    """The same with a comma before each name that follows a value, outside of brackets and quotes."""
    line = text.replace("\n", " ").strip()
    tokens = [*tokenize.generate_tokens(io.StringIO(line).readline)]
    depth, places = 0, []
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        depth += (before.string in "([{" and before.type == tokenize.OP) - (
            before.string in ")]}" and before.type == tokenize.OP
        )
        if depth == 0 and token.type == tokenize.NAME and after.string == "=" and before.string != ",":
            places.append(token.start[1])
    parts = [line[start:end] for start, end in zip([0, *places], [*places, len(line)], strict=True)]
    return ",".join(parts)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
        return _WORDS[node.id.lower()]
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_literal(item) for item in node.elts)
    value = ast.literal_eval(node)
    if not isinstance(value, bool | int | float | str | None) or value in (math.inf, -math.inf):
        raise ValueError
    return value


def argument_text(arguments: Mapping[str, Any]) -> str:
    """What `parse_arguments` reads back."""
    return " ".join(_pairs(arguments))


def _pairs(arguments: Mapping[str, Any]) -> Iterator[str]:
    for name, value in arguments.items():
        yield f"{name}={value!r}"
