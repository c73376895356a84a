"""Tests of labkit.isolation."""
