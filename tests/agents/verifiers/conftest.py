"""`verifiers`' own evaluation, with all of its files in a folder of the test."""

import asyncio

import pytest


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Runs `verifiers`' own evaluation of an environment against a server; returns episodes."""
    from verifiers.v1.cli.eval.runner import run_eval
    from verifiers.v1.configs.cli.eval import EvalConfig
    from verifiers.v1.runtimes import subprocess

    monkeypatch.setattr(subprocess, "CACHE_DIR", tmp_path / "cache")
    for name in ("HOME", "PRIME_RUNS_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PRIME_RUNS_MODE", "disabled")
    monkeypatch.setenv("VF_RUN_ID", "test")
    monkeypatch.chdir(tmp_path)

    def run(env, url, tasks=1, **settings):
        config = EvalConfig(
            env=env.config,
            model="m",
            client={"type": "eval", "base_url": url, "api_key_var": "NO_KEY"},
            select={"limit": tasks},
            push=False,
            rich=None,
            output_dir=tmp_path / "out",
            run={"dir": "run"},
            **settings,
        )
        return asyncio.run(run_eval(config))

    return run
