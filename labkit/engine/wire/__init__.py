"""The wire: HTTP/1.1 as Docker's clients speak it, without a word about containers."""
