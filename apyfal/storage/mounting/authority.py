"""What a mount from a configuration that the user has not vouched for may be, and whose credentials it gets.

`apyfal.config.authority` says of each key what an untrusted file may do with it. Here this is applied to what has been
collected for one mount, in which arguments, which are the program's word, stand beside values of the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from apyfal.config.authority import CREDENTIALS, Verdict, outside_of_directory, refusal, rule_of
from apyfal.config.configuration import untrusted
from apyfal.config.ini import Value
from apyfal.storage import providers

__all__ = ["lends_credentials"]

#: The limits of the transfers: all that an untrusted file may say of a provider that is not in the table.
_LIMITS = ("bandwidth", "max_concurrency", "memory_limit")
#: Credentials that are complete. Without them an address is refused here, where the file can be named; the provider,
#: which gets nothing but them, would refuse it when it connects.
_COMPLETE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "s3": (("client_id", "secret_id"), ("anonymous",)),
    "oss": (("client_id", "secret_id"), ("anonymous",)),
    "gs": (("client_id", "secret_id"), ("anonymous",)),
    "az": (("client_id", "secret_id"), ("account", "secret_id"), ("sas",), ("connection_string",), ("anonymous",)),
    "swift": (("client_id", "secret_id"),),
    "fsspec": (("client_id", "secret_id"), ("username", "password"), ("auth",)),
    "http": ((),),
    "https": ((),),
}


def lends_credentials(
    name: str,
    provider: providers.Provider,
    given: Mapping[str, tuple[object, bool]],
    known: Collection[str] | None,
    root: str | None,
) -> bool:
    """Check what an untrusted file says of a mount; return whether the mount may use the user's own credentials.

    Parameters
    ----------
    name
        The mount's.
    provider
        Its provider.
    given
        What was collected, see `apyfal.storage.mounting.from_config.gathered`.
    known
        Names of the provider's parameters; others are ignored. ``None``: it takes any.
    root
        What stands before every path.

    Returns
    -------
    bool
        ``True`` for a mount that is the user's word in full, or of which an untrusted file says nothing that has to do
        with accounts and addresses. ``False``: nothing but what `given` holds may be used.

    Raises
    ------
    ConfigurationError
        For the first value that an untrusted file may not say.
    """
    from_file = {
        key: value
        for key, (value, _) in given.items()
        if isinstance(value, Value) and not value.trusted and (known is None or key in known)
    }
    own_name = name == provider.name
    for key, value in from_file.items():
        if (what := refusal(value)) is not None:
            raise untrusted(value, what)
        if key not in _LIMITS and not _is_separate(provider):
            raise untrusted(value, "a provider that finds credentials of the user by itself")
        if own_name and provider.local and rule_of(value.section, key).verdict is not Verdict.FREE:
            raise untrusted(value, f"how {name}:// addresses are reached")
    if isinstance(root, Value) and not root.trusted:
        if own_name:
            raise untrusted(root, f"what {name}:// addresses mean")
        if provider.name == "file" and outside_of_directory(root):
            raise untrusted(root, "a file outside of its directory")
    own = [value for key, value in from_file.items() if rule_of(value.section, key).verdict is Verdict.OWN]
    if not own:
        return True
    lent = [key for key in given if key in CREDENTIALS and key not in from_file]
    if lent:
        raise untrusted(own[0], f"where {lent[0]} of the program goes")
    if not any(all(key in from_file for key in keys) for keys in _COMPLETE.get(provider.name, ())):
        raise untrusted(own[0], "where credentials of yours would go")
    return False


def _is_separate(provider: providers.Provider) -> bool:
    """Whether a provider can do without what it finds on this machine."""
    return provider.name in _COMPLETE or provider.name == "file"
