"""What a configuration may say that the user has not vouched for: one table of every key, with a verdict for each.

A configuration that is found in the working directory was perhaps written by somebody else: whoever made the archive,
the repository or the shared directory. It may name accelerators, and mounts with credentials of its own. It may not
name what this process loads or runs, a file outside of its directory, or an address that would then get the user's own
credentials. ``apyfal config trust`` (see `apyfal.config.trust`) lifts all of this for one file and its content.

A value is judged when it is used, not when the file is read: a key that nobody asks for stops nobody.
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
    """What an untrusted file may do with a key."""

    FREE = "may say it"
    OWN = "may say it; what it describes then gets no credentials but those of the same file"
    INSIDE = "may say it if the path stays inside the file's directory"
    TRUSTED = "may not say it"


class Rule(NamedTuple):
    """The verdict for one key.

    Attributes
    ----------
    verdict
        For values that `accepts` accepts.
    what
        What another value, or any value of a key that only a trusted file may say, names: the reason for refusals.
    accepts
        Tells which values the verdict is about; any other is for trusted files. ``None``: it is about all of them.
    """

    verdict: Verdict
    what: str = ""
    accepts: Callable[[str], bool] | None = None


_REGION = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)
#: Providers that can do without what they would find on this machine. Third parties' stores may not.
_PROVIDERS = frozenset(
    ("file", "http", "https", "s3", "aws", "swift", "openstack", "oss", "alibaba", "gs", "gcs", "az", "azure", "fsspec")
)
#: Those of fsspec's filesystems that can, and that are no files of this machine.
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

#: Keys of mounts that are an account or prove one.
CREDENTIALS = frozenset(
    {
        *("client_id", "secret_id", "access_key_id", "secret_access_key", "session_token", "sas", "connection_string"),
        *("user", "username", "password", "auth", "acct", "headers", "account_key", "sse_customer_key"),
    }
)

#: Keys of mounts; ``[host]`` has them too.
_STORAGE: Mapping[str, Rule] = {
    "provider": Rule(Verdict.FREE, "a provider that finds credentials of the user by itself", _is_provider),
    # a place in the store; on the local disk it must be INSIDE, see `apyfal.storage.mounting.authority`
    "root": _FREE,
    # limits of the transfers
    **dict.fromkeys(("bandwidth", "max_concurrency", "memory_limit", "timeout", "connect_timeout", "checksum"), _FREE),
    # a part of the address: text that could end the host's name makes it another host
    "region": Rule(Verdict.FREE, "an address", _REGION.fullmatch),  # type: ignore[arg-type]  # a match is true
    "addressing": _FREE,
    "anonymous": _FREE,
    # accounts
    **dict.fromkeys(sorted(CREDENTIALS), _OWN),
    **dict.fromkeys(("account", "auth_type"), _OWN),
    **dict.fromkeys(("project", "project_id", "project_domain", "user_domain"), _OWN),
    "profile": _IDENTITY,
    "managed_identity": _IDENTITY,
    # azure-identity opens connections of its own, and reads variables
    **dict.fromkeys(("tenant_id", "authority"), _IDENTITY),
    "credentials_file": _FILE,
    # addresses
    **dict.fromkeys(("endpoint_url", "storage_url", "interface", "proxy"), _OWN),
    # `false` belongs to the file's own address; a path is a file to be read
    "verify": Rule(Verdict.OWN, "a file", _is_true_or_false),
    # what the store does with the data: keys of the key service, who pays, where segments go
    **dict.fromkeys(("sse", "sse_kms_key_id", "requester_pays", "sign_payload", "segments_container"), _OWN),
    # fsspec's filesystems: some are this machine's files, or use its keys and agents
    "protocol": Rule(Verdict.OWN, "a filesystem of fsspec", _is_protocol),
    **dict.fromkeys(("host", "port", "base_url", "tls", "encoding", "banner_timeout", "auth_timeout"), _OWN),
}

#: Kinds of sections, their keys, and the rule of each. ``*``: keys that are not in the table (parameters of an
#: accelerator, options of a plugin, all of ``[security]``).
TABLE: Mapping[str, Mapping[str, Rule]] = {
    "accelerator": {
        # a driver is a shared library; its name is one that the package or an installed distribution brings
        "driver": Rule(Verdict.FREE, "native code", _is_name),
        "device": Rule(Verdict.FREE, "a file", _is_name),
        # OpenCL C is compiled and run: on a CPU's platform in this very process, with all of its memory in reach. A
        # bitstream works on the bus. Both are code, wherever they come from.
        "program": _CODE,
        **dict.fromkeys(("kernel", "arguments", "inputs", "outputs", "parameters", "state"), _FREE),
        **dict.fromkeys(("dtype", "in_dtype", "out_dtype", "output", "chunking", "clear_outputs"), _FREE),
        **{
            f"emulator.{option}": _FREE
            for option in (
                *("devices", "memory", "idle_memory", "to_device_bandwidth", "from_device_bandwidth"),
                *("compute_bandwidth", "latency", "run_latency", "import_align", "read_only_import", "fail_alloc"),
                *("fail_to_device", "fail_from_device", "fail_run", "hang_run", "ignore_cancel", "lose_device"),
            )
        },
        **dict.fromkeys(("opencl.platform", "opencl.compute_units"), _FREE),
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
    "security": {"*": _HOST},  # every key, those to come included
    "process": {**dict.fromkeys(("copy", "memory_limit", "timeout"), _FREE), "*": _FREE},
    "configuration": {"src": Rule(Verdict.INSIDE, "a file"), "*": _FREE},
}


def rule_of(section: str, key: str) -> Rule:
    """Return the rule for `key` in the section named `section` (``"storage.lab"``)."""
    rules = TABLE[section.partition(".")[0]]
    return rules.get(key) or rules["*"]


def refusal(value: Value) -> str | None:
    """Tell what an untrusted `value` names that it may not; ``None`` if it may."""
    rule = rule_of(value.section, value.key)
    kind, _, name = value.section.partition(".")
    if kind == "storage" and _is_provider(name):
        # a name that means something without any configuration
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
    """Whether a path leads, links followed, out of the directory of the file that names it.

    Anything with a colon counts as outside: it could be a URL.
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
