"""Trainers: whatever learns from groups of trajectories."""
