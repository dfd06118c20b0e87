"""Stores: samples in LevelDB, each with a checksum, written without losing or duplicating any."""
