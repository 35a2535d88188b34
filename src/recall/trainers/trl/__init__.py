"""Training with TRL's `GRPOTrainer`: our loop plays, TRL learns. Importing the package loads no TRL."""
