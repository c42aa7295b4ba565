"""Estimators and fits: pure functions of what runs recorded."""
