"""What a training step gets, and which images it draws: pure functions of seed and step."""
