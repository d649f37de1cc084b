"""Budgets in a process that serves: what it holds of them, what it reserves for a call, and what it gives back."""
