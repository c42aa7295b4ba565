"""The contract: what may be asked for, what it costs, who pays, and who drives. Standard library only."""
