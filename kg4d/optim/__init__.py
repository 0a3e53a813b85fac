"""What the stages minimise and how: the objective with its named terms, optimisers, learning-rate schedules."""
