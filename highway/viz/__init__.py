"""Contact sheets: pictures of batches."""
