"""Logging of runs: W&B, `metrics.csv`, and the tables of variants and seeds."""
