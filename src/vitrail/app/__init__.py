"""The web page: upload a photo and see why the model decided. Needs the extra `app`; only `server` starts Gradio."""
