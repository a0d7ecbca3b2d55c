"""Ways inside a model that runs: its blocks, attention maps and features."""
