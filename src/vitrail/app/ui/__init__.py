"""The page itself: layout, events, and the HTML of results."""
