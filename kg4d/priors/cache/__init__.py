"""A cache of providers' results on disk; `python -m kg4d.priors.cache` lists, verifies and prunes it."""
