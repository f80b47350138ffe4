"""Whatever goes wrong between client and server is an error of the call, and never a reward."""

import asyncio
import socket

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install 'medseg-gym[openenv]'")

from medseg_agents.openenv import MedSegAction, MedSegClient, make_app
from websockets.exceptions import ConnectionClosed

from medseg_gym.errors import BackboneError, MedSegError

from ..chat_scripts import BOX, OPTIONS, STOP
from .conftest import play


def test_a_step_needs_an_episode_that_runs(start):
    address, _ = start()
    with MedSegClient(address).sync() as client:
        with pytest.raises(RuntimeError, match="reset it first"):
            client.step(MedSegAction(answer=BOX))
        assert client.state().case is None
        play(client, [STOP], index=0)
        with pytest.raises(RuntimeError, match="is over; reset"):
            client.step(MedSegAction(answer=BOX))
        assert play(client, [BOX, STOP], index=0)[1].done  # the session lives on


def test_a_second_reset_begins_anew(start, direct):
    address, worker = start()
    first, second = worker.core.source.keys[:2]
    with MedSegClient(address).sync() as client:
        client.reset(case=first)
        client.step(MedSegAction(answer=BOX))
        rewards, _ = play(client, [BOX, STOP], case=second)
    assert rewards == direct(second, [BOX, STOP])[0]
    with MedSegClient(address).sync() as client:  # its batch lets the left episodes go
        play(client, [STOP], case=first)
    assert all(episode is None for episode in worker.core.engine.episodes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"case": "nobody"}, "nobody"),
        ({"index": 10**6}, "index must be"),
        ({"index": -1}, "index must be"),
        ({"case": "nobody", "index": 0}, "not both"),
        ({"split": "train"}, "'test' alone"),
        ({"difficulty": 3}, "difficulty"),
        ({"seed": -1}, "greater or equal to zero"),
        ({"seed": "five"}, "integer"),
    ],
)
def test_a_reset_that_cannot_be_is_an_error(arguments, message, start):
    address, _ = start()
    with MedSegClient(address).sync() as client:
        with pytest.raises(RuntimeError, match=message):
            client.reset(**arguments)
        with pytest.raises(RuntimeError, match="reset it first"):
            client.step(MedSegAction(answer=BOX))


@pytest.mark.parametrize(
    "data",
    [{"answer": 3}, {"answer": None}, {"tool_calls": "box"}, {"picture": "x"}, {"answer": []}],
)
def test_an_action_of_another_form_is_refused(data, start):
    address, _ = start()

    async def send():
        async with MedSegClient(address) as client:
            await client.reset(index=0)
            with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
                await client._send_and_receive({"type": "step", "data": data})
            return await client.state()

    assert asyncio.run(send()).step_count == 0


def test_a_segmenter_that_fails_is_an_error(start, monkeypatch, direct):
    address, worker = start()
    case = worker.core.source.keys[0]

    def failing(*arguments):
        raise BackboneError("the segmenter is gone; start it again")

    with MedSegClient(address).sync() as client:
        client.reset(case=case)
        with monkeypatch.context() as broken:
            broken.setattr(worker.core, "step", failing)
            with pytest.raises(RuntimeError, match="the segmenter is gone"):
                client.step(MedSegAction(answer=BOX))
        assert client.state().step_count == 0
        assert client.step(MedSegAction(answer=BOX)).reward == direct(case, [BOX])[0][0]


def test_a_server_that_goes_takes_the_episode_with_it(start):
    address, _ = start()
    with MedSegClient(address, connect_timeout_s=2).sync() as client:
        client.reset(index=0)
        start.stop(address)
        with pytest.raises((ConnectionError, ConnectionClosed)):
            client.step(MedSegAction(answer=BOX))


def test_more_sessions_than_allowed_are_refused(start):
    address, _ = start(sessions=1)
    with MedSegClient(address).sync() as client:
        client.reset(index=0)
        with pytest.raises(RuntimeError, match="CAPACITY_REACHED"):
            with MedSegClient(address).sync() as other:
                other.reset(index=0)
        assert client.step(MedSegAction(answer=STOP)).done


def test_an_observation_larger_than_a_client_takes_is_an_error(start):
    address, _ = start()
    with MedSegClient(address, max_message_size_mb=0.001).sync() as client:
        with pytest.raises(ConnectionClosed, match="1009"):
            client.reset(index=0)


def test_an_answer_larger_than_the_server_takes_is_an_error(start):
    address, _ = start()
    with MedSegClient(address).sync() as client:
        client.reset(index=0)
        with pytest.raises(ConnectionClosed, match="1009"):
            client.step(MedSegAction(answer="a" * 17_000_000))


def test_a_closed_session_is_gone(start):
    address, _ = start()
    client = MedSegClient(address).sync()
    client.reset(index=0)
    client.close()
    with client:  # connects anew: another session
        with pytest.raises(RuntimeError, match="reset it first"):
            client.step(MedSegAction(answer=BOX))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": "nowhere:at/all"}, "nowhere"),
        ({"backbone": "nobody"}, "nobody"),
        ({"image_size": 0}, "image_size"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"env_id": "CartPole-v1"}, "CartPole-v1"),
        ({"sessions": 0}, "sessions"),
        ({"max_batch": 0}, "max_batch"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(MedSegError, match=message):
        make_app(**{**OPTIONS, **options})


def test_a_client_of_nobody_fails_with_the_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match="Failed to connect"):
        with MedSegClient(address, connect_timeout_s=2).sync() as client:
            client.reset()


def test_a_wrong_option_of_the_command_is_named():
    from medseg_agents.openenv.__main__ import ServerOptions, serve

    with pytest.raises(MedSegError, match="nobody"):
        serve(ServerOptions(backbone="nobody"))
