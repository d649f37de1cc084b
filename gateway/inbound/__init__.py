"""What reaches us from a socket before there is a request: limits, refusals, and a client that leaves."""
