"""Solve one prompt, compare methods at equal budgets, resume, and report."""
