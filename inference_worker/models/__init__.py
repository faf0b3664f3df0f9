"""What a model is and where it lives: declared, found, checked, loaded, lent, replaced, evicted."""
