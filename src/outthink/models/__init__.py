"""Who does the work: backends, the embedded models, price cards. `outthink.models.open` finds them by name."""
