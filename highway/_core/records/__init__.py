"""Records of stores: spans, tables, checksums."""
