"""Tests of labkit.isolation.cgroups."""
