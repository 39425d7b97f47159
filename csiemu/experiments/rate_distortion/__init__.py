"""What feedback bits are worth: every scheme that runs on a scenario, on one plane of bits and distortion."""
