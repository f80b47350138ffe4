"""Two Ray hosts on one machine: network namespaces that one virtual cable joins.

Each namespace has its own addresses and ports, so Ray takes them for two machines, and the loss of
one is the end of all its processes. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_RAY = Path(sys.executable).with_name("ray")
_PORT = 6379


def why_not() -> str | None:
    """Return the reason why this machine cannot make two hosts; None where it can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "network namespaces need Linux and iproute2 (`ip`)"
    name = f"medseg-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here (root?): {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class TwoHosts:
    """Hosts 1 (the head) and 2 of a Ray cluster.

    Args:
        folder: Short, for Ray's sockets lie in it.
        cpus: Of each.
    """

    def __init__(self, folder: Path, cpus: int) -> None:
        self._folder, self._cpus = folder, cpus
        self.names = [f"medseg-{os.getpid()}-{number}" for number in (1, 2)]
        self.addresses = ["10.77.0.1", "10.77.0.2"]
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")]),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }
        self.environment.pop("RAY_ADDRESS", None)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Make the namespaces, join them, and start a Ray node in each."""
        for name in self.names:
            _ip("netns", "add", name)
        first, second = self.names
        _ip(
            "link",
            "add",
            "v1",
            "netns",
            first,
            "type",
            "veth",
            "peer",
            "name",
            "v2",
            "netns",
            second,
        )
        for number, name in enumerate(self.names, 1):
            _ip("-n", name, "addr", "add", f"{self.addresses[number - 1]}/24", "dev", f"v{number}")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", f"v{number}", "up")
        self._node(0, "--head", "--port", str(_PORT), "--include-dashboard", "false")
        head = f"{self.addresses[0]}:{_PORT}"
        self._wait(f"import socket; socket.create_connection(('{self.addresses[0]}', {_PORT}), 1)")
        self._node(1, "--address", head)
        self.environment["RAY_ADDRESS"] = head
        self._wait(
            "import ray; ray.init(log_to_driver=False, logging_level='ERROR'); "
            "assert sum(node['Alive'] for node in ray.nodes()) == 2"
        )

    def command(self, number: int, *words: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a command on a host; `options` are those of Popen."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[number], *words],
            env=self.environment,
            start_new_session=True,
            **options,
        )
        self._started.append(process)
        return process

    def processes(self, number: int) -> dict[int, str]:
        """Return the processes of a host: the command by process id."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.names[number]], capture_output=True, text=True
        )
        commands = {}
        for pid in map(int, listed.stdout.split()):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                commands[pid] = words.decode(errors="replace").strip()
        return commands

    def lose(self, number: int) -> None:
        """End all processes of a host at once, as a power cut would."""
        for pid in self.processes(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End what runs and remove the namespaces."""
        for number, name in enumerate(self.names):
            for _ in range(20):
                self.lose(number)
                if not self.processes(number):
                    break
                time.sleep(0.1)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        for process in self._started:
            process.wait()

    def _node(self, number: int, *words: str) -> None:
        log = (self._folder / f"h{number}.log").open("wb")
        self.command(
            number,
            *(str(_RAY), "start", "--block", "--disable-usage-stats", "--num-gpus", "0"),
            *("--node-ip-address", self.addresses[number], "--num-cpus", str(self._cpus)),
            *("--object-store-memory", "150000000", "--temp-dir", str(self._folder / f"h{number}")),
            *words,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()

    def _wait(self, program: str) -> None:
        """Run a program on host 1 until it ends well."""
        for _ in range(60):
            process = self.command(
                0,
                sys.executable,
                "-c",
                program,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if process.wait() == 0:
                return
            time.sleep(0.5)
        raise RuntimeError(f"the hosts do not answer:\n{self.logs()}")

    def logs(self) -> str:
        """The ends of both nodes' logs."""
        return "\n".join(file.read_text()[-2000:] for file in sorted(self._folder.glob("h?.log")))


@contextlib.contextmanager
def two_hosts(cpus: int = 1) -> Iterator[TwoHosts]:
    """Run two hosts, and remove all that belongs to them afterwards."""
    with tempfile.TemporaryDirectory(prefix="mh", dir="/tmp", ignore_cleanup_errors=True) as folder:
        hosts = TwoHosts(Path(folder), cpus)
        try:
            hosts.start()
            yield hosts
        finally:
            hosts.stop()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
