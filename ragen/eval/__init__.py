"""Evaluation: one core under every script of ``reason_test``."""
