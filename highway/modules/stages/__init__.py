"""Stages: modules that change batches."""
