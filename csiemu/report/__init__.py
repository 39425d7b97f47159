"""Runs that have ended, or go on: read from what they leave, shown as one page, compared, exported."""
