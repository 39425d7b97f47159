"""`csiemu emulate --ray`: several gNBs, each with UEs of its own, over the machines of a Ray cluster."""
