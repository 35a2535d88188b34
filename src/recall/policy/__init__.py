"""Policies: whatever samples tokens."""
