"""How a run is followed: the one door to W&B, `metrics.csv`, and the tables of variants and seeds."""
