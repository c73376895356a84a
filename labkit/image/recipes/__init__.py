"""The course's base images, built from packages and files of this machine: no hub is asked for anything.

Each folder of ``images/oci`` is a recipe: a Containerfile and a README. What it copies and what cannot lie in a repository (programs,
libraries) is put together here, in a fixed order with fixed owners and times, so that the same machine gives the same digests.

See: ``images/README.md``, `labkit.image.build`.
"""
