"""The objects of the engine: containers, execs, images, networks, volumes, events, and the state that survives it."""
