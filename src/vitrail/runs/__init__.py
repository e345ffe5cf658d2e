"""Passes over many photos, a batch at a time: what was asked, what is written, and what is left to do when a run resumes."""
