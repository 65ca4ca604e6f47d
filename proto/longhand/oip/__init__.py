"""The Open Inference Protocol, as the server speaks it.

Its message types are named as tritonclient's are (package ``inference``), so one process cannot import both. Only
the server imports this; the client never does.
"""
