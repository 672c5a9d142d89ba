"""What a client may read in an error: nothing from the operator's configuration, and nothing about this machine.

Three rules, from narrow to wide. An error of an operator's mount is replaced by a fixed sentence for its class, because
the store's own message names endpoints, buckets and accounts. Values of the configuration are hidden wherever they
occur. Absolute paths, addresses and URLs are hidden unless the client itself has sent them.
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
#: keys of mounts whose values are ordinary words and not secret
_ORDINARY = frozenset(
    {"provider", "anonymous", "addressing", "checksum", "sse", "requester_pays", "timeout", "region", "protocol"}
)
_SHORTEST = 3
#: replaces the message of the store behind an operator's mount, by the nearest class of the error
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
    exceptions.NotADirectory: "it is not a directory",
    exceptions.StorageError: "the store failed; see the host's log",
    exceptions.MountError: "the mount is not usable; see the host's log",
    exceptions.ConfigurationError: "the mount is not usable; see the host's log",
    exceptions.AuthenticationError: "the mount is not usable; see the host's log",
}

_INTERNAL = re.compile(r"client-[0-9a-f]{16}://")
# An absolute path that does not continue a longer word or path; a URL; an address with or without a port.
_PATH = re.compile(r"(?<![\w.:/~-])~?/[^\s'\"<>|;,()\[\]]+")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+")
_ADDRESS = re.compile(
    r"(?<![\w.])(?:\d{1,3}(?:\.\d{1,3}){3}|localhost|\[[0-9a-f:.%]+\])(?::\d+)?(?![\w.]*\w)", re.IGNORECASE
)


def urls_of(spec: JobSpec) -> list[str]:
    """List the URLs in a job."""
    ends = [end for end in (spec.src, spec.dst) if end is not None]
    named = [end.url for end in ends]
    named += [part.url for end in ends for part in (end.parts or {}).values()]
    return [url for url in named if url is not None]


class Disclosure:
    """Removes from messages what a client must not read. Usable from any thread.

    Parameters
    ----------
    configuration
        The values of its mounts and programs are hidden.
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
        found -= {*names, *registry.names()}  # names that clients may use are not secret
        self._values = tuple(sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True))

    def text(self, text: str, client_text: str = "", mounts: Mapping[str, SessionMount] | None = None) -> str:
        """Return `text` with everything hidden that the client must not read.

        Parameters
        ----------
        text
            The message of an error, or a line about this host.
        client_text
            What the client has sent, as text. Whatever occurs in it stays readable.
        mounts
            Mounts of the client's session. Their names in this process are replaced by the client's names.
        """
        for mount in (mounts or {}).values():
            text = text.replace(f"{mount.internal}://{mount.root}", f"{mount.name}://")
        text = _INTERNAL.sub("host://", text)
        for value in self._values:
            if value in text and value not in client_text:
                text = text.replace(value, _HIDDEN)

        def shown(match: re.Match[str]) -> str:
            found = match[0].rstrip(".:")
            if found in client_text or found.startswith("host://"):
                return match[0]
            return _HIDDEN + match[0][len(found) :]

        for pattern in (_URL, _PATH, _ADDRESS):
            text = pattern.sub(shown, text)
        return text

    def error(
        self,
        error: BaseException,
        client_text: str = "",
        mounts: Mapping[str, SessionMount] | None = None,
        operators: Iterable[str] = (),
    ) -> dict[str, str]:
        """Return the JSON document that describes an error to the client.

        Parameters
        ----------
        error
            The error.
        client_text, mounts
            As for `text`.
        operators
            URLs of the request that belong to the operator's mounts.
        """
        document: dict[str, str] = error_document(error)
        if isinstance(error, NotAllowed):
            return document
        urls = ", ".join(operators)
        sentence = next((_SENTENCES[kind] for kind in type(error).__mro__ if kind in _SENTENCES), None)
        if urls and sentence is not None:
            get_logger().info("%s: %s", urls, error)
            return {**document, "message": f"{urls}: {sentence}"}
        return {**document, "message": self.text(document["message"], client_text, mounts)}


def _spellings(text: str) -> set[str]:
    """Return a value of the configuration and the forms in which libraries print it."""
    expanded = os.path.expanduser(text)
    found = {text, expanded, text.strip("/")}
    if "://" in text:
        rest = text.partition("://")[2]
        authority = rest.partition("/")[0].rpartition("@")[2]
        found |= {rest, rest.strip("/"), authority, authority.rpartition(":")[0] or authority}
    return found
