"""Alerts of money: what is told of budgets and of unusual spending, and how it reaches the operator's webhooks."""
