"""Tests of labkit; they mirror its folders. What they share is in `tests.support`."""
