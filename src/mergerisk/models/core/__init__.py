"""The model itself: preprocessing, encoder, head, and what must hold of them."""
