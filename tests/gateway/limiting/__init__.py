"""Tests of gateway/limiting."""
