"""Data sets made of people's own files: a table of texts and a folder of videos."""
