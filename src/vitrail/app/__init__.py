"""The web page: a photo in, and why the model decided. Needs the extra `app`; the kit of the page is imported by `server` alone."""
