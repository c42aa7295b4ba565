"""For authors of methods, spaces, verifiers and backends: laws as tests, a toy world, faults, golden traces."""
