"""Results of providers on disk, computed once; `python -m kg4d.priors.cache` lists, verifies and prunes them."""
