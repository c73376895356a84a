"""Tests of `labkit.linux`."""
