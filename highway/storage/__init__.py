"""Where bytes come from: files and folders, storage that fails for a while, locks."""
