"""What a store keeps of an object besides its bytes: content type, user metadata, tags, storage class, access, ...

`ObjectMetadata` is the one form of it: `ObjectInfo.metadata` tells what an object has, ``metadata=`` of the functions
that write states what it shall have. Each store lists what it can keep in `MetadataHandler.metadata_fields`; a field
that it cannot keep is an error, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from mimetypes import MimeTypes
from operator import attrgetter
from typing import Any

from apyfal.exceptions import ParameterError, UnsupportedByStore, did_you_mean

__all__ = ["FIELDS", "HTTP_FIELDS", "ObjectMetadata", "content_type_of", "http_metadata", "require_fields"]

#: header names may have these (RFC 9110, section 5.6.2), and stores put the keys into header names
_KEY = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)

#: of the module itself, not of the machine's own files: the same name has the same type everywhere
_TYPES = MimeTypes()
_COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "br": "application/octet-stream",
    "compress": "application/x-compress",
}
#: As `mimetypes` spells them, by what they are in lower case.
_COMPRESSING = {".gz": ".gz", ".bz2": ".bz2", ".xz": ".xz", ".br": ".br", ".z": ".Z"}
_NUMPY = {".npy": "application/x-npy", ".npz": "application/x-npz", ".parquet": "application/vnd.apache.parquet"}


@dataclass(frozen=True, slots=True)
class ObjectMetadata:
    """Metadata of one object. ``None`` means unknown, or (to be written) not stated.

    Attributes
    ----------
    content_type
        Media type. Where it is not stated, the name of the object decides, see `content_type_of`.
    content_encoding, content_disposition, content_language, cache_control
        As in HTTP.
    storage_class
        The store's word for it: ``STANDARD_IA``, ``NEARLINE``, ``Cool``.
    acl
        The store's word for a canned access rule: ``private``, ``public-read``. Written, never told.
    encryption, encryption_key
        How the store encrypts (``AES256``, ``aws:kms``), and the id of the key that it uses.
    user
        Names to texts, of whoever wrote the object. Names are in lower case.
    tags
        Names to texts that the store's own rules can be about.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None
    content_language: str | None = None
    cache_control: str | None = None
    storage_class: str | None = None
    acl: str | None = None
    encryption: str | None = None
    encryption_key: str | None = None
    user: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None

    @classmethod
    def of(cls, value: ObjectMetadata | Mapping[str, Any] | None) -> ObjectMetadata | None:
        """Make the metadata of what a caller gave: itself, or a mapping of its fields' names.

        Raises
        ------
        ParameterError
            An unknown field, or a value that no store could keep.
        """
        if value is None:
            return None
        if isinstance(value, ObjectMetadata):
            return value._checked()
        if not isinstance(value, Mapping):
            raise ParameterError(f"metadata: expected a mapping or ObjectMetadata, not {type(value).__name__}")
        for name in value:
            if name not in FIELDS:
                raise ParameterError(
                    f"metadata: unknown field {name!r}{did_you_mean(str(name), FIELDS)} "
                    "(names of your own go into 'user')"
                )
        return cls(**value)._checked()

    @classmethod
    def parse(cls, pairs: Iterable[str]) -> ObjectMetadata | None:
        """Read ``field=value`` texts, as on a command line; ``user.NAME=value`` and ``tags.NAME=value`` add one each.

        Raises
        ------
        ParameterError
            A text without ``=``, an unknown field, or one that is there twice.
        """
        found: dict[str, Any] = {}
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ParameterError(f"metadata: {pair!r}: expected field=value")
            group, dot, key = name.partition(".")
            place = found.setdefault(group, {}) if dot and group in ("user", "tags") else found
            key = key if place is not found else name
            if key in place or (place is found and key in ("user", "tags")):
                raise ParameterError(f"metadata: {pair!r}: expected each name once, and user.NAME or tags.NAME")
            place[key] = value
        return cls.of(found) if found else None

    def _checked(self) -> ObjectMetadata:
        for name in self.stated:
            value = getattr(self, name)
            if name not in ("user", "tags"):
                _check_text(name, value)
                continue
            if not isinstance(value, Mapping):
                raise ParameterError(f"metadata: {name}: expected names and texts, not {type(value).__name__}")
            for key, text in value.items():
                if name == "user":
                    _check_key(key)
                    _check_text(f"user.{key}", text)
                elif not (isinstance(key, str) and key and isinstance(text, str)):
                    raise ParameterError(f"metadata: tags: expected names and texts, not {key!r}: {text!r}")
        if self.user is None:
            return self
        lower: dict[str, str] = {}
        for key, text in self.user.items():
            if lower.setdefault(key.lower(), text) is not text:
                raise ParameterError(
                    f"metadata: user: {key!r} is there twice: stores do not tell apart upper and lower case"
                )
        return replace(self, user=lower)

    @property
    def stated(self) -> list[str]:
        """Names of the fields that are not ``None``."""
        return [name for name, value in zip(FIELDS, _values(self), strict=True) if value is not None]

    def over(self, other: ObjectMetadata | None) -> ObjectMetadata:
        """Return these fields, and those of `other` for what is not stated here."""
        return self if other is None else replace(other, **{name: getattr(self, name) for name in self.stated})

    def only(self, names: Collection[str]) -> ObjectMetadata:
        """Return the fields of these names alone."""
        return ObjectMetadata(**{name: getattr(self, name) for name in names})


FIELDS = tuple(field.name for field in fields(ObjectMetadata))
_values = attrgetter(*FIELDS)

#: Fields that are header fields of HTTP, by their name there.
HTTP_FIELDS = {
    "content_type": "content-type",
    "content_encoding": "content-encoding",
    "content_disposition": "content-disposition",
    "content_language": "content-language",
    "cache_control": "cache-control",
}


def content_type_of(path: str) -> str:
    """Guess the media type of an object from its name; ``application/octet-stream`` if it says nothing.

    ``x.csv.gz`` is ``application/gzip``: it is stored, and read, as it is.
    """
    name = path.rpartition("/")[2]
    cut = name.rfind(".")
    if cut < 0:
        return "application/octet-stream"
    suffix = name[cut:]
    if suffix.lower() in _NUMPY:
        return _NUMPY[suffix.lower()]
    if not name[:cut].strip(".") and suffix.lower() not in _COMPRESSING:
        return "application/octet-stream"  # a hidden file, and no suffix
    return _type_of_suffix(suffix)


@lru_cache(maxsize=256)
def _type_of_suffix(suffix: str) -> str:
    kind, encoding = _TYPES.guess_type(f"x{_COMPRESSING.get(suffix.lower(), suffix)}")
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    return kind or "application/octet-stream"


def http_metadata(headers: Mapping[str, str]) -> ObjectMetadata:
    """Return what the header fields of HTTP itself tell; names in lower case."""
    fields: dict[str, Any] = {name: headers.get(field) for name, field in HTTP_FIELDS.items()}
    return ObjectMetadata(**fields)


def require_fields(able: Iterable[str], metadata: ObjectMetadata | None, path: str, what: str) -> None:
    """Raise `UnsupportedByStore` if a field is stated that a store cannot keep.

    Parameters
    ----------
    able
        What it can keep, as `apyfal.storage.handler.MetadataHandler.metadata_fields`.
    metadata, path
        What is to be written, and where.
    what
        The store's name.
    """
    able = sorted(able)
    for name in metadata.stated if metadata is not None else ():
        if name not in able:
            keeps = ", ".join(able) or "none"
            raise UnsupportedByStore(f"cannot write {path!r}: {what} keeps no {name}; expected: {keeps}", path=path)


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ParameterError(f"metadata: user: {key!r} is not a name: expected ASCII letters, digits, '-', '_' and '.'")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ParameterError(f"metadata: {name}: expected printable ASCII text, not {value!r}")
    if value != value.strip():
        raise ParameterError(f"metadata: {name}: {value!r}: expected no blanks at its ends, which stores cut off")
