"""Tests of gateway/alerting."""
