"""How compute is spent: mechanisms, over any space and any verifier. None of them knows models, batches or prices."""
