"""Tests of what runs beside Wardgate."""
