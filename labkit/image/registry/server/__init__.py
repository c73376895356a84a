"""A registry server: `service` is the whole, `listener` its sockets, the routes what can be asked for, the rest what they stand on.

See: OCI Distribution Specification 1.1.
"""
