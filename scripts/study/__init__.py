"""Nested against mixed against coordinated subtask training, in the small."""
