"""What a configuration file that the user does not trust may contain: one table of every key, with a verdict for each.

A file found in the working directory may come from somebody else: the author of an archive or repository, or another
user of a shared directory. It may define accelerators, and mounts with their own credentials. It may not name anything
that this process loads or runs, a file outside its directory, or an address that would receive the user's own
credentials. ``apyfal config trust`` (see `apyfal.config.trust`) removes these restrictions for one file with its
present content.

A value is checked when it is used, not when the file is read: an unused key causes no error.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from apyfal.config.ini import Value
from apyfal.exceptions import ParameterError
from apyfal.units import parse_boolean

__all__ = ["CREDENTIALS", "TABLE", "Rule", "Verdict", "outside_of_directory", "refusal", "rule_of"]


class Verdict(enum.Enum):
    """Whether an untrusted file may set a key."""

    FREE = "may say it"
    OWN = "may say it; what it describes then gets no credentials but those of the same file"
    INSIDE = "may say it if the path stays inside the file's directory"
    TRUSTED = "may not say it"


class Rule(NamedTuple):
    """The verdict for one key.

    Attributes
    ----------
    verdict
        Applies to the values that `accepts` accepts.
    what
        Describes, for the error message, what any other value names.
    accepts
        Tells which values the verdict applies to; others need a trusted file. ``None``: all values.
    """

    verdict: Verdict
    what: str = ""
    accepts: Callable[[str], bool] | None = None


_REGION = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)
#: Providers that work without credentials found on this machine. Providers of other packages are not assumed to.
_PROVIDERS = frozenset(
    ("file", "http", "https", "s3", "aws", "swift", "openstack", "oss", "alibaba", "gs", "gcs", "az", "azure", "fsspec")
)
#: Filesystems of fsspec that do too, and that do not expose files of this machine.
_PROTOCOLS = frozenset(("sftp", "ssh", "ftp", "webdav", "dav"))


def _is_name(text: str) -> bool:
    return "/" not in text and os.sep not in text and not text.startswith("~")


def _is_provider(text: str) -> bool:
    return text.lower() in _PROVIDERS


def _is_protocol(text: str) -> bool:
    return text in _PROTOCOLS


def _is_true_or_false(text: str) -> bool:
    try:
        parse_boolean(text)
    except ParameterError:
        return False
    return True


def _is_web_address(text: str) -> bool:
    return not text.strip().lower().startswith("unix:")


_FREE = Rule(Verdict.FREE)
_OWN = Rule(Verdict.OWN)
_NATIVE = Rule(Verdict.TRUSTED, "native code")
_CODE = Rule(Verdict.TRUSTED, "a program to run")
_FILE = Rule(Verdict.TRUSTED, "a file")
_REGISTERS = Rule(Verdict.TRUSTED, "registers or memory of a card")
_IDENTITY = Rule(Verdict.TRUSTED, "an identity of the user")
_HOST = Rule(Verdict.TRUSTED, "what a daemon gives out and keeps")
_UNKNOWN = Rule(Verdict.TRUSTED, "something that only its plugin understands")

#: Keys of mounts that identify an account or authenticate it.
CREDENTIALS = frozenset(
    {
        *("client_id", "secret_id", "access_key_id", "secret_access_key", "session_token", "sas", "connection_string"),
        *("user", "username", "password", "auth", "acct", "headers", "account_key", "sse_customer_key"),
    }
)

#: Keys of mounts. ``[host]`` has them too.
_STORAGE: Mapping[str, Rule] = {
    "provider": Rule(Verdict.FREE, "a provider that finds credentials of the user by itself", _is_provider),
    # a location in the store; on the local disk it must be INSIDE, see `apyfal.storage.mounting.authority`
    "root": _FREE,
    # limits of the transfers
    **dict.fromkeys(("bandwidth", "max_concurrency", "memory_limit", "timeout", "connect_timeout", "checksum"), _FREE),
    # part of the address: text that ends the host name would make it another host
    "region": Rule(Verdict.FREE, "an address", _REGION.fullmatch),  # type: ignore[arg-type]  # a match is true
    "addressing": _FREE,
    "anonymous": _FREE,
    # accounts
    **dict.fromkeys(sorted(CREDENTIALS), _OWN),
    **dict.fromkeys(("account", "auth_type"), _OWN),
    **dict.fromkeys(("project", "project_id", "project_domain", "user_domain"), _OWN),
    "profile": _IDENTITY,
    "managed_identity": _IDENTITY,
    # azure-identity opens its own connections and reads environment variables
    **dict.fromkeys(("tenant_id", "authority"), _IDENTITY),
    "credentials_file": _FILE,
    # addresses
    **dict.fromkeys(("endpoint_url", "storage_url", "interface", "proxy"), _OWN),
    # `false` applies to the file's own address; a path names a file to be read
    "verify": Rule(Verdict.OWN, "a file", _is_true_or_false),
    # what the store does with the data: keys of the key service, who pays, where segments are stored
    **dict.fromkeys(("sse", "sse_kms_key_id", "requester_pays", "sign_payload", "segments_container"), _OWN),
    # filesystems of fsspec: some give access to this machine's files, or use its keys and agents
    "protocol": Rule(Verdict.OWN, "a filesystem of fsspec", _is_protocol),
    **dict.fromkeys(("host", "port", "base_url", "tls", "encoding", "banner_timeout", "auth_timeout"), _OWN),
}

#: Kinds of sections, their keys, and the rule for each. ``shape.*``: keys with a name behind it. ``*``: keys that are
#: not in the table (parameters of an accelerator, options of a plugin, all of ``[security]``).
TABLE: Mapping[str, Mapping[str, Rule]] = {
    "accelerator": {
        # a driver is a shared library; a driver's name refers to one of this package or of an installed distribution
        "driver": Rule(Verdict.FREE, "native code", _is_name),
        "device": Rule(Verdict.FREE, "a file", _is_name),
        # OpenCL C is compiled and run, on a CPU platform in this very process with access to all its memory. A
        # bitstream can access the bus. Both are code, from wherever they are loaded.
        "program": _CODE,
        **dict.fromkeys(("kernel", "arguments", "inputs", "outputs", "parameters", "state"), _FREE),
        **dict.fromkeys(("dtype", "in_dtype", "out_dtype", "output", "chunking", "clear_outputs"), _FREE),
        **dict.fromkeys(("shape", "shape.*", "struct.*", "initial", "inout", "halo", "stages"), _FREE),
        # with more work-items than its source was written for, a kernel reaches memory that is not its own
        **dict.fromkeys(
            ("global", "local", "global_offset", "round_up"), Rule(Verdict.TRUSTED, "what memory a kernel reaches")
        ),
        **{
            f"emulator.{option}": _FREE
            for option in (
                *("devices", "memory", "idle_memory", "to_device_bandwidth", "from_device_bandwidth"),
                *("compute_bandwidth", "latency", "run_latency", "import_align", "read_only_import", "fail_alloc"),
                *("fail_to_device", "fail_from_device", "fail_run", "hang_run", "ignore_cancel", "lose_device"),
            )
        },
        **dict.fromkeys(("opencl.platform", "opencl.compute_units", "opencl.cache"), _FREE),
        "opencl.build": Rule(Verdict.TRUSTED, "options of a compiler"),
        "xrt.root": _NATIVE,
        "xrt.log": _FREE,
        **dict.fromkeys(("xdma.root", "xdma.user"), _FILE),
        **dict.fromkeys(("xdma.registers", "xdma.control", "xdma.base", "xdma.memory", "xdma.events"), _REGISTERS),
        **dict.fromkeys(("xdma.channels", "xdma.align", "xdma.protocol", "xdma.access"), _FREE),
        "*": _UNKNOWN,
    },
    "host": {
        **{key: rule for key, rule in _STORAGE.items() if key not in ("provider", "root")},
        "host_type": Rule(Verdict.FREE, "a provider that finds credentials of the user by itself"),
        "host_ip": Rule(Verdict.OWN, "a socket", _is_web_address),
        "token": _OWN,
        "token_file": Rule(Verdict.TRUSTED, "a file whose content would be sent"),
        "*": _UNKNOWN,
    },
    "storage": {**_STORAGE, "*": _UNKNOWN},
    "security": {"*": _HOST},  # every key, including future ones
    "process": {**dict.fromkeys(("copy", "memory_limit", "timeout"), _FREE), "*": _FREE},
    "configuration": {"src": Rule(Verdict.INSIDE, "a file"), "*": _FREE},
}


def rule_of(section: str, key: str) -> Rule:
    """Return the rule for `key` in the section named `section` (``"storage.lab"``)."""
    rules = TABLE[section.partition(".")[0]]
    return rules.get(key) or rules.get(f"{key.partition('.')[0]}.*") or rules["*"]


def refusal(value: Value) -> str | None:
    """Return what an untrusted `value` names that only a trusted file may name; ``None`` if it is permitted."""
    rule = rule_of(value.section, value.key)
    kind, _, name = value.section.partition(".")
    if kind == "storage" and _is_provider(name):
        # a name that has a meaning without any configuration
        if value.key == "root":
            return f"what {name.lower()}:// addresses mean"
        if name.lower() in ("http", "https") and rule.verdict is not Verdict.FREE:
            return f"how {name.lower()}:// addresses are reached"
    if rule.verdict is Verdict.TRUSTED or (rule.accepts is not None and not rule.accepts(value.text)):
        return rule.what
    if rule.verdict is Verdict.INSIDE and outside_of_directory(value):
        return f"{rule.what} outside of its directory"
    return None


def outside_of_directory(value: Value) -> bool:
    """Return whether a path, with links resolved, is outside the directory of the file that contains it.

    Any text with a colon counts as outside, because it could be a URL.
    """
    if value.file is None:
        return False
    text = value.text
    if ":" in text or text.startswith("~") or "\0" in text:
        return True
    directory = os.path.realpath(value.file.parent)
    try:
        return os.path.commonpath((directory, os.path.realpath(text))) != directory
    except (OSError, ValueError):
        return True
