"""The gNB side: sessions, decoding, evaluation, results, and their gRPC and REST faces."""
