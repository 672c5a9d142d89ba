"""What clients are told of errors: nothing that the operator has configured, and nothing of this machine.

Three rules, from the narrow to the wide. An error of one of the operator's mounts becomes a sentence about its kind:
the store's own words name endpoints, buckets and accounts. Values of the configuration are hidden wherever they turn
up. And absolute paths, addresses and URLs are hidden unless the client itself has said them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from apyfal import exceptions
from apyfal.config.configuration import Configuration
from apyfal.definition import registry
from apyfal.host.protocol.messages import JobSpec, error_document
from apyfal.host.server.policy.tokens import NotAllowed
from apyfal.host.server.policy.url_policy import SessionMount
from apyfal.log import get_logger

__all__ = ["Disclosure", "urls_of"]

_HIDDEN = "..."
#: keys of mounts whose values are no secret and ordinary words
_ORDINARY = frozenset(
    {"provider", "anonymous", "addressing", "checksum", "sse", "requester_pays", "timeout", "region", "protocol"}
)
_SHORTEST = 3
#: what the store of an operator's mount may have said, by the nearest class of its error
_SENTENCES: Mapping[type[BaseException], str] = {
    exceptions.ObjectNotFound: "there is no such object",
    exceptions.AccessDenied: "the store does not allow it",
    exceptions.ObjectExists: "it exists already",
    exceptions.ObjectChanged: "the object has changed meanwhile",
    exceptions.StoreUnavailable: "the store cannot be reached, or does not answer",
    exceptions.TransferTimeout: "the store took too long",
    exceptions.ChecksumMismatch: "the data that arrived is damaged",
    exceptions.UnsupportedByStore: "the store cannot do that",
    exceptions.IsADirectory: "it is a directory",
    exceptions.NotADirectory: "it is no directory",
    exceptions.StorageError: "the store failed; the log of the host says more",
    exceptions.MountError: "the mount is not usable; the log of the host says more",
    exceptions.ConfigurationError: "the mount is not usable; the log of the host says more",
    exceptions.AuthenticationError: "the mount is not usable; the log of the host says more",
}

_INTERNAL = re.compile(r"client-[0-9a-f]{16}://")
# An absolute path that nothing precedes of which it would be the end; a URL; an address with or without a port.
_PATH = re.compile(r"(?<![\w.:/~-])~?/[^\s'\"<>|;,()\[\]]+")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+")
_ADDRESS = re.compile(
    r"(?<![\w.])(?:\d{1,3}(?:\.\d{1,3}){3}|localhost|\[[0-9a-f:.%]+\])(?::\d+)?(?![\w.]*\w)", re.IGNORECASE
)


def urls_of(spec: JobSpec) -> list[str]:
    """List the URLs that a job names."""
    ends = [end for end in (spec.src, spec.dst) if end is not None]
    named = [end.url for end in ends]
    named += [part.url for end in ends for part in (end.parts or {}).values()]
    return [url for url in named if url is not None]


class Disclosure:
    """Decides what a client is told. Usable from any thread.

    Parameters
    ----------
    configuration
        Whose mounts and programs are not told.
    """

    def __init__(self, configuration: Configuration | None = None) -> None:
        self._values: tuple[str, ...] = ()
        if configuration is not None:
            self.configure(configuration)

    def configure(self, configuration: Configuration) -> None:
        """Hide the values of this configuration from now on."""
        found: set[str] = set()
        for name in configuration.sections():
            kind = name.partition(".")[0]
            for key, value in configuration.section(name).items():
                if kind in ("storage", "host"):
                    if key not in _ORDINARY:
                        found |= _spellings(value.text)
                elif kind in ("process", "configuration") or key in ("program", "kernel") or os.sep in value.text:
                    found |= _spellings(value.text)
        names = {name.partition(".")[2] for name in configuration.sections("accelerator")}
        found -= {*names, *registry.names()}  # what clients may name is no secret
        self._values = tuple(sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True))

    def text(self, text: str, said: str = "", mounts: Mapping[str, SessionMount] | None = None) -> str:
        """Return `text` as a client may read it.

        Parameters
        ----------
        text
            Of an error, or a line about this host.
        said
            What the client has written: it may read that again.
        mounts
            Those of its session, which have other names in this process.
        """
        for mount in (mounts or {}).values():
            text = text.replace(f"{mount.internal}://{mount.root}", f"{mount.name}://")
        text = _INTERNAL.sub("host://", text)
        for value in self._values:
            if value in text and value not in said:
                text = text.replace(value, _HIDDEN)

        def shown(match: re.Match[str]) -> str:
            found = match[0].rstrip(".:")
            if found in said or found.startswith("host://"):
                return match[0]
            return _HIDDEN + match[0][len(found) :]

        for pattern in (_URL, _PATH, _ADDRESS):
            text = pattern.sub(shown, text)
        return text

    def error(
        self,
        error: BaseException,
        said: str = "",
        mounts: Mapping[str, SessionMount] | None = None,
        operators: Iterable[str] = (),
    ) -> dict[str, str]:
        """Return the document of an error.

        Parameters
        ----------
        error
            What failed.
        said, mounts
            As for `text`.
        operators
            URLs of the request that are in the operator's mounts.
        """
        document: dict[str, str] = error_document(error)
        if isinstance(error, NotAllowed):
            return document
        urls = ", ".join(operators)
        sentence = next((_SENTENCES[kind] for kind in type(error).__mro__ if kind in _SENTENCES), None)
        if urls and sentence is not None:
            get_logger().info("%s: %s", urls, error)
            return {**document, "message": f"{urls}: {sentence}"}
        return {**document, "message": self.text(document["message"], said, mounts)}


def _spellings(text: str) -> set[str]:
    """Return a value of the configuration and the forms in which libraries print it."""
    expanded = os.path.expanduser(text)
    found = {text, expanded, text.strip("/")}
    if "://" in text:
        rest = text.partition("://")[2]
        authority = rest.partition("/")[0].rpartition("@")[2]
        found |= {rest, rest.strip("/"), authority, authority.rpartition(":")[0] or authority}
    return found
