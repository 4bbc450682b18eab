"""Both sides together on one machine: scenarios, virtual hospitals, baselines, measures."""
