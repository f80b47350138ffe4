"""`backbones.load("http:URL")`: the backbone of a segmentation service (`medseg serve`).

Every call is a pure computation, so sending one again changes nothing: failures of the network are
retried a bounded number of times, a busy service is waited for as long as it says, within limits.
Then, and for anything else, an error names the service's address.
"""

from __future__ import annotations

import base64
import json
import os
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import torch

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.remote.ends import RemoteBackbone
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.errors import BackboneError

KEY_VARIABLE = "MEDSEG_SERVICE_KEY"
"""Environment variable with the key; kinder than `key=`, which ends up in recorded settings."""

_MISSING_ROUNDS = 3
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class Patience:
    """Time limits and retries of a client.

    Args:
        timeout: Seconds for one answer; a large batch on a CPU takes a while.
        connect_timeout: Seconds for a connection.
        retries: Further attempts after a broken connection or a time-out.
        busy_seconds: Seconds that a service which answers "full" (429, 503) is waited for.
    """

    timeout: float = 60.0
    connect_timeout: float = 5.0
    retries: int = 3
    busy_seconds: float = 60.0


class HttpBackbone(RemoteBackbone):
    """The backbone of a segmentation service.

    Args:
        url: Of the service, such as "http://127.0.0.1:8265".
        key: Its bearer key; None takes `MEDSEG_SERVICE_KEY`, if set; "" sends none, which is for
            addresses that the user has not named but that came out of a file.
        device: Where logits and masks live here.
        patience: Time-outs and retries.
        connections: Most connections at a time; threads of one process share them.

    Raises:
        BackboneError: Nothing answers there, the key is wrong, or it is no such service.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        device: torch.device | str = "cpu",
        patience: Patience | None = None,
        connections: int = 16,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise BackboneError(f"{url!r} is not a URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise BackboneError(f"{url!r} is not the URL of a service; write http://HOST:PORT")
        self._login = (parsed.username, parsed.password) if parsed.userinfo else None
        self.url = str(parsed.copy_with(userinfo=b"")).rstrip("/")  # errors must not tell a key
        self._key = os.environ.get(KEY_VARIABLE) if key is None else key
        self._patience = patience or Patience()
        self._connections = connections
        self._client: httpx.Client | None = None
        self._pid = 0
        about = self._call("GET", "/v1/backbone")
        try:
            self._max_rows = max(1, int(about.get("max_rows", 64)))
            self._max_bytes = int(about.get("max_upload_bytes", 8 << 20))
        except (TypeError, ValueError, OverflowError) as error:  # NaN and Infinity among them
            raise BackboneError(
                f"segmentation service {self.url}: its limits are no numbers ({error}); is that "
                "a medseg_gym service?"
            ) from None
        super().__init__(ServedFacts.from_json(about), device)

    def __reduce__(self) -> tuple:
        login = f"{self._login[0]}:{self._login[1]}@" if self._login else ""
        url = self.url.replace("://", f"://{login}", 1)
        return HttpBackbone, (url, self._key, self.device, self._patience, self._connections)

    # calls -------------------------------------------------------------------------------------
    def _connect(self) -> httpx.Client:
        if self._client is None or self._pid != os.getpid():
            # Never a parent's sockets in a forked child: their answers would get mixed up.
            patience = self._patience
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            local = httpx.URL(self.url).host in ("127.0.0.1", "::1", "localhost")
            self._client = httpx.Client(
                base_url=self.url,
                headers=headers,
                auth=self._login if not self._key else None,
                timeout=httpx.Timeout(patience.timeout, connect=patience.connect_timeout),
                limits=httpx.Limits(max_connections=self._connections),
                trust_env=not local,  # no proxy stands between a machine and itself
            )
            self._pid = os.getpid()
            weakref.finalize(self, self._client.close)
        return self._client

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One idempotent call, with bounded retries.

        Raises:
            BackboneError: The service is dead, stays full, or refuses. `_Missing` among them.
        """
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"Content-Type": "application/json"}
        failures, waited = 0, 0.0
        while True:
            try:
                answer = self._connect().request(method, path, content=content, headers=headers)
            except (httpx.TransportError, httpx.DecodingError) as error:
                failures += 1
                if failures > self._patience.retries:
                    raise BackboneError(
                        f"segmentation service {self.url} does not answer {method} {path} "
                        f"({failures} attempts): {type(error).__name__}: {error}; is it running? "
                        f"see {self.url}/health"
                    ) from error
                time.sleep(min(0.1 * 2**failures, _LONGEST_PAUSE))
                continue
            if answer.status_code in (429, 503) and waited < self._patience.busy_seconds:
                pause = _read_pause(answer)
                time.sleep(pause)
                waited += pause
                continue
            broken = answer.status_code >= 500 and b'"not_finite"' not in answer.content[:65536]
            if broken and failures < self._patience.retries:
                failures += 1  # a proxy whose replica died, say
                time.sleep(min(0.1 * 2**failures, _LONGEST_PAUSE))
                continue
            return self._read(answer, method, path)

    def _read(self, answer: httpx.Response, method: str, path: str) -> dict[str, Any]:
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.is_success and isinstance(content, dict):
            return content
        detail = content.get("detail") if isinstance(content, dict) else answer.text[:200]
        if isinstance(content, dict) and "missing" in content:
            raise _Missing(content["missing"])
        if isinstance(content, dict) and isinstance(ill := content.get("not_finite"), dict):
            raise NonFiniteError(
                f"{ill.get('backbone')} (service {self.url})",
                str(ill.get("what")),
                [row for row in ill.get("rows") or () if isinstance(row, int)],
                [name for name in ill.get("names") or () if isinstance(name, str)],
            )
        way_out = ""
        if answer.status_code == 401:
            way_out = f"; give its key in {KEY_VARIABLE} or as key="
            if self._key == "":
                way_out = "; name the service yourself (--backbone) so that your key is sent to it"
        elif answer.is_success or answer.status_code == 404:
            way_out = "; is that a medseg_gym service?"
        raise BackboneError(
            f"segmentation service {self.url}: {method} {path} answered {answer.status_code}: "
            f"{detail}{way_out}"
        )

    # the two halves of a segmenter ---------------------------------------------------------------
    def _encode(self, images: Mapping[str, np.ndarray]) -> Mapping[str, tuple[int, int]]:
        sizes: dict[str, tuple[int, int]] = {}
        keys = list(images)
        for start in range(0, len(keys), self._max_rows):
            asked = keys[start : start + self._max_rows]
            answer = self._ask_to_encode({"hashes": asked}, sizes)
            for batch in self._split([(k, _pack_image(images[k])) for k in answer]):
                self._ask_to_encode({"images": [packed for _, packed in batch]}, sizes)
        if absent := [key for key in keys if key not in sizes]:
            raise BackboneError(
                f"segmentation service {self.url} did not encode {len(absent)} of {len(keys)} "
                "images although it was sent them; both ends must be of the same version"
            )
        return sizes

    def _ask_to_encode(self, body: dict[str, Any], sizes: dict[str, tuple[int, int]]) -> list[str]:
        answer = self._call("POST", "/v1/encode", {"backbone": self.facts.fingerprint, **body})
        try:
            for entry in answer["images"]:
                height, width = entry["input_size"]
                sizes[entry["hash"]] = (height, width)
            return [key for key in answer["missing"] if isinstance(key, str)]
        except (KeyError, TypeError, ValueError) as error:
            raise self._foreign("/v1/encode", error) from error

    def _decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        start = 0
        for batch in self._split([(row.image, _pack_row(row)) for row in rows]):
            try:
                parts.append(self._decode_part([packed for _, packed in batch], images))
            except NonFiniteError as error:  # its rows count from the part's first
                raise error.starting_at(start) from None
            start += len(batch)
        logits, iou = zip(*parts, strict=True)
        return np.concatenate(logits), np.concatenate(iou)

    def _decode_part(
        self, rows: list[dict[str, Any]], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        body: dict[str, Any] = {"backbone": self.facts.fingerprint, "rows": rows}
        sent: set[str] = set()
        for _ in range(_MISSING_ROUNDS):
            try:
                answer = self._call("POST", "/v1/decode", body)
            except _Missing as missing:
                # Dropped there, restarted, or another replica: the pixels go with the prompts.
                sent |= set(missing.keys) & set(images)
                body["images"] = [_pack_image(images[key]) for key in sorted(sent)]
                continue
            try:
                logits = np.frombuffer(base64.b64decode(answer["logits"], validate=True), "<f4")
                logits = logits.reshape([int(side) for side in answer["shape"]])
                iou = [float(value) for value in answer["iou"]]  # a null would become a NaN
            except (KeyError, TypeError, ValueError) as error:
                raise self._foreign("/v1/decode", error) from error
            if len(logits) != len(rows) or len(iou) != len(rows):
                raise self._foreign("/v1/decode", f"{len(rows)} rows asked, {len(logits)} given")
            return logits, np.asarray(iou, np.float32)
        raise BackboneError(
            f"segmentation service {self.url} dropped images again and again within one request: "
            "its embedding cache is too small for so many at once (serve with a larger "
            "--cache-bytes)"
        )

    def _foreign(self, path: str, error: object) -> BackboneError:
        """The error for an answer that is none of this service's."""
        message = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return BackboneError(
            f"segmentation service {self.url}: the answer of POST {path} cannot be read "
            f"({message}); "
            "is that a medseg_gym service of the same version?"
        )

    def _split(self, entries: list[tuple[str, dict]]) -> Iterator[list[tuple[str, dict]]]:
        """Parts that a service takes in one request, at least one entry each."""
        batch: list[tuple[str, dict]] = []
        size = 0
        for entry in entries:
            large = sum(len(v) for v in entry[1].values() if isinstance(v, str)) + 1024
            if batch and (len(batch) == self._max_rows or size + large > self._max_bytes // 2):
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += large
        if batch:
            yield batch


class _Missing(BackboneError):
    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        super().__init__(f"the service does not hold {len(self.keys)} image(s)")


def _pack_image(image: np.ndarray) -> dict[str, Any]:
    pixels = base64.b64encode(np.ascontiguousarray(image).data).decode()
    return {"pixels": pixels, "size": [image.shape[0], image.shape[1]]}


def _pack_row(row: WireRow) -> dict[str, Any]:
    packed: dict[str, Any] = {"image": row.image, "multimask": row.multimask}
    if row.box is not None:
        packed["box"] = list(row.box)
    if row.points:
        packed["points"] = [list(point) for point in row.points]
    if row.mask_input is not None:
        packed["mask_input"] = base64.b64encode(row.mask_input.astype("<f4").tobytes()).decode()
    if row.text is not None:
        packed["text"] = row.text
    return packed


def _read_pause(answer: httpx.Response) -> float:
    try:
        return min(max(float(answer.headers.get("retry-after", 1)), 0.1), _LONGEST_PAUSE)
    except ValueError:
        return 1.0


def build(
    name: str,
    device: torch.device,
    *,
    key: str | None = None,
    timeout: float = 60.0,
    connect_timeout: float = 5.0,
    retries: int = 3,
    busy_seconds: float = 60.0,
    connections: int = 16,
) -> HttpBackbone:
    """Connect to the service that a name gives: "http:URL", or the URL itself.

    See `HttpBackbone` and `Patience` for the arguments.
    """
    rest = name.removeprefix("http:")
    url = rest if rest.startswith(("http://", "https://")) else name
    if "://" not in url and name.startswith("http:"):
        url = f"http://{rest}"
    patience = Patience(timeout, connect_timeout, retries, busy_seconds)
    return HttpBackbone(url, key, device, patience, connections)
