"""The C core, wrapped: buffers, host files, devices, runs.

One shared object holds csrc/ and every module of this package, so that pools and devices exist once in a process; each
module is loaded from it by its own name.
"""

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

# In order of their cimports.
_MODULES = ("errors", "buffer", "mapped_file", "device", "run", "model", "tls", "transport")


def _native() -> str:
    here = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        path = here / f"_native{suffix}"
        if path.exists():
            return str(path)
    raise ImportError(f"apyfal was not built for this Python: no _native{EXTENSION_SUFFIXES[0]} in {here}")


def _load() -> None:
    path = _native()
    for name in _MODULES:
        full = f"{__name__}.{name}"
        spec = spec_from_file_location(full, path, loader=ExtensionFileLoader(full, path))
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {full} from {path}")
        module = module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
        globals()[name] = module


_load()
