"""Tables and figures of the CRNet paper, and what it leaves out: bits."""
