"""Price releases in a running gateway: fetched, staged, decided, and served by every process without a restart."""
