"""Reads tables: Parquet and Arrow files, Arrow tables, data sets of Hugging Face, and data frames."""
