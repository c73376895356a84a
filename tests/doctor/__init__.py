"""Tests of `labkit.doctor`."""
