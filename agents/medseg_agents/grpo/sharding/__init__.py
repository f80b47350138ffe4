"""Several learners as one: agreement between them, FSDP2 shards, checkpoints in parts.

`agreement` is for learners of every kind; the rest shards parameters, gradients and Adam's moments
over learners (`torch.distributed.fsdp.fully_shard`) within RLlib's learner, which knows DDP alone.
"""
