"""The UE side: a process that measures, encodes, packs and sends for a fleet of UEs."""
