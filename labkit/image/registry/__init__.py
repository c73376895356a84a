"""Registries: how images travel. A client (`client`, `pull`, `push`) and a small server (`server.service`).

Read in this order: `transport` (requests with time limits), `auth` (logging in), `client` (what a registry offers), `pull`, `push`,
`upload`; then `server`.

See: OCI Distribution Specification 1.1.
"""
