"""Pictures and pages: overlays, contact sheets, curves, tables, the HTML report."""
