"""Settings that are written beside a run and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from medseg_gym.errors import MedSegError

C = TypeVar("C", bound="StoredSettings")


class StoredSettings:
    """Base of dataclasses of texts, numbers and tuples that are kept as JSON."""

    def to_json(self) -> str:
        """Write as JSON."""
        given: Any = self
        return json.dumps({"algorithm": type(self).__name__, **asdict(given)}, indent=1)

    @classmethod
    def read(cls: type[C], values: Mapping[str, Any]) -> C:
        """Build from what `to_json` wrote.

        Raises:
            MedSegError: The values are of another algorithm, or name a field that does not exist.
        """
        given = dict(values)
        algorithm = given.pop("algorithm", cls.__name__)
        kind: Any = cls
        known = {field.name for field in fields(kind)}
        if algorithm != cls.__name__ or not set(given) <= known:
            raise MedSegError(
                f"not a {cls.__name__}: algorithm {algorithm!r}, unknown fields "
                f"{sorted(set(given) - known)}"
            )
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
