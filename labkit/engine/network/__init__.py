"""Networks of the engine: bridges, veth pairs, addresses, NAT, names, published ports."""
