"""The policy of a run: its base placed on devices, tuned on examples, and sampled from.

`placement` loads the base where training and rollouts need it, `tuning` makes checkpoints from
examples, `sampling` plays with a checkpoint. Operates on tokens and weights; which examples and
which episodes is decided in `methods` and `pipeline`.
"""
