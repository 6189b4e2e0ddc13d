"""What the latents carry: usage, collapse, information, labels, and whether q is the posterior."""
