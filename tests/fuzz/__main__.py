"""Coverage-guided fuzzing: ``python -m fuzz TARGET [SECONDS [FOLDER]]`` in ``tests/``, with atheris installed.

A finding is shown with its input and ends the run; put the input into ``corpus/TARGET/`` once it is mended. Inputs that
reach something new are kept in FOLDER.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Fuzz one target."""
    import atheris

    with atheris.instrument_imports(include=["apyfal"]):
        from fuzz.seeds import SEEDS
        from fuzz.targets import TARGETS

    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "600"
    with contextlib.ExitStack() as stack:
        directory = sys.argv[3] if len(sys.argv) > 3 else stack.enter_context(tempfile.TemporaryDirectory())
        Path(directory).mkdir(exist_ok=True)
        for number, seed in enumerate(SEEDS[name]):
            (Path(directory) / str(number)).write_bytes(seed)
        kept = Path(__file__).parent / "corpus" / name
        arguments = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=10", directory]
        atheris.Setup([sys.argv[0], *arguments, *([str(kept)] if kept.is_dir() else [])], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
