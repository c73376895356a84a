"""The API: one module a noun, each a table of routes and the functions that answer them."""
