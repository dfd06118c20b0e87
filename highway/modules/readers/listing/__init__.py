"""What a folder holds: its pictures and classes, and what is skipped."""
