"""Benchmarks: every figure is a ratio taken within one run, so that a shared, noisy machine cannot fake it."""
