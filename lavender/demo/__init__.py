"""Made-up clips with known answers, and the tour that trains on them."""
