"""Words → calls; no logic of its own."""
