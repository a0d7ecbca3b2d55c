"""Ways to run a plan's stages; the plan is the same for all."""
