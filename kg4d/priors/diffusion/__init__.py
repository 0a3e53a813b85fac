"""Providers that run diffusion models, and how their checkpoints are found and read."""
