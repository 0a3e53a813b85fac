"""The batches of training steps: pure functions of seed and step."""
