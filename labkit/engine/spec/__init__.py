"""Specs: what clients may ask for, checked and completed with Docker's defaults."""
