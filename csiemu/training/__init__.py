"""Training of any scheme. Imports only torch, numpy, scipy, safetensors and our own modules that do the same."""
