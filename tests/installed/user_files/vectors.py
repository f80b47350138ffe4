"""The environment as gymnasium makes it: one, and vectors of each kind."""

import gymnasium as gym

import medseg_gym  # noqa: F401  (registers the ids)

if __name__ == "__main__":
    env = gym.make("MedSeg-v0", max_episode_steps=2)
    env.reset(seed=0)
    assert [env.step([1, 10, 10, 0, 0])[3] for _ in range(2)] == [False, True]
    for mode in (None, "sync", "async"):
        for env_id in ("MedSeg-v0", "MedSegChat-v0"):
            envs = gym.make_vec(env_id, num_envs=2, vectorization_mode=mode)
            try:
                envs.reset(seed=0)
                infos = envs.step(envs.action_space.sample())[-1]
                print(env_id, mode, infos["dice"].tolist())
            finally:
                envs.close()
