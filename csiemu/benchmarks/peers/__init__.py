"""Servers of others that decode what the gNB decodes: processes of their own, and what loads them."""
