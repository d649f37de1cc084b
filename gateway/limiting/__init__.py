"""How much a tenant may ask at a time: requests and tokens a minute, and requests at once, over all replicas."""
