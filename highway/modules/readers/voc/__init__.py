"""Folders in the format of Pascal VOC: lists, annotations, and their reader."""
