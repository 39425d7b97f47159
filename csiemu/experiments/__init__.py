"""Tables and figures of the documentation and of the papers, each by one command."""
