"""Lists the pictures and classes of a folder, and what is skipped in it."""
