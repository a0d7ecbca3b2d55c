"""Files of models: what they are called, hold and decide."""
