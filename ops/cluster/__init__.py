"""Several gateways, their PostgreSQL, Redis and upstream, and a proxy in front, as processes of this machine.

For trying out and for the fault tests; `python -m ops.cluster up` from the repository's root. It needs the development
requirements, which bring PostgreSQL and Valkey. Nothing of it is installed with Wardgate.
"""
