"""Import paths of version 0.1 that lead to the modules' new places, for one version.

Importing by an old path gives the module itself, with a `DeprecationWarning`. `sys.meta_path` asks here only after
every other finder has failed, so that other imports are no slower.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["MOVED", "install"]

# Old package, new package, names of modules there; ``old=new`` if the name changed too.
_TABLE = (
    ("", "cli", "progress trace"),
    ("", "config", "configuration ini"),
    ("", "definition", "call=bound_call signature=grammar"),
    ("", "definition.types", "scalars=dtypes"),
    ("", "device", "at_exit card=context drivers handoff=zero_copy listing"),
    ("", "jobs", "background=submitter mapping=ordered_map workers=queue"),
    ("", "jobs.failover", "attempts"),
    ("accelerators", "definition", "models registry"),
    ("commands", "cli", "common selection"),
    ("commands", "cli.commands", "accelerators host process serve token"),
    ("commands", "cli.commands.storage", "copy ls mounts"),
    ("commands", "cli.commands.machine", "bench devices"),
    (
        "host",
        "host.client",
        "client_retry=http http_client=http remote_data=payload remote_store=store shared_pool submission",
    ),
    ("host", "host.protocol", "address audit shared_memory tls wire=messages"),
    ("host", "host.server", "check daemon metrics service=process"),
    (
        "host",
        "host.server.api",
        (
            "api_info=info api_jobs=jobs api_sessions=sessions api_storage=storage auth=middleware openapi routes "
            "services=context"
        ),
    ),
    (
        "host",
        "host.server.jobs",
        "engine=manager execution jobs=job outputs scheduling=fair_queue sessions",
    ),
    ("host", "host.server.records", "commits=group_commit journal"),
    (
        "host",
        "host.server.policy",
        (
            "access=allowed_directories host_files hoststore=host_store kernel=linux_sandbox outbound=egress "
            "references=url_policy resolve=path_resolver tokens"
        ),
    ),
    ("host", "host.server.transport", "bodies connections direct=zero_copy_body incoming=request threads"),
    ("pipeline", "batching", "group=batch layout=packing member=item small=policy spread=fan_out"),
    ("pipeline", "device", "channel=control invocation=launcher slots=regions waiting"),
    ("pipeline", "pipeline", "ends=binding job=stages plan=chunking process=run turns=stages"),
    ("pipeline", "pipeline.reports", "limit=report"),
    ("storage", "storage.api", "arrays copies=copying files=opening globbing names=namespace"),
    ("storage", "storage.fs", "fsspec_adapter=filesystem"),
    ("storage.api", "storage.fs", "fsspec_adapter=filesystem upath_adapter=upath"),
    ("storage", "storage.endpoints", "sinks sources"),
    ("storage", "storage.fileobj", "raw=raw_files spool=spooled whole=atomic_files"),
    ("storage", "storage.flow", "cancel crew=worker_pool options pace=concurrency retry"),
    (
        "storage",
        "storage.http",
        "answers=status connections=pool origins=origin proxies=proxy response wire=connection",
    ),
    ("storage", "storage.local", "disk=direct_io file_objects=duck local_copy=copy"),
    ("storage", "storage.mounting", "automount=from_config mounted=mount parameters registry=table"),
    (
        "storage",
        "storage.transfer",
        (
            "copying=object_copy download parallel part_buffers=parts parts put=put_object ranges sequential "
            "streams=reader upload upload_stream=multipart"
        ),
    ),
    ("storage.schemes", "storage.stores", "_rest=rest file http=web oss"),
    ("storage.schemes", "storage.stores.azure", "_azure_auth=auth _azure_upload=blocks azure=handler"),
    ("storage.schemes", "storage.stores.fsspec", "_fsspec_files=files _fsspec_kinds=quirks fsspec=handler"),
    ("storage.schemes", "storage.stores.gcs", "_gs_auth=auth _gs_json=json_api gs=handler"),
    (
        "storage.schemes",
        "storage.stores.s3",
        ("_aws=credentials _s3_client=client _s3_upload=multipart _s3_xml=xml _sigv4=sigv4 s3=handler"),
    ),
    ("storage.schemes", "storage.stores.swift", "_swift_auth=auth _swift_upload=segments swift=handler"),
)

#: Old module to new module, without the leading ``apyfal.``
MOVED = {
    f"{old}.{name.partition('=')[0]}".lstrip("."): f"{new}.{name.rpartition('=')[2]}".lstrip(".")
    for old, new, names in _TABLE
    for name in names.split()
}

#: Packages that are no more, for the sake of what was in them.
_GONE = ("commands", "storage.schemes")


class _Finder:
    """Finds modules by their old path, and loads them by giving the new one."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != "apyfal" or (old not in MOVED and old not in _GONE):
            return None
        return ModuleSpec(fullname, self, is_package=old in _GONE)  # type: ignore[arg-type]  # it has what a loader needs

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        old = spec.name.removeprefix("apyfal.")
        if old in _GONE:
            return None  # an empty package
        new = f"apyfal.{MOVED[old]}"
        warnings.warn(f"{spec.name} has moved to {new}", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        spec.loader_state = module.__spec__  # the import system replaces it by `spec`
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None and module.__spec__.loader_state is not None:
            module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let old paths be found."""
    sys.meta_path.append(_Finder())
