"""The admin API under `/admin` and self-service under `/v1/keys`: the gate's operations, over HTTP."""
