"""API keys and the owners that they stand for.

A key comes as `Authorization: Bearer KEY`, or as the password of HTTP Basic, which is what clients
send for a URL like `http://me:KEY@host:8265`. Without keys everybody on the loopback is one owner.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from medseg_gym.errors import MedSegError

LOOPBACK = "loopback"
"""Name of the only owner where no keys are set."""

SHORTEST_KEY = 16
_NAME = re.compile(r"[A-Za-z0-9._\-]{1,64}")


class ApiKeys:
    """Keys and the owners they stand for; only hashes of the keys are kept.

    Args:
        keys: Key by owner's name; empty lets everybody in as `LOOPBACK`.

    Raises:
        MedSegError: A name is not plain, a key is short, not printable ASCII, or used twice.
    """

    def __init__(self, keys: Mapping[str, str] | None = None) -> None:
        self._digests: dict[str, bytes] = {}
        for name, key in (keys or {}).items():
            if not _NAME.fullmatch(name):
                raise MedSegError(
                    f"an owner's name is 1 to 64 letters, digits, '.', '_' or '-', not {name!r}"
                )
            if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise MedSegError(
                    f"the key of {name!r} must have at least {SHORTEST_KEY} printable ASCII "
                    "characters without blanks; make one with: "
                    'python -c "import secrets; print(secrets.token_urlsafe(32))"'
                )
            digest = hashlib.sha256(key.encode()).digest()
            if digest in self._digests.values():
                raise MedSegError(f"the key of {name!r} belongs to another owner already")
            self._digests[name] = digest

    @property
    def required(self) -> bool:
        """True if a request must carry a key."""
        return bool(self._digests)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all owners."""
        return tuple(self._digests) or (LOOPBACK,)

    def authenticate(self, authorization: str | None) -> str | None:
        """Return the owner of the key in an Authorization header; None if there is none.

        Takes the same time for every wrong key.
        """
        if not self._digests:
            return LOOPBACK
        digest = hashlib.sha256(_read_key(authorization or "").encode()).digest()
        owner = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                owner = name
        return owner


def _read_key(authorization: str) -> str:
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            return ""
        return decoded.partition(":")[2]
    return ""


def read_keys(path: Path) -> dict[str, str]:
    """Read a file of `owner:key` lines; blank lines and lines that begin with # are skipped.

    Raises:
        MedSegError: The file cannot be read, holds no key, or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MedSegError(f"{path}: the key file cannot be read: {error}") from error
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, key = line.partition(":")
        if not colon or name in keys:
            raise MedSegError(
                f"{path}: line {number}: expected owner:key with an owner of its own per line"
            )
        keys[name.strip()] = key.strip()
    if not keys:
        raise MedSegError(f"{path}: the key file holds no key; write owner:key, one a line")
    return keys
