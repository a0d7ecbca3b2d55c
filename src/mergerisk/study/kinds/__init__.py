"""What is computed and kept: one file per kind of stage. Only here do the rooms meet the store."""
