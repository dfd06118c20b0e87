"""JPEG: headers, decoding of batches, encoding."""
