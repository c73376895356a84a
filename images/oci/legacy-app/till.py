"""Adds up prices with coinbox 1: amounts are floats, and ``total`` is a function."""

import sys

import coinbox

amounts = [float(word) for word in sys.argv[1:]]
print(f"coinbox {coinbox.__version__}: {coinbox.total(amounts)} in total")
