"""What helps, by how much, and what does nothing: every preset and every ablation on scenes with exact truth."""
