"""Which sample comes when, and the random numbers that belong to it."""
