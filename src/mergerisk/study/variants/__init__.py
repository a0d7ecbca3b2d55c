"""Who is attacked, and who attacks: one file per way to answer."""
