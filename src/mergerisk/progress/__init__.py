"""What a person sees while long work runs: in a terminal, a notebook, a pipe."""
