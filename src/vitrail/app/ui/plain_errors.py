"""Errors in plain sentences, for people who do not program; API clients get the messages as they are."""

import re

FORMATS = "Choose a JPEG, PNG, WebP, GIF, BMP, TIFF or DICOM file."

SIDE_B = "Side B: "
"""How messages about the second of two sides begin."""

SENTENCES = (
    (r"there is no photo yet", "There is no photo yet. Upload or paste one, or choose an example."),
    (r"the uploaded photo is no longer there", "The uploaded photo was removed in the meantime. Upload it again."),
    (r"expected at least one method", "Choose at least one way to explain the photo."),
    (r"expected at most (\d+) methods", r"Choose at most \1 ways to explain at a time."),
    (r"unknown class (['\"])(.*?)\1[ :;]", r"The model does not know the class “\2”. Choose one from the list."),
    (r"expected a class between 0 and \d+, got (\S+)", r"The model has no class number \1. Choose a class from the list."),
    (r"expected the name of one class", "Several classes have this name. Choose one from the list."),
    (r"got HEIC", "This is a HEIC photo, as iPhones take them. Export it as JPEG, then choose it again."),
    (r"expected an image file, got an empty one .*: (.+)", rf"“\1” is an empty file. {FORMATS}"),
    (r"expected an image file .*got something else: (.+)", rf"“\1” is not a photo that can be read here. {FORMATS}"),
    (
        r"damaged or truncated image (.+?): ",
        r"“\1” is damaged or incomplete. Download or export it again, or choose another photo.",
    ),
    (
        r"expected a photo of at most (\S+) MB, got (\S+) MB",
        r"This file has \2 MB; at most \1 MB are allowed. Scale the photo down.",
    ),
    (
        r"expected a photo of at most (\S+) pixels a side, got (\S+) pixels",
        r"This photo has \2 pixels; at most \1 are allowed on each side. Crop it, or scale it down.",
    ),
    (
        r"expected an image of at most (\S+) pixels, got .*\((.+?)\)",
        r"This photo has \2; at most \1 pixels in all are allowed. Scale it down.",
    ),
    (r"whose longer side is at most|ordinary proportions", "This photo is too long and thin. Crop it first."),
    (r"not enough memory", "This photo is too large for the server. Scale it down."),
    (r"expected (samples of 8|floating-point samples)", "The colors of this photo cannot be read. Save it with 8 or 16 bits."),
    (r"reading DICOM files needs", "This server cannot read DICOM files. Export the picture as PNG."),
    (r"expected a DICOM file that is not deflated", "This DICOM file is compressed as a whole. Export it without compression."),
    (r"expected a DICOM file with a picture", "This DICOM file contains no picture. Export the picture itself."),
    (
        r"expected a DICOM file of one picture, got (\S+) frames",
        r"This DICOM file contains \1 pictures. Export the one to explain as a file of its own.",
    ),
    (
        r"DICOM picture of|in a DICOM file|as the DICOM file says|that pydicom can decode",
        "The picture in this DICOM file cannot be read here. Export it without compression, in gray or 8-bit colors.",
    ),
)
"""What a message contains, and what the page says instead."""


def say_plainly(message: str) -> str:
    """Return a message as plain sentences that say what to do; one that is not listed keeps its words."""
    if message.startswith(SIDE_B):
        return f"{SIDE_B}{say_plainly(message.removeprefix(SIDE_B))}"
    for pattern, sentence in SENTENCES:
        if match := re.search(pattern, message):
            return match.expand(sentence)
    what, _, remedy = message.rpartition("; ")
    return " ".join(f"{part[:1].upper()}{part[1:].removesuffix('.')}." for part in (what, remedy) if part)
