"""Networks of vit-pytorch (lucidrains) as the explainers see them."""
