"""The parts of the command line: what is read, how it is printed, scored, drawn and stored."""
