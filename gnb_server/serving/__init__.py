"""From chunks to acks: admission, batching, decoding, scoring, commit, and the thread that runs them in this order."""
