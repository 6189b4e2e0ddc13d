"""What latents carry: use, collapse, information, labels, and whether q is the posterior."""
