"""A local LLM stand-in on a real port: the demo's provider and the tests' upstream.

Owns the wires that it imitates and the ways in which it misbehaves as told. It knows nothing of the gateway: no module
here imports anything of `gateway` but its own package, and nothing of the data plane imports it.
"""
