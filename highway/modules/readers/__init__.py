"""Readers: sources that read samples from files, arrays and stores."""
