"""The doctor of data sets: reads them as training would, and says what is wrong with them."""
