"""Training: one loop for all tasks, its settings, the presets and the run directories."""
