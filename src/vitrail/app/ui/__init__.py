"""The page itself: layout, events and HTML."""
