"""Build the one extension of apyfal; everything else is in pyproject.toml.

All of csrc/ and all of apyfal/_core/*.pyx become one shared object, so that pools, devices and counters exist once in
a process. Each .pyx is still a module of its own: apyfal/_core/__init__.py loads them from that object by name.

Switches, from the environment:

    APYFAL_DEBUG=1       -O0 -g, assertions
    APYFAL_SANITIZE=...  address,undefined or thread (run with the matching runtime preloaded)
    APYFAL_COVERAGE=1    line coverage of the C sources (gcov)
    APYFAL_WERROR=1      warnings are errors (set by .ci/run)
"""

import ctypes
import os
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
os.chdir(ROOT)


#: Headers are named from csrc/, those that users see without their folder.
INCLUDES = ["csrc", "csrc/include"]


def switch(name):
    return os.environ.get(name, "") not in ("", "0")


# Floating-point results are those of numpy, so no fused multiply-adds where the source has a product and a sum.
compile_args = ["-std=gnu11", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
link_args = []
macros = [("_GNU_SOURCE", "1")]
#: One wheel for CPython 3.12 and all that follow: the limited API (PEP 384) has all that is used since 3.12. Builds
#: without the interpreter's lock have none of it (before PEP 803), and get a wheel of their own.
LIMITED = sys.version_info >= (3, 12) and not sysconfig.get_config_var("Py_GIL_DISABLED")
if LIMITED:
    macros.append(("Py_LIMITED_API", "0x030C0000"))
if switch("APYFAL_WERROR"):
    compile_args.append("-Werror")
if switch("APYFAL_DEBUG"):
    compile_args += ["-O0", "-g3", "-UNDEBUG"]
    macros.append(("APF_DEBUG", "1"))
else:
    compile_args += ["-O3", "-g1"]
if sanitizers := os.environ.get("APYFAL_SANITIZE"):
    flags = [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer"]
    compile_args += [*flags, "-g"]
    link_args += flags
    if "thread" in sanitizers:
        compile_args.append("-Wno-tsan")  # it does not know fences; the one there is orders a device's registers
if switch("APYFAL_COVERAGE"):
    compile_args += ["--coverage", "-O0"]
    link_args.append("--coverage")

# What Cython generates is not ours to warn about; -Wextra finds nothing but its unused parameters.
compile_args += ["-Wno-unused-parameter", "-Wno-missing-field-initializers"]


class Checked(build_ext):
    """Compiles the sources of the extension side by side, as setuptools does only with several extensions.

    Refuses one without its modules, or without a part of csrc/: importing apyfal would be what fails.
    """

    def build_extensions(self):
        compile_some = self.compiler.compile

        def compile_all(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_some([source], **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()

    def build_extension(self, ext):
        super().build_extension(ext)
        if sanitizers:
            return  # it cannot be loaded here without the sanitizer's runtime
        built = os.path.abspath(self.get_ext_fullpath(ext.name))
        wanted = sorted(path.stem for path in Path("apyfal/_core").glob("*.pyi"))
        try:
            library = ctypes.CDLL(built, os.RTLD_NOW)
        except OSError as error:
            raise SystemExit(f"setup.py: {built} cannot be loaded: {error}; are all of csrc/'s sources here?") from None
        missing = [name for name in wanted if not hasattr(library, f"PyInit_{name}")]
        if missing or not wanted:
            raise SystemExit(
                f"setup.py: {built} lacks the modules {', '.join(missing) or 'of apyfal._core'}; "
                "expected apyfal/_core/NAME.pyx of each apyfal/_core/NAME.pyi"
            )


modules = cythonize(
    [
        Extension(f"apyfal._core.{source.stem}", [str(source)], include_dirs=INCLUDES)
        for source in sorted(Path("apyfal/_core").glob("*.pyx"))
    ],
    compiler_directives={
        "language_level": 3,
        "embedsignature": True,
        "binding": True,
        "wraparound": False,
        "initializedcheck": False,
        "freethreading_compatible": True,  # see docs/architecture.md, "Threads"
    },
)

setup(
    cmdclass={"build_ext": Checked},
    ext_modules=[
        Extension(
            "apyfal._core._native",
            sources=[source for module in modules for source in module.sources]
            + sorted(map(str, Path("csrc").rglob("*.c"))),
            depends=sorted(map(str, Path("csrc").rglob("*.h"))),
            include_dirs=INCLUDES,
            define_macros=macros,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            libraries=["z", "dl", "pthread"],
            py_limited_api=LIMITED,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp312"}} if LIMITED else {},
)
