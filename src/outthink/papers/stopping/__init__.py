"""To know when it is enough."""
