"""Stores: samples in LevelDB, each with a checksum, written so that none is lost and none is doubled."""
