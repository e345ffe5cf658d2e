"""The command line: each command parses options, calls `vitrail.api`, and prints the result."""
