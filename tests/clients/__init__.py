"""Clients that people use, each in an environment of its own, against one real gateway: `make clients`."""
