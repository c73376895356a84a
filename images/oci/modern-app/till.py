"""Adds up prices with coinbox 2: amounts are decimal texts, and a ``Till`` adds them up."""

import sys

import coinbox

till = coinbox.Till()
for word in sys.argv[1:]:
    till.add(word)
print(f"coinbox {coinbox.__version__}: {till.total} in total")
