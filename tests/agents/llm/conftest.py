"""A tiny model, and policies of a server."""

import pytest
from medseg_agents import policies

from medseg_gym.policy import make_envs

pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    path = tmp_path_factory.mktemp("tiny")
    texts = ["liver in abdomen CT, 5 calls.", "3 left.", "no change, 2 left."]
    return build_tiny(path, texts, TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=2))


@pytest.fixture
def build():
    """Makes environments and the policy of a server; closes both."""
    made = []

    def start(server_url, cases, num_envs=2, query="", **options):
        if "image_size" not in query:
            query += "&image_size=32"  # images take the time here
        policy_spec = policies.make(f"openai:m?base_url={server_url}{query}")
        envs = make_envs(
            num_envs,
            policy_spec.env_id,
            cases=cases,
            backbone="ellipse",
            **policy_spec.view,
            **options,
        )
        made.append((envs, policy_spec.build(envs)))
        return made[-1]

    yield start
    for envs, policy in made:
        policy.close()
        envs.close()
