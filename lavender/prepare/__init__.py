"""Creation of data sets from user files: a table of texts and a folder of videos."""
