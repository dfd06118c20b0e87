"""Files and folders, storage outages, file locks."""
