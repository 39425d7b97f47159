"""Tables of docs/transform_coding.md."""
