"""The engine: a daemon that speaks the Docker Engine API."""
