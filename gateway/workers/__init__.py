"""Several processes that serve as one gateway: a supervisor, its workers, and what they say to each other."""
