"""The tables that a run leaves: what each holds, what is planned for it, and how it is collected."""
