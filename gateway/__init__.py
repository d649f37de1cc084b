"""The HTTP edge: everything on the wire. Decisions are made in `router`, what must not be lost lives in `keystore`."""
