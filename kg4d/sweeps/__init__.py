"""Many fits: which ones, in what order, where each of them runs, and what they come to together."""
