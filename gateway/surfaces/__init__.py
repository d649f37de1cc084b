"""The wires that callers may speak beside chat completions, said in terms of it: pure, no I/O."""
