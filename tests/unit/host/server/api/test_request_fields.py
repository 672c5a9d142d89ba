"""What a client may say: one table, complete, and no path in any of it."""

from __future__ import annotations

import random

import pytest

from apyfal.config.configuration import KINDS, Configuration
from apyfal.exceptions import AccessDenied, ParameterError
from apyfal.host.server.api import openapi
from apyfal.host.server.api.info import InfoRoutes
from apyfal.host.server.api.jobs import JobRoutes
from apyfal.host.server.api.request_fields import FIELDS, SessionFields
from apyfal.host.server.api.routes import Route
from apyfal.host.server.api.sessions import SessionRoutes
from apyfal.host.server.api.storage import StorageRoutes
from apyfal.host.server.channel.routes import ChannelRoutes
from apyfal.host.server.policy.tokens import EVERYTHING, Grant

HOST = Configuration.load(
    {
        "accelerator.mine": {"driver": "opencl", "program": "/opt/programs/vadd.cl", "arguments": "src, dst, count"},
        "accelerator.plugged": {"driver": "/opt/acme/libacme.so"},
        "accelerator.placed": {"device": "1", "kernel": "loopback"},
    }
)
PLAIN = SessionFields(HOST)
LISTED = SessionFields(HOST, ("opencl", "acme"), ("s3://lab/vadd.cl",))

#: spellings of things that a host would load, open or look for
PATHS = [
    *(
        "/tmp/x.so",
        "./x.so",
        "../x.so",
        "x/y",
        "~/x.so",
        "/",
        "//",
        ".",
        "..",
        "...",
        "a/../b",
        "a\\b",
        "\\\\server\\x",
    ),
    *(
        "/proc/self/exe",
        "file:///tmp/x.so",
        "host://x.so",
        "s3://bucket/x",
        "https://evil/x",
        "/dev/xdma0",
        "/dev/null",
    ),
    *("x\0y", "x\n", "\r\n", "$HOME/x", "%2ftmp%2fx.so", "\ud800", "\uff0ftmp", "\u2044tmp", "`x`", "$(x)", "|x"),
    *("<x", "\x1b[m", "-x", " x", "\t", "a\u2028b", "\u202ex"),
]
TOO_LONG = ["x" * 257, "x" * 10_000]
NO_TEXT: list[object] = ["", 0.5, True, [], {}, ["x"], {"x": 1}, b"x", float("nan"), float("inf"), 1e30, -1, 10**18]


def declared() -> set[tuple[str, str]]:
    """Every field of every request, from the routes' declarations and the schemas that these name."""
    fields: set[tuple[str, str]] = set()
    for holder in (JobRoutes, SessionRoutes, StorageRoutes, InfoRoutes, ChannelRoutes):
        for function in vars(holder).values():
            route: Route | None = getattr(function, "__route__", None)
            if route is None:
                continue
            fields |= {(parameter.where, parameter.name) for parameter in route.parameters}
            fields |= {("path", name) for name in route.path_parameters}
            for schema in route.body.content.values() if route.body else ():
                if isinstance(schema, str):
                    known = openapi.SCHEMAS[schema]
                    fields |= {(schema, name) for name in known["properties"]}
                    if known["additionalProperties"]:
                        fields.add((schema, "*"))
    return fields


def test_the_table_has_every_field_of_every_request() -> None:
    assert declared() == set(FIELDS)


@pytest.mark.parametrize("field", ["accelerator", "driver", "device", "program", "dtype", "in_dtype", "out_dtype"])
@pytest.mark.parametrize("fields", [PLAIN, LISTED], ids=["plain", "listed"])
def test_no_field_takes_a_path_or_another_type(fields: SessionFields, field: str) -> None:
    for value in [*PATHS, *TOO_LONG, *NO_TEXT]:
        if field == "program" and value in fields.programs:
            continue
        with pytest.raises((AccessDenied, ParameterError)) as caught:
            fields.checked({"accelerator": "loopback", field: value}, EVERYTHING)
        assert "exist" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_the_hosts_is_refused_whatever_its_value() -> None:
    keys = {
        "config",
        "host_ip",
        "memory_limit",
        "model",
        "options",
        "self",
        "",
        "__class__",
        *(KINDS["accelerator"] or ()),
    }
    keys |= {"opencl.build_options", "emulator.memory", "xdma.root", "/opt/x.y"}
    for key in keys - {"driver", "device", "program", "dtype", "in_dtype", "out_dtype"}:
        for value in ("x", None, 1, {"a": "b"}):
            with pytest.raises(ParameterError, match="defined on the host"):
                LISTED.checked({"accelerator": "loopback", key: value}, EVERYTHING)


@pytest.mark.parametrize("accelerator", ["mine", "loopback", None])
@pytest.mark.parametrize(
    "program",
    [
        *("s3://lab/vadd.cl, s3://lab/vadd.cl", "s3://lab/vadd.cl,s3://lab/more.cl", "s3://lab/vadd.cl,", ","),
        *("s3://lab/vadd.cl,/etc/passwd", "/etc/passwd, s3://lab/vadd.cl", "s3://lab/../lab/vadd.cl", "vadd.cl"),
        *(
            "s3://lab/vadd.cl ",
            " s3://lab/vadd.cl",
            "S3://lab/vadd.cl",
            "s3://lab/vadd.cl -I /",
            "/opt/programs/vadd.cl",
        ),
        *(
            "s3://lab/more.cl",
            "s3://lab/a.cl",
            "s3://lab/b.cl",
            "s3://lab/b.cl, s3://lab/a.cl",
            "s3://lab/a.cl,s3://lab/b.cl",
        ),
    ],
)
def test_no_client_puts_a_program_of_several_sources_together(accelerator: str | None, program: str) -> None:
    """What the operator lists is taken as it is listed: a source alone, or several in one order."""
    fields = SessionFields(HOST, (), ("s3://lab/vadd.cl", "s3://lab/a.cl, s3://lab/b.cl"))
    for refusing in (PLAIN, fields):
        with pytest.raises(ParameterError, match="defined on its host") as caught:
            refusing.checked({"accelerator": accelerator, "program": program}, EVERYTHING)
        assert program.strip() not in str(caught.value)
    for listed in fields.programs:
        assert fields.checked({"accelerator": accelerator, "program": listed}, EVERYTHING)["program"] == listed


@pytest.mark.parametrize("key", ["opencl.build", "build", "options", "opencl", "opencl.build.I", "OPENCL.BUILD", "-I"])
@pytest.mark.parametrize("value", ["-I /elsewhere", "-I/elsewhere", "", None, {"build": "-I /elsewhere"}, ["-I", "/x"]])
@pytest.mark.parametrize("program", [None, "s3://lab/vadd.cl"])
def test_no_client_names_directories_of_includes(key: str, value: object, program: str | None) -> None:
    with pytest.raises(ParameterError, match="defined on the host"):
        LISTED.checked({"accelerator": "mine", "program": program, key: value}, EVERYTHING)


@pytest.mark.parametrize(
    ("accelerator", "driver", "plain", "listed"),
    [
        ("loopback", "emulator", True, True),  # the definition's own
        ("mine", "opencl", True, True),
        ("loopback", "opencl", False, True),
        ("loopback", "xrt", False, False),
        ("loopback", "acme", False, True),
        ("plugged", "/opt/acme/libacme.so", False, False),  # the operator's path is not a name for a client
        ("nothing", "opencl", False, True),
    ],
)
def test_drivers(accelerator: str, driver: str, plain: bool, listed: bool) -> None:
    for fields, allowed in ((PLAIN, plain), (LISTED, listed)):
        given = {"accelerator": accelerator, "driver": driver}
        if allowed:
            assert fields.checked(given, EVERYTHING) == given
        else:
            with pytest.raises(AccessDenied) as caught:
                fields.checked(given, EVERYTHING)
            assert "/opt" not in str(caught.value) or driver in str(caught.value)


def test_devices_programs_and_element_types() -> None:
    for device in (0, 7, "0", "xdma0", "Intel(R) FPGA", "0000:3b:00.1"):
        assert PLAIN.checked({"accelerator": "loopback", "device": device}, EVERYTHING)["device"] == device
    assert PLAIN.checked({"accelerator": "placed", "device": 1}, EVERYTHING)["device"] == 1
    with pytest.raises(AccessDenied, match="the host says on which device"):
        PLAIN.checked({"accelerator": "placed", "device": 0}, EVERYTHING)
    with pytest.raises(ParameterError, match="defined on its host"):
        PLAIN.checked({"accelerator": "mine", "program": "s3://lab/vadd.cl"}, EVERYTHING)
    assert LISTED.checked({"accelerator": "mine", "program": "s3://lab/vadd.cl"}, EVERYTHING)["program"]
    types = {"float32": "<f4", "<i2": "<i2", ">u8": ">u8", "|u1": "|u1", "complex64": "<c8", "bool": "|b1"}
    for text, name in types.items():
        for key in ("dtype", "in_dtype", "out_dtype"):
            checked = PLAIN.checked({"accelerator": "scale", key: text}, EVERYTHING)
            assert checked == {"accelerator": "scale", key: name}
    for text in ("object", "O", "i4,i4", "(3,)f4", "V8", "S4", "str", "void", "{}", "f4" * 20):
        with pytest.raises(ParameterError):
            PLAIN.checked({"accelerator": "scale", "dtype": text}, EVERYTHING)
    assert PLAIN.checked({"accelerator": None, "dtype": None}, EVERYTHING) == {}


def test_random_documents_are_refused_or_name_only_what_may_be_named() -> None:
    rng = random.Random(7)
    alphabet = "ab0._-/\\:~%$ \0\n\u00e9\ud800()"
    some = Grant(frozenset({"process"}), accelerators=frozenset({"loopback"}))
    for _ in range(3000):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(12)))
        key = rng.choice(["accelerator", "driver", "device", "program", "dtype", text])
        try:
            checked = PLAIN.checked({"accelerator": "loopback", key: text}, some)
        except (AccessDenied, ParameterError):
            continue
        assert key == "device" or checked[key] in ("loopback", "emulator") or key.endswith("dtype"), (key, text)
        assert not set("/\\\0\n\ud800") & set(str(checked[key]))
