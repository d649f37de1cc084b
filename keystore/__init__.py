"""What must not be lost: providers, keys, tenants and tokens. The only package that knows SQL and ciphers."""
