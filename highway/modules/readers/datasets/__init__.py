"""Data sets in Python as a source of batches: reading their samples, collation, and worker processes."""
