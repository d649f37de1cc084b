"""Tests of gateway/budgeting."""
