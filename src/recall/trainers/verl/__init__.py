"""Training on verl: a cluster's GPUs, verl's engines, and ReCall's own rollout, tasks and rewards within them.

Only `dataset`, `loop` and `sampler` import verl; they are what verl itself loads, in its own processes. The rest writes
the command, starts it, watches it, and reads what it leaves.
"""
