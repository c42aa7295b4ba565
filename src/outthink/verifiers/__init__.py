"""How good a state is."""
