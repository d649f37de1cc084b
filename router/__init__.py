"""Pure decisions: which models may answer a request, in which order, and why the others may not."""
