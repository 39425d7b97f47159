"""The world: a pure function of (scenario, seed, split, ue, frame).

`uplink` is what the gNB may see, `downlink` what the UE measures and the evaluator compares with; modules that decode
must never import `downlink` (an import contract in pyproject.toml and a test hold this).
"""
