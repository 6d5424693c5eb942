"""How well subjects are learned: curves, other trainers' recipes, and each setting by itself, on picto.

    python bench/quality.py peers              # every lesson of a part that has no result yet
    python bench/quality.py switches --only "ema 0.9" "baseline" --rounds 2
    python bench/quality.py pack               # lessons' files of all parts into one file for each part
    python bench/quality.py report             # the tables of docs/quality.md anew, from the results

Parts: ``peers`` teaches as other trainers do and as a run does, with the same pictures in each step; ``defaults``
with as many pictures in a step as each program has unless told otherwise; ``curves`` teaches the default for long;
``switches`` changes one setting at a time, in short lessons, which do not saturate; ``together`` draws with a subject
and a style in one prompt. A lesson is one subject, drawn by seed, in one way with one seed. Its result is a file of its
own, so that a part that was stopped goes on; lessons come in rounds, each with all ways and another seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import quality_tables  # noqa: E402
from bench.peer_loops import PEERS  # noqa: E402
from bench.quality_lessons import Figures, Lesson, Part, teach  # noqa: E402
from bench.quality_recipes import BASE, EARLIER, STAR, SWITCHES, Recipe, with_line  # noqa: E402
from bench.quality_together import teach_together  # noqa: E402

from tincture import randomness  # noqa: E402
from tincture.formats.files import write_text  # noqa: E402
from tincture.kinds.embedding import EMBEDDING  # noqa: E402
from tincture.models.picto import world  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "quality"
DOCS = ROOT / "docs" / "quality.md"
SUBJECTS, ROUNDS = 6, 3

OWN_DEFAULT = Recipe(
    {"learning_rate": EMBEDDING.learning_rate, "template": EMBEDDING.template},
    {option.name: option.default for option in EMBEDDING.options},
)
"""What a run and a new embedding have where nothing is chosen."""
PARTS: Mapping[str, Part] = {
    "peers": Part(
        {
            "ours": BASE,
            "ours, beginning as *": STAR,
            "ours, beginning as *, one plain line": with_line("a [name], [filewords]"),
            "ours, earlier": EARLIER,
            **{name: PEERS[name] for name in PEERS if name != "kohya"},
        },
        (50, 100, 200),
        batch=5,
    ),
    "defaults": Part(
        {
            "ours": OWN_DEFAULT,
            **{f"ours, {n} vectors": OWN_DEFAULT.changed(options={"num_vectors": n}) for n in (1, 6)},
            **PEERS,
        },
        (50, 100, 200),
    ),
    "curves": Part({"ours": BASE}, (25, 50, 100, 200, 400), batch=5),
    "together": Part({"ours": BASE}, (100, 200), batch=5),
    "switches": Part(SWITCHES, (50,), batch=5, every_subject=False),
}


def subjects() -> list[str]:
    """So many random ones, none twice."""
    rng, found = randomness.generator(0, "subjects of quality"), dict[str, None]()
    while len(found) < SUBJECTS:
        found[str(world.random_scene(rng).subject)] = None
    return list(found)


def lessons(part: Part, rounds: int) -> list[Lesson]:
    """All of a part, one round after the other."""
    known = subjects()
    found = []
    for number in range(rounds):
        of_round = known if part.every_subject else [known[number % len(known)]]
        found += [Lesson(way, subject, number) for subject in of_round for way in part.ways]
    return found


# --- results ---------------------------------------------------------------------------------------------------------


def packed(folder: Path, part: str) -> Path:
    """The file of all lessons of a part."""
    return folder / f"{part}.json"


def read_results(folder: Path, part: str) -> dict[str, Figures]:
    """What is known of a part, packed and in files of their own, in the order of its ways."""
    path = packed(folder, part)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    loose = [json.loads(each.read_text(encoding="utf-8")) for each in sorted((folder / part).glob("*.json"))]
    known |= {Lesson(each["way"], each["subject"], each["seed"]).key: each for each in loose}
    ways = list(PARTS[part].ways)
    wanted = [key for key in known if known[key]["way"] in ways]
    return {key: known[key] for key in sorted(wanted, key=lambda key: ways.index(known[key]["way"]))}


def pack(folder: Path, part: str) -> None:
    """Puts all lessons into one file, one a line, and removes their own."""
    known = read_results(folder, part)
    if not known:
        return
    lines = [f"{json.dumps(key)}: {json.dumps(known[key])}" for key in sorted(known)]
    write_text(packed(folder, part), "{\n" + ",\n".join(lines) + "\n}\n")
    for path in (folder / part).glob("*.json"):
        path.unlink()


def measure(name: str, ways: Sequence[str], rounds: int, folder: Path) -> None:
    """Teaches what has no result yet."""
    part, learn = PARTS[name], teach_together if name == "together" else teach
    wanted = [lesson for lesson in lessons(part, rounds) if not ways or lesson.way in ways]
    for number, lesson in enumerate(wanted, start=1):
        if lesson.key in read_results(folder, name):
            continue
        figures = learn(lesson, part)
        safe = "".join(letter if letter.isalnum() else "-" for letter in lesson.key)
        write_text(folder / name / f"{safe}.json", json.dumps(figures) + "\n")
        print(f"{name} {number} of {len(wanted)}: {lesson.key}: {figures['rows']}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    if given.what == "pack":
        for part in PARTS:
            pack(given.results, part)
    elif given.what != "report":
        if wrong := set(given.only) - PARTS[given.what].ways.keys():
            sys.exit(f"There is no {', '.join(sorted(wrong))}; there are {', '.join(PARTS[given.what].ways)}.")
        measure(given.what, given.only, given.rounds, given.results)
    quality_tables.write(given.docs, {part: read_results(given.results, part) for part in PARTS})


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", choices=[*PARTS, "pack", "report"])
    made.add_argument("--only", nargs="*", default=[], metavar="WAY", help="these ways alone")
    made.add_argument("--rounds", type=int, default=ROUNDS, help=f"seeds (default {ROUNDS})")
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--docs", type=Path, default=DOCS)
    return made


if __name__ == "__main__":
    main()
