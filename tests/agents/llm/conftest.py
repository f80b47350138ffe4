import pytest

pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    from agents.llm.tiny import TinyConfig, build_tiny

    path = tmp_path_factory.mktemp("tiny")
    texts = ["liver in abdomen CT, 5 calls.", "3 left.", "no change, 2 left."]
    return build_tiny(path, texts, TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=2))
