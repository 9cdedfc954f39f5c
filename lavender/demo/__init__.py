"""Made-up clips with known answers, and a tour that trains on them."""
