"""Many tries, then a choice."""
