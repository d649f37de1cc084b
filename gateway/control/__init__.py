"""The control plane: what operators and tenants may change, through one gate that checks and notes every operation."""
