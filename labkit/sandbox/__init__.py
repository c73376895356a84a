"""The sandbox in which the course's notebooks run, and the server outside it."""
