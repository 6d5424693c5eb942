"""Runs one fuzz target: ``python fuzz/run.py TARGET --seconds 60``. ``make fuzz`` runs all of them, one by one.

It starts from ``fuzz/corpus/TARGET`` and ends with an error at the first finding: an exception that is no
``TinctureError``, or an input that takes more than ten seconds or 2 GB. libFuzzer then writes the input to
``fuzz/findings``. To try it again: ``python fuzz/run.py TARGET --input FILE``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=[
        "tincture.data.latent_files",
        "tincture.formats",
        "tincture.adapters.files.inspection",
        "tincture.models.inspection",
        "tincture.models",
        "tincture.adapters.files.warnings",
    ]
):
    from targets import TARGETS, target

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path, help="run this input only")
    options = parser.parse_args()
    run = target(options.target)
    if options.input:
        run(options.input.read_bytes())
        return
    findings = HERE / "findings"
    findings.mkdir(exist_ok=True)
    # What libFuzzer finds worth keeping goes to the first folder; the corpus in the repository stays as it is.
    folders = [tempfile.mkdtemp(prefix="tincture-corpus-"), str(HERE / "corpus" / options.target)]
    limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-verbosity=0", "-print_final_stats=1"]
    words = [f"-max_total_time={options.seconds}", f"-artifact_prefix={findings}/{options.target}-"]
    atheris.Setup([sys.argv[0], *words, *limits, *folders], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
