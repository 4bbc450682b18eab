"""What a hospital does with its records before training: checks, splits, draws."""
