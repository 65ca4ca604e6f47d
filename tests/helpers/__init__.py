"""Things that several test files share; tests/ is on the path."""
