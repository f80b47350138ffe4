"""Checkpoints of sharded learners: each learner writes its part, any number of them reads it.

`torch.distributed.checkpoint` writes safetensors files here, one a learner, which say themselves
where their pieces lie in the whole; its own format keeps that in a pickle, which would run what its
writer put into it, and is neither written nor read. The rest of the algorithm's state is written
after the parts and names them, so that parts of an unfinished checkpoint are never taken up.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException

from medseg_agents.grpo.module import HFChatModule
from medseg_agents.grpo.settings import ChatRun
from medseg_agents.llm.checkpoint import save_view
from medseg_agents.runs.algorithm_state import read_state
from medseg_agents.runs.folder import previous_checkpoint
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_folder

_PARTS, _WEIGHT, _MOMENT = "learner_parts", "weight/", "optimiser/"
_IN_PARTS = ("learner_group/learner/rl_module", "learner_group/learner/optimizer")


class StateInParts:
    """State of an algorithm, of which learners keep weights and moments in a folder beside it.

    Learners that are not sharded leave all of it to the algorithm.

    Args:
        algo: A `ChatAlgorithm`.
        folder: Of its checkpoint.
    """

    def __init__(self, algo: Any, folder: Path) -> None:
        self._algo, self._folder = algo, folder
        self._name: str | None = None

    def get_state(self) -> dict[str, Any]:
        """Write the parts; return the rest, with their names.

        Raises:
            MedSegError: Not all parts are there.
        """
        algo = self._algo
        if not algo.config.settings.shard:
            state: dict[str, Any] = algo.get_state()
            return state
        self._name = name = f"learners-{secrets.token_hex(4)}"
        place = (self._folder / name).absolute()
        place.mkdir(parents=True)
        algo.learner_group.call(save_part, str(place))
        files = sorted(file.name for file in place.iterdir())
        learners = algo.config.num_learners
        if len(files) < learners:
            raise MedSegError(
                f"{place}: {learners} learners wrote their parts and {len(files)} of them are "
                "here: the run's folder (--out) must be on a path that all hosts see"
            )
        return {
            **algo.get_state(not_components=list(_IN_PARTS)),
            _PARTS: {"folder": name, "files": files},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Give the algorithm its state, and learners what the parts hold."""
        parts = state.pop(_PARTS, None)
        self._algo.set_state(state)
        if parts is not None:
            place = parts_folder(self._folder, parts)
            self._algo.learner_group.call(load_part, str(place.absolute()))

    def remove_unused(self) -> None:
        """Remove parts of checkpoints that were here before, and of unfinished ones."""
        for place in self._folder.glob("learners-*"):
            if place.name != self._name:
                shutil.rmtree(place, ignore_errors=True)


def parts_folder(folder: Path, parts: Any) -> Path:
    """Return the folder of a checkpoint's parts.

    Args:
        folder: Of the checkpoint.
        parts: What the state says about them.

    Raises:
        MedSegError: One of them is missing, or what is said is no such thing.
    """
    hint = previous_checkpoint(folder)
    try:
        name, files = str(parts["folder"]), [str(file) for file in parts["files"]]
    except (KeyError, TypeError) as error:
        raise MedSegError(f"{folder}: its state names no parts of learners{hint}") from error
    if any(Path(one).name != one for one in (name, *files)):
        raise MedSegError(f"{folder}: parts of learners lie outside of it{hint}")
    missing = [file for file in files if not (folder / name / file).is_file()]
    if missing or not files:
        raise MedSegError(
            f"{folder / name}: the parts of {len(missing) or 'all'} learners are missing "
            f"({', '.join(missing[:3])}){hint}"
        )
    return folder / name


def save_part(learner: Any, place: str) -> None:
    """Write this learner's part; a collective call.

    Args:
        learner: A `ShardedChatLearner`.
        place: Folder that all learners see.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    tensors = {
        _WEIGHT + name: parameter.detach()
        for name, parameter in learner.chat_module.trained().items()
    }
    for _, name, state in _moments(learner):
        for kind, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{_MOMENT}{kind}/{name}"] = value
    dcp.save(
        tensors,
        storage_writer=HuggingFaceStorageWriter(place, save_distributed=True),
        process_group=_host_group(learner),
    )


def load_part(learner: Any, place: str) -> None:
    """Take up what this learner holds of weights and moments; of however many learners they are.

    Args:
        learner: A `ChatLearner`, sharded or not.
        place: Folder of the parts.

    Raises:
        MedSegError: They are of another model, or damaged.
    """
    sizes = _sizes(place)
    own = learner.chat_module.trained()
    wanted: dict[str, Any] = {_WEIGHT + name: p.detach() for name, p in own.items()}
    unknown = sorted({_name(key) for key in sizes} ^ set(own))
    if unknown or any(sizes[key] != tuple(wanted[key].shape) for key in wanted):
        raise MedSegError(f"{place}: weights of another model: {', '.join(unknown[:3])} ...")
    moments: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    for parameter, name, state in _moments(learner):
        for key, size in sizes.items():
            kind = key.removeprefix(_MOMENT).partition("/")[0]
            if key == f"{_MOMENT}{kind}/{name}":
                like = size == tuple(parameter.shape)
                target = torch.zeros_like(parameter) if like else torch.zeros(size)
                wanted[key] = target.detach()
                moments.append((state, kind, wanted[key]))
    _read(wanted, place)
    for state, kind, value in moments:
        state[kind] = value


def whole_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return whole weights of a checkpoint, by name, in this process alone.

    Args:
        folder: Given to `ChatAlgorithm.save_to_path` by an algorithm with sharded learners.

    Raises:
        MedSegError: It has no parts, or they are damaged.
    """
    place = parts_folder(folder, read_state(folder).get(_PARTS))
    tensors: dict[str, Any] = {
        key: torch.zeros(size, dtype=dtype)
        for key, (size, dtype) in _described(str(place)).items()
        if key.startswith(_WEIGHT)
    }
    _read(tensors, str(place))
    return {key.removeprefix(_WEIGHT): value for key, value in tensors.items()}


def save_whole_model(folder: str | Path, run: ChatRun, out: str | Path) -> None:
    """Make a model that plays as `llm:OUT` of the parts in a checkpoint, without any learner.

    Args:
        folder: Of the algorithm in a checkpoint of a run, `checkpoints/step-N/algorithm`.
        run: Settings of the run.
        out: Folder of the model.

    Raises:
        MedSegError: See `whole_state`.
    """
    module = HFChatModule(model_config={"settings": run.chat, "values": False}, inference_only=True)
    module.set_state(whole_state(Path(folder)))
    policy = {"history": run.history, "max_new_tokens": run.max_completion_length}
    with atomic_folder(out) as unfinished:
        module.save(unfinished)
        save_view(unfinished, run.view(), policy, run.kind().env_id)


def _moments(learner: Any) -> list[tuple[Any, str, dict[str, Any]]]:
    """Return each trained parameter, its name, and its state in the optimiser that has it."""
    names = {p: name for name, p in learner.chat_module.trained().items()}
    return [
        (p, names[p], optimiser.state[p])
        for optimiser in learner._named_optimizers.values()
        for group in optimiser.param_groups
        for p in group["params"]
    ]


def _host_group(learner: Any) -> Any:
    """Return a group of all learners that plans on the CPU, whatever the tensors lie on."""
    if not hasattr(learner, "_host_group"):
        learner._host_group = dist.new_group(backend="gloo")
    return learner._host_group


def _described(place: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    metadata: dict[str, Any]  # of tensors alone: safetensors files hold nothing else
    try:
        metadata = dict(HuggingFaceStorageReader(place).read_metadata().state_dict_metadata)
    except Exception as error:  # safetensors' own, JSON's, the disk's
        raise _damaged(place, error) from error
    return {key: (tuple(one.size), one.properties.dtype) for key, one in metadata.items()}


def _sizes(place: str) -> dict[str, tuple[int, ...]]:
    return {key: size for key, (size, _) in _described(place).items()}


def _name(key: str) -> str:
    return key.removeprefix(_WEIGHT) if key.startswith(_WEIGHT) else key.split("/", 2)[2]


def _read(tensors: dict[str, Any], place: str) -> None:
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    try:
        # Every learner reads for itself what it holds: nothing is collective here.
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(place), no_dist=True)
    except (Exception, CheckpointException) as error:  # DCP's own is no Exception
        raise _damaged(place, error) from error


def _damaged(place: str, error: BaseException) -> MedSegError:
    return MedSegError(f"{place} is damaged: {error}{previous_checkpoint(Path(place))}")
