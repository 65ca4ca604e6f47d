"""Data, training, evaluation, language models and export of Longhand's recogniser."""
