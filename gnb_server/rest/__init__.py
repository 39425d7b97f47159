"""The REST skin."""
