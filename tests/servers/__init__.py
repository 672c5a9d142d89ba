"""Servers that tests start, a folder for each kind; scripts outside of the suite import one by its own name, too."""

from pathlib import Path

__path__ += [str(folder) for folder in sorted(Path(__file__).parent.iterdir()) if folder.is_dir()]
