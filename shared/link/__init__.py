"""The one way from an observation to an outcome: fields, bits, payload, bits, fields, estimate, comparison.

`encoding` is the UE's, `payload` both ends', `decoding` the gNB's, where it can also check a decoder alone, and
`evaluation` compares with the truth. UE, gNB, training, offline evaluation, verification and benchmarks call these.
`decoding` cannot import what knows the downlink: an import contract in pyproject.toml holds this.
"""
