"""HTTP/1.1 to providers: bounded, pooled, and only to addresses that were checked. Knows no keys and no tenants."""
