"""Programs for a machine with a GPU; `run.sh` runs them on one that has nothing else."""
