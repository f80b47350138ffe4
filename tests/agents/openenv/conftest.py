"""A server of the environment on loopback, with OpenEnv's and uvicorn's own code."""

import threading
import time

import pytest

from ..chat_scripts import OPTIONS


def play(client, answers, **reset):
    """Rewards and the last result of answers in a new episode."""
    from medseg_agents.openenv import MedSegAction

    result, rewards = client.reset(**reset), []
    assert result.reward is None and not result.done
    for answer in answers:
        result = client.step(MedSegAction(answer=answer))
        rewards.append(result.reward)
    return rewards, result


@pytest.fixture
def start():
    """Starts servers: `start(**options)` returns the address and the worker; `stop(address)`."""
    import uvicorn
    from medseg_agents.chat_episodes import worker_of
    from medseg_agents.openenv import make_app

    running = {}

    def run(sessions=8, **options):
        options = {"max_delay_ms": 2.0, **OPTIONS, **options}
        server = uvicorn.Server(
            uvicorn.Config(make_app(sessions, **options), port=0, log_level="error")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        running[address] = server, thread
        return address, worker_of(options)

    def stop(address):
        server, thread = running.pop(address)
        server.force_exit = server.should_exit = True
        thread.join(20)

    run.stop = stop
    yield run
    for address in list(running):
        stop(address)
