"""What the UE and the gNB must agree on, and no more: world, schemes, payloads, checkpoints, metrics."""
