from __future__ import annotations

import pickle
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apyfal import accelerators
from apyfal.definition import registry
from apyfal.definition.grammar import Argument
from apyfal.exceptions import ConfigurationError, ParameterError

REFERENCE = ["gunzip", "gzip", "histogram", "loopback", "scale", "sha3", "trng"]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_definitions", {})


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("APYFAL_CONFIG_FILE", raising=False)


def configured(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.conf"
    path.write_text(text)
    return path


# -- reference accelerators -------------------------------------------------------------------------------------------
def test_reference_accelerators_are_there() -> None:
    assert accelerators.names() == REFERENCE
    assert [definition.name for definition in accelerators.available()] == REFERENCE
    for name in REFERENCE:
        definition = accelerators.get(name)
        assert definition is accelerators.get(name)
        assert definition.kernel == name
        assert definition.driver == "emulator"
        assert repr(definition).startswith(name + "(")
        assert "\n" not in repr(definition)
        assert pickle.loads(pickle.dumps(definition)).arguments == definition.arguments


def test_the_package_can_be_called() -> None:
    catalogue: Any = accelerators
    assert [definition.name for definition in catalogue()] == REFERENCE
    mine = {"accelerator.mine": {"kernel": "sha3"}}
    assert "mine(type=sha3-256): the SHA-3 digest of the input's bytes" in str(catalogue(mine))


def test_unknown_accelerator() -> None:
    for find in (accelerators.get, accelerators.resolve):
        with pytest.raises(ConfigurationError) as caught:
            find("sha33")
        assert str(caught.value) == "unknown accelerator 'sha33'; did you mean 'sha3'?"
    with pytest.raises(ConfigurationError, match="no accelerator is named; expected one of gunzip, gzip"):
        accelerators.resolve()


def test_sha3() -> None:
    call = accelerators.get("sha3").bind(type="sha3-512")
    assert call.outputs[0].fixed_nbytes == 64
    assert call.state_bytes >= 200 + 8
    assert call.arguments[-1].value == 512
    assert call.result_of(np.frombuffer(b"\x00\xff", np.uint8)) == {"digest": "00ff"}
    assert not accelerators.get("sha3").gives_data
    with pytest.raises(ParameterError, match="unknown value 'sha3-255'; did you mean 'sha3-256'"):
        accelerators.get("sha3").bind(type="sha3-255")


def test_histogram() -> None:
    call = accelerators.get("histogram").bind(np.dtype("int16"))
    values = {argument.name: argument.value for argument in call.arguments if argument.value is not None}
    assert values == {"bins": 256, "dtype": 3, "lo": -32768.0, "hi": 32768.0}
    assert call.outputs[0].fixed_nbytes == call.state_bytes == 2048
    assert call.outputs[0].dtype == np.uint64
    call = accelerators.get("histogram").bind(np.dtype("float32"), bins=10, range=(0, 1))
    assert [argument.value for argument in call.arguments[-2:]] == [0.0, 1.0]
    assert call.outputs[0].fixed_nbytes == 80
    assert accelerators.get("histogram").bind(range="-1:1").parameters["range"] == (-1.0, 1.0)
    with pytest.raises(ParameterError, match=r"float32 elements need range=\(low, high\)"):
        accelerators.get("histogram").bind(np.dtype("float32"))
    wrong: Any
    for wrong in (5, "x", (1, 0), (1, 1), (0, float("nan")), (0, float("inf")), (1, 2, 3)):
        with pytest.raises(ParameterError, match="parameter 'range': expected two finite numbers"):
            accelerators.get("histogram").bind(range=wrong)
    with pytest.raises(ParameterError, match="parameter 'bins': expected 1 to"):
        accelerators.get("histogram").bind(bins=0)


def test_trng() -> None:
    call = accelerators.get("trng").bind(nbytes="1KiB")
    assert call.outputs[0].fixed_nbytes == call.outputs[0].nbytes(0) == 1024
    assert not accelerators.get("trng").takes_input
    with pytest.raises(ParameterError, match="accelerator 'trng' needs 'nbytes'"):
        accelerators.get("trng").bind()
    with pytest.raises(ParameterError, match="parameter 'nbytes': expected a number of bytes"):
        accelerators.get("trng").bind(nbytes=-1)


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 1 << 20])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_gzip_capacity_is_enough(nbytes: int, level: int) -> None:
    import gzip

    incompressible = np.random.default_rng(1).bytes(nbytes)
    assert len(gzip.compress(incompressible, level)) <= accelerators.get("gzip").bind().outputs[0].buffer_nbytes(nbytes)


def test_gunzip_can_be_continued() -> None:
    gunzip = accelerators.get("gunzip")
    assert gunzip.continues
    assert gunzip.bind().outputs[0].buffer_nbytes(0) >= 4096
    assert not accelerators.get("gzip").continues


def test_scale_parameters_have_the_element_type() -> None:
    call = accelerators.get("scale").bind(np.dtype("float64"), a="0.5", b=2)
    assert [tuple(argument) for argument in call.arguments[3:5]] == [
        ("a", np.dtype("float64"), 0.5),
        ("b", np.dtype("float64"), 2.0),
    ]
    with pytest.raises(ParameterError, match="expected a whole number"):
        accelerators.get("scale").bind(np.dtype("int32"), a=0.5)


# -- resolve ----------------------------------------------------------------------------------------------------------
VADD = """\
[accelerator]
driver = emulator
device = 3

[accelerator.vadd]
driver     = opencl
program    = s3://lab/vadd.cl
arguments  = src, dst, count:uint32,
    gain, mask:uint8
parameters = gain: float32 = 1.5
dtype      = int32
chunking   = elements
opencl.options = -cl-fast-relaxed-math
emulator.memory = 4GiB

[accelerator.mine]
kernel = sha3
parameters = type = sha3-512
emulator.memory = 1GiB
"""


def test_a_definition_from_the_configuration(tmp_path: Path) -> None:
    vadd = accelerators.resolve("vadd", configured(tmp_path, VADD))
    assert (vadd.driver, vadd.device, vadd.program, vadd.kernel) == ("opencl", "3", "s3://lab/vadd.cl", "vadd")
    assert vadd.arguments[2] == Argument("count", np.dtype("uint32"))
    assert vadd.validate_parameters(mask=1) == {"gain": 1.5, "mask": 1}
    assert vadd.in_dtype == np.int32
    assert vadd.options == {"options": "-cl-fast-relaxed-math"}
    assert vadd.bind(mask=1).outputs[0].dtype == np.int32


def test_a_reference_accelerator_under_another_name(tmp_path: Path) -> None:
    mine = accelerators.resolve("mine", configured(tmp_path, VADD))
    assert (mine.name, mine.kernel, mine.options) == ("mine", "sha3", {"memory": "1GiB"})
    assert mine.bind().outputs[0].fixed_nbytes == 64
    assert accelerators.get("sha3").bind().outputs[0].fixed_nbytes == 32


def test_arguments_win_over_the_configuration(tmp_path: Path) -> None:
    path = configured(tmp_path, VADD)
    vadd = accelerators.resolve("vadd", path, device="1", dtype=np.float32, opencl={"options": "-O0"})
    assert (vadd.device, vadd.in_dtype, vadd.options) == ("1", np.float32, {"options": "-O0"})
    memory = accelerators.resolve("loopback", {}, **{"emulator.memory": "64MiB"})
    assert memory.options == {"memory": "64MiB"}


def test_the_general_section_says_where_not_what(tmp_path: Path) -> None:
    path = configured(tmp_path, "[accelerator]\nkernel = loopback\ndevice = 2\nemulator.memory = 1GiB\n")
    sha3 = accelerators.resolve("sha3", path)
    assert (sha3.kernel, sha3.device, sha3.options) == ("sha3", "2", {"memory": "1GiB"})
    assert accelerators.resolve(None, path).name == "loopback"


def test_a_registered_program_interface_on_another_driver() -> None:
    scale = accelerators.resolve("scale", {}, driver="opencl", program="/opt/scale.aocx")
    assert scale.arguments == accelerators.get("scale").arguments
    with pytest.raises(ConfigurationError, match="accelerator 'gzip' has no program for driver 'xrt'; expected"):
        accelerators.resolve("gzip", {}, driver="xrt")


def test_element_types() -> None:
    assert accelerators.resolve("histogram", {}, dtype="float32").out_dtype == np.uint64
    assert accelerators.resolve("trng", {}, dtype="float32").bind(nbytes=8).outputs[0].dtype == np.float32
    with pytest.raises(ConfigurationError, match="'dtype': unknown element type 'int31'; did you mean 'int32'"):
        accelerators.resolve("scale", {}, dtype="int31")
    with pytest.raises(ConfigurationError, match="argument 'dtype': 'object' cannot be an element type"):
        accelerators.resolve("loopback", {}, dtype="object")
    with pytest.raises(ConfigurationError, match="accelerator 'scale' cannot take elements of type complex64"):
        accelerators.resolve("scale", {}, dtype="complex64")


@pytest.mark.parametrize("driver", ["emulator", "opencl", "rtl"])
@pytest.mark.parametrize(
    ("name", "types", "writes"),
    [
        ("scale", {"in_dtype": "uint8", "out_dtype": "float64"}, "the element type that it reads, not float64"),
        ("scale", {"in_dtype": "int32", "out_dtype": "uint8"}, "the element type that it reads, not uint8"),
        ("scale", {"out_dtype": "float64"}, "the element type that it reads, not float64"),
        ("scale", {"dtype": "int32", "out_dtype": ">i4"}, "the element type that it reads, not >i4"),
        ("histogram", {"out_dtype": "int8"}, "uint64 elements, not int8"),
        ("histogram", {"out_dtype": "float64"}, "uint64 elements, not float64"),
    ],
)
def test_a_kernel_writes_what_it_writes(name: str, types: dict[str, str], writes: str, driver: str) -> None:
    """Not what is stated of it: the output would be other numbers, and what the memory had before."""
    with pytest.raises(ConfigurationError, match=f"'out_dtype': accelerator '{name}' writes {writes}"):
        accelerators.resolve(name, {}, driver=driver, **types)
    own = accelerators.resolve(name, {}, driver="opencl", program="/opt/own.cl", **types)
    assert own.out_dtype == np.dtype(types["out_dtype"])


def test_a_stated_type_that_the_kernel_writes() -> None:
    assert accelerators.resolve("scale", {}, dtype="int32", out_dtype="int32").out_dtype == np.int32
    assert accelerators.resolve("histogram", {}, out_dtype="uint64").out_dtype == np.uint64
    for name in ("gzip", "gunzip", "trng"):  # bytes, of which each element type has some
        assert accelerators.resolve(name, {}, out_dtype="float32").out_dtype == np.float32
    with pytest.raises(ConfigurationError, match=r"argument 'dtype': .* is not an element type"):
        accelerators.resolve("scale", {}, dtype=object())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("driver = opencl\n", "my.conf, [accelerator.x]: key 'arguments' is missing"),
        ("device = 0\n", "my.conf, [accelerator.x]: key 'kernel' is missing"),
        ("kernel = lopback\n", "line 2, [accelerator.x] kernel: unknown kernel 'lopback'; did you mean 'loopback'?"),
        ("kernel =\n", "line 2, [accelerator.x] kernel: expected a value"),
        ("kernel = loopback\narguments = src\n", "line 3, [accelerator.x] arguments: the emulator's kernels have"),
        ("driver = opencl\narguments = src, dst\n", "accelerator 'x' has no program for driver 'opencl'"),
        (
            "driver = xrt\nprogram = x\narguments = src,\n    dst, n:u32\n",
            "line 5, [accelerator.x] arguments: unknown scalar type",
        ),
        (
            "driver = xrt\nprogram = x\narguments = src, dst, n\n",
            "my.conf, [accelerator.x]: accelerator 'x': argument 'n' is neither",
        ),
        ("kernel = loopback\noutput = all\n", "line 3, [accelerator.x] output: unknown output 'all'"),
        ("kernel = loopback\nchunking = some\n", "line 3, [accelerator.x] chunking: unknown chunking 'some'"),
        (
            "kernel = scale\nparameters = a = x\n",
            "line 3, [accelerator.x] parameters: parameter 'a': expected a number",
        ),
        (
            "kernel = gzip\nparameters = level = 12\n",
            "line 3, [accelerator.x] parameters: parameter 'level': expected 0 to 9",
        ),
        (
            "kernel = gzip\nparameters = level: int8\n",
            "line 3, [accelerator.x] parameters: parameter 'level' is already there; expected 'level = ",
        ),
        (
            "kernel = gzip\nemulater.memory = 1\n",
            "line 3, [accelerator.x] emulater.memory: unknown driver 'emulater'; did you mean 'emulator'",
        ),
    ],
)
def test_errors_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        accelerators.resolve("x", configured(tmp_path, "[accelerator.x]\n" + text)).bind(np.dtype("int8"))
    assert message in str(caught.value)


def test_unknown_keyword() -> None:
    with pytest.raises(ConfigurationError, match="argument 'kernal': unknown key 'kernal'; did you mean 'kernel'"):
        accelerators.resolve("sha3", {}, kernal="x")


# -- software models --------------------------------------------------------------------------------------------------
def test_a_model_is_an_accelerator() -> None:
    @accelerators.model("invert", dtype="uint8", chunking="elements", mask="uint8")
    def invert(src: np.ndarray, dst: np.ndarray, *, mask: int = 255, rounds: int = 1, gain: float = 0.5) -> None:
        """Flip bits.

        More.
        """

    definition = accelerators.resolve("invert", {})
    assert definition.model is invert
    assert "invert" in accelerators.names()
    assert repr(definition) == "invert(mask=255, rounds=1, gain=0.5): Flip bits."
    assert [(a.name, a.dtype) for a in definition.bind().arguments] == [
        ("src", None),
        ("dst", None),
        ("mask", np.uint8),
        ("rounds", np.int64),
        ("gain", np.float64),
    ]
    other = accelerators.resolve("other", {"accelerator.other": {"kernel": "invert", "parameters": "mask = 15"}})
    assert other.model is invert
    assert other.validate_parameters()["mask"] == 15


def test_models_that_cannot_be() -> None:
    def declare(name: str, function: Any, **given: Any) -> None:
        accelerators.model(name, **given)(function)

    with pytest.raises(ConfigurationError, match="accelerator 'sha3' is already there"):
        declare("sha3", lambda src, dst: None)
    declare("one", lambda src, dst: None)
    with pytest.raises(ConfigurationError, match="accelerator 'one' is already there"):
        declare("one", lambda src, dst: None)
    declare("one", lambda src, dst: None, replace=True)
    with pytest.raises(ConfigurationError, match=r"a model cannot take '\*args'"):
        declare("two", lambda *args: None)
    with pytest.raises(ConfigurationError, match="parameter 'mode': expected a number as its default, not 'x'"):
        declare("two", lambda src, dst, mode="x": None)
    with pytest.raises(ConfigurationError, match="parameter 'mode': without a default it needs a type"):
        declare("two", lambda src, dst, mode: None)
    with pytest.raises(ConfigurationError, match="the function has no parameter 'mode'"):
        declare("two", lambda src, dst: None, mode="uint8")
    with pytest.raises(ConfigurationError, match="accelerator 'two': unknown output 'twice'"):
        declare("two", lambda src, dst: None, output="twice")
    with pytest.raises(ConfigurationError, match="accelerator 'two': unknown element type 'int31'"):
        declare("two", lambda src, dst: None, dtype="int31")

    def generator(src: Any, dst: Any) -> Any:
        yield dst

    async def coroutine(src: Any, dst: Any) -> None: ...

    for function in (generator, coroutine):
        with pytest.raises(ConfigurationError, match="accelerator 'two': a model is a plain function"):
            declare("two", function)
    assert accelerators.names() == sorted([*REFERENCE, "one"])


# -- plugins ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "acme_plugin.py").write_text(
        "from apyfal.definition.definition import Definition\n"
        "from apyfal.definition.grammar import Argument\n"
        "PLUGIN = Definition('plugged', 'plugged', (Argument('src'), Argument('dst')), driver='acme')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def entries(group: str) -> list[EntryPoint]:
        named = {"plugged": "acme_plugin:PLUGIN", "broken": "no_such_module:X", "odd": "acme_plugin:Argument"}
        return [EntryPoint(name, value, group) for name, value in named.items()]

    monkeypatch.setattr("importlib.metadata.entry_points", entries)


@pytest.mark.usefixtures("plugins")
def test_plugins() -> None:
    assert "plugged" in accelerators.names()
    definition = accelerators.resolve("plugged", {})
    assert definition.driver == "acme"
    assert accelerators.resolve("plugged", {}, **{"acme.x": "1"}).options == {"x": "1"}
    with pytest.raises(ConfigurationError, match="plugin 'no_such_module:X' cannot be loaded: ModuleNotFoundError"):
        accelerators.get("broken")
    with pytest.raises(ConfigurationError, match="plugin 'acme_plugin:Argument' is a type, not a Definition"):
        accelerators.get("odd")
