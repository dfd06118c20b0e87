"""Contact sheets: batches drawn for people to look at."""
